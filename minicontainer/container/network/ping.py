"""``ping`` without CAP_NET_RAW: sockets that send echo requests and receive the replies alone (icmp(7),
ping_group_range; ICMPv6 follows the same sysctl). A new network namespace permits them to no group; the container's
permits them to every group. The host's network and another container's stay as they are.
"""

from __future__ import annotations

import errno

from minicontainer import plan as p
from minicontainer.container.ids.ranges import WIDTH, parse_range
from minicontainer.plan import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.plan import Builder
    from minicontainer.spec import Spec

SYSCTL = "net.ipv4.ping_group_range"
GROUP_MAX = 2**31 - 1  # net/ipv4/sysctl_net_ipv4.c, ip_ping_group_range_max


def groups(spec: Spec, userns: str, maps: tuple[str, str] | None) -> str:
    """The value for the sysctl: the first and the last group that the user namespace maps. "" where the network
    namespace is not the container's own, or the spec sets the sysctl. ``userns`` and ``maps`` are as in Host."""
    in_spec = {key.replace("/", ".") for key in spec.sysctls}
    if not (spec.network == "none" or spec.attached) or SYSCTL in in_spec:
        return ""
    if maps is not None:
        return "{0} {0}".format(maps[1].split()[0])
    if userns == "range":
        ids = parse_range(spec.userns)
        return f"0 {(ids.width if ids is not None else WIDTH) - 1}"
    from minicontainer.container.ids import mappings

    extents = mappings.group_extents(spec, userns)
    first, last = min(inside for inside, _ in extents), max(inside + count - 1 for inside, count in extents)
    return f"{first} {min(last, GROUP_MAX)}"


def allow(b: Builder, range_: str, proc: Slot) -> None:
    """Writes the sysctl below the descriptor ``proc``, where the kernel has it and permits the write."""
    fd = Slot("ping-groups")
    step = p.openat("sys/net/ipv4/ping_group_range", "O_WRONLY|O_CLOEXEC", fd, at=proc)
    b.add(step._replace(tolerate=(errno.ENOENT, errno.EROFS), skip=2))
    b.add(p.write(fd, range_, tolerate=(errno.EINVAL,)), p.close(fd))
