"""``ping`` without CAP_NET_RAW: sockets that send echo requests and see no packet but the answers (icmp(7),
ping_group_range; ICMPv6 goes by the same). A new network namespace gives them to no group; here each group of the
container may have them. The host's own network, and another container's, stay as they are.
"""

from __future__ import annotations

import errno

from minicontainer import plan as p
from minicontainer.container.ids import mappings
from minicontainer.container.ids.ranges import WIDTH, chosen
from minicontainer.plan import Builder, Slot
from minicontainer.spec import Spec

SYSCTL = "net.ipv4.ping_group_range"
GROUP_MAX = 2**31 - 1  # net/ipv4/sysctl_net_ipv4.c, ip_ping_group_range_max


def groups(spec: Spec, userns: str, maps: tuple[str, str] | None) -> str:
    """What is written to the sysctl: the first and the last group that the user namespace maps. "" where the network is
    not the container's own, or the sysctl is asked for. ``userns`` and ``maps`` are the host's facts."""
    given = {key.replace("/", ".") for key in spec.sysctls}
    if not (spec.network == "none" or spec.attached) or SYSCTL in given:
        return ""
    if maps is not None:
        return "{0} {0}".format(maps[1].split()[0])
    if userns == "range":
        ids = chosen(spec.userns)
        return f"0 {(ids.width if ids is not None else WIDTH) - 1}"
    extents = mappings.group_extents(spec, userns)
    first, last = min(inside for inside, _ in extents), max(inside + count - 1 for inside, count in extents)
    return f"{first} {min(last, GROUP_MAX)}"


def allow(b: Builder, range_: str, proc: Slot) -> None:
    """Writes it by ``proc``, where this kernel has it and lets it be written."""
    fd = Slot("ping-groups")
    opened = p.openat("sys/net/ipv4/ping_group_range", "O_WRONLY|O_CLOEXEC", fd, at=proc)
    b.add(opened._replace(tolerate=(errno.ENOENT, errno.EROFS), skip=2))
    b.add(p.write(fd, range_, tolerate=(errno.EINVAL,)), p.close(fd))
