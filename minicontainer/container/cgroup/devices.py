"""The devices that a container may use: those of its /dev and no other, however it came to a node of one.

The program that says so (linux/devices.py) is loaded once for all containers without devices of their own.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from minicontainer.container.host import NODES, Host
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import devices
from minicontainer.linux.devices import Rule
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.linux.cgroup import Cgroup

ALWAYS = (
    *(Rule("c", major, minor) for _, major, minor in NODES),
    Rule("c", 5, 2),  # /dev/ptmx (Documentation/admin-guide/devices.txt)
    *(Rule("c", major, access="rw") for major in range(136, 144)),  # /dev/pts
)


_kept: dict[str, int] = {}  # the descriptor of the program of ALWAYS (a dict's methods are atomic)


def rules(spec: Spec, host: Host) -> tuple[Rule, ...] | None:
    """What its program allows; None: it has none, for it may use any (privileged), or its maker is not root."""
    if spec.privileged or host.uid != 0:
        unrestricted = (
            "--privileged uses any device" if spec.privileged else "only root can restrict access to a device"
        )
        refuse_less(spec, unrestricted)
        return None
    given = []
    for device, (major, minor, mode) in zip(spec.devices, host.device_nodes, strict=True):
        kind = "b" if stat.S_ISBLK(mode) else "c"
        given.append(Rule(kind, major, minor, "".join(sorted({*device.access, "m"}))))  # its node has to be made
    own = {(rule.kind, rule.major, rule.minor) for rule in given}
    return (*(rule for rule in ALWAYS if rule[:3] not in own), *given)


def refuse_less(spec: Spec, reason: str) -> None:
    """Where there is no program, access to a device cannot be less than rw: UnsupportedError."""
    for device in spec.devices:
        if not {"r", "w"} <= set(device.access):
            shown = f"{device.source}:{device.target}:{device.access}"
            raise UnsupportedError("devices", shown, reason, "leave out the access")


def restrict(cgroup: Cgroup | None, allowed: tuple[Rule, ...]) -> str:
    """Puts the program on the container's cgroup. Why that could not be done, or ""."""
    if cgroup is None:
        return "there is no cgroup v2 hierarchy to put the container into"
    try:
        if allowed == ALWAYS and _attach_kept(cgroup):
            return ""
        loaded = devices.load(devices.program(allowed))
        try:
            devices.attach(cgroup.fd, loaded)
        finally:
            if allowed != ALWAYS or _kept.setdefault("program", loaded) != loaded:
                os.close(loaded)
    except StepError as e:
        return str(e)
    return ""


def _attach_kept(cgroup: Cgroup) -> bool:
    """With the program that was loaded before; False where there is none, or its number is another's (daemons close
    all)."""
    kept = _kept.get("program", -1)
    try:
        if kept >= 0:
            devices.attach(cgroup.fd, kept)
    except StepError as e:
        if e.errno not in (errno.EBADF, errno.EINVAL):
            raise
        _kept.pop("program", None)
        return False
    return kept >= 0
