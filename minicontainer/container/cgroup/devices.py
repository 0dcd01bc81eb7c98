"""The devices that a container may use: those of its /dev, and no other, whatever device node it opens.

A BPF program (linux/devices.py) decides. It is loaded once for all containers without devices of their own.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.container.host import NODES, Host
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import devices
from minicontainer.linux.devices import Rule
from minicontainer.spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.linux.cgroup import Cgroup

ALWAYS = (
    *(Rule("c", major, minor) for _, major, minor in NODES),
    Rule("c", 5, 2),  # /dev/ptmx (Documentation/admin-guide/devices.txt)
    *(Rule("c", major, access="rw") for major in range(136, 144)),  # /dev/pts
)


_cache: dict[str, int] = {}  # the descriptor of the program for ALWAYS (a dict's methods are atomic)


def rules(spec: Spec, host: Host) -> tuple[Rule, ...] | None:
    """The devices that the container's BPF program allows. None where there is no program: the container is privileged,
    or the caller is not root."""
    if spec.privileged or host.uid != 0:
        unrestricted = (
            "--privileged uses any device" if spec.privileged else "only root can restrict access to a device"
        )
        refuse_partial_access(spec, unrestricted)
        return None
    in_spec = []
    for device, (major, minor, mode) in zip(spec.devices, host.device_nodes, strict=True):
        kind = "b" if stat.S_ISBLK(mode) else "c"
        in_spec.append(Rule(kind, major, minor, "".join(sorted({*device.access, "m"}))))  # m: the plan creates it
    if not in_spec:
        return ALWAYS
    numbers = {(rule.kind, rule.major, rule.minor) for rule in in_spec}
    return (*(rule for rule in ALWAYS if rule[:3] not in numbers), *in_spec)


def refuse_partial_access(spec: Spec, reason: str) -> None:
    """UnsupportedError where the spec gives less than rw access to a device: only the BPF program enforces that."""
    for device in spec.devices:
        if not {"r", "w"} <= set(device.access):
            value = f"{device.source}:{device.target}:{device.access}"
            raise UnsupportedError("devices", value, reason, "leave out the access")


def cached(allowed: tuple[Rule, ...] | None) -> int:
    """The descriptor of a program for these rules; -1 where none is cached. It may have been closed meanwhile: the
    kernel refuses another file (EBADF, EINVAL)."""
    return _cache.get("program", -1) if allowed is ALWAYS else -1


def restrict(cgroup: Cgroup | None, allowed: tuple[Rule, ...]) -> str:
    """Attaches the BPF program to the container's cgroup. Returns the reason where that failed, else ""."""
    if cgroup is None:
        return "there is no cgroup v2 hierarchy to put the container into"
    try:
        if allowed is ALWAYS and _attach_cached(cgroup):
            return ""
        loaded = devices.load(devices.program(allowed))
        try:
            devices.attach(cgroup.fd, loaded)
        finally:
            if allowed is not ALWAYS or _cache.setdefault("program", loaded) != loaded:
                os.close(loaded)
    except StepError as e:
        return str(e)
    return ""


def _attach_cached(cgroup: Cgroup) -> bool:
    """Attaches the cached program; False where there is none, or its descriptor was closed (daemons close all) or
    reused."""
    program = _cache.get("program", -1)
    try:
        if program >= 0:
            devices.attach(cgroup.fd, program)
    except StepError as e:
        if e.errno not in (errno.EBADF, errno.EINVAL):
            raise
        _cache.pop("program", None)
        return False
    return program >= 0
