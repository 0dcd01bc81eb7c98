"""Which field of a spec is for the outer container, which for the inner plan, and which a machine cannot honour."""

from __future__ import annotations

import math
import posixpath

from minicontainer.errors import SpecError
from minicontainer.microvm.devices import ALWAYS, NETWORK, VSOCK, root_image
from minicontainer.native import ffi, lib
from minicontainer.records import replace
from minicontainer.spec.limits import NO_LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minicontainer.container.host import Host
    from minicontainer.container.network.veth import Endpoint
    from minicontainer.microvm.devices import Device
    from minicontainer.spec import Mount, Spec

MEMORY = 512 << 20  # bytes of a guest whose spec has no limit
MEMORY_LEAST = 96 << 20
OVERHEAD = 64 << 20  # bytes of a cgroup beside the guest's memory: for the monitor, its page tables and KVM
IMAGE, SHARE = (ffi.string(path).decode() for path in (lib.MC_GUEST_IMAGE, lib.MC_GUEST_SHARE))  # in the guest
GUESTS_OWN = ("/proc", "/sys", "/dev")
READ_ONLY = ("/proc/sys",)  # every kernel has it; the others of host.READ_ONLY say nothing of the host here

# Fields that have to have these values, and why.
NOT_YET = "is not there in a virtual machine yet"
FIXED = {
    "devices": ((), "is one of the host's: a guest has its own"),
    "privileged": (False, "cannot give a guest's program rights on the host"),
    "executable": (None, "is a program of the host: a guest executes those of ROOTFS"),
    "pid": ("private", "cannot be shared with a guest"),
    "ipc": ("private", "cannot be shared with a guest"),
    "uts": ("private", "cannot be shared with a guest"),
    "cgroupns": ("private", "cannot be shared with a guest"),
    "oom_score_adj": (None, NOT_YET),
}
REFUSED_LIMITS = ("pids", "oom_group")  # the others are of the monitor's cgroup: it does all the guest's work


def check(spec: Spec) -> None:
    """SpecError: the first field that a machine cannot honour, by its name."""
    for name, (value, reason) in FIXED.items():
        given = getattr(spec, name)
        if given != value:
            raise SpecError(name, None if isinstance(given, (bool, tuple)) else given, reason, "--isolation container")
    if spec.network != "none" and not spec.attached:
        raise SpecError("network", spec.network, "cannot be shared with a guest", "--network bridge")
    if spec.timens == "private":
        raise SpecError("timens", spec.timens, "is the guest's own clock", "--isolation container")
    if spec.joined("userns"):
        raise SpecError("userns", spec.userns, "cannot be joined by a guest", "--isolation container")
    for name in REFUSED_LIMITS:
        value = getattr(spec.limits, name)
        if value is not None:
            shown = None if isinstance(value, bool) else value
            raise SpecError(name, shown, "is a limit of processes, which are the guest's own", "--isolation container")
    memory = spec.limits.memory
    if memory is not None and int(memory) < MEMORY_LEAST:
        raise SpecError("memory", memory, "is less than Linux needs in a virtual machine", f"{MEMORY_LEAST >> 20}m")
    if cpus(spec) > lib.MC_VMM_CPUS:
        raise SpecError("cpus", spec.limits.cpus, f"is more than a machine has ({lib.MC_VMM_CPUS} processors)")
    _check_mounts(spec)


def check_change(spec: Spec, changed: Iterable[str], *, running: bool) -> None:
    """SpecError: a ``changed`` limit of ``spec`` cannot be honoured, or not while its machine is ``running``."""
    check(spec)
    for name in changed:
        if running and name.startswith("memory"):
            reason = "is a machine's from its start on"
            raise SpecError(name, getattr(spec.limits, name), reason, "stop it, update it, start it")


def _check_mounts(spec: Spec) -> None:
    """Binds are mounted outside, tmpfs inside: a bind must not lie below what the guest mounts."""
    inside = [posixpath.normpath(mount.target) for mount in spec.mounts if mount.type == "tmpfs"]
    for mount in spec.mounts:
        target = posixpath.normpath(mount.target)
        for above in (*GUESTS_OWN, *inside) if mount.type != "tmpfs" else ():
            if f"{target}/".startswith(f"{above}/"):
                raise SpecError("mounts", mount.target, f"lies below {above}, which the guest mounts itself")


def memory(spec: Spec) -> int:
    """Bytes of the guest."""
    return int(spec.limits.memory or MEMORY) >> 21 << 21


def cpus(spec: Spec) -> int:
    """The number of the guest's processors."""
    return 1 if spec.limits.cpus is None else max(1, math.ceil(float(spec.limits.cpus)))


def devices(spec: Spec, *, is_reachable: bool) -> tuple[Device, ...]:
    """The guest's. ``is_reachable``: clients of the host can connect to it."""
    vsock = (VSOCK,) if is_reachable else ()
    network = (NETWORK,) if spec.attached else ()
    image = () if spec.root_image is None else (root_image(spec.root_image),)
    return (*ALWAYS, *vsock, *network, *image)


def outer(spec: Spec) -> Spec:
    """The spec of the outer container, whose program is the monitor.

    With an image, the monitor serves volumes alone: each has a name of its own, which an upper layer gets."""
    limits = spec.limits
    for name in ("memory", "memory_swap"):
        value = getattr(limits, name)
        if value is not None and value != -1:
            limits = replace(limits, **{name: int(value) + OVERHEAD})
    return replace(
        spec,
        isolation="container",
        kernel=None,
        root_image=None,
        ephemeral=spec.ephemeral or spec.root_image is not None,
        read_only=spec.read_only and spec.root_image is None,
        args=("monitor",),
        env={},
        cwd="/",
        user=None,
        group_add=(),
        mounts=tuple(_mount_outside(spec, i) for i in _outside(spec)),
        init=False,
        limits=limits,
        ulimits=(),
        sysctls={},
        cap_add=(),
        cap_drop=(),
        seccomp=None,
        no_new_privileges=True,
        no_new_suid=False,
        umask=0,
    )


def inner(spec: Spec) -> Spec:
    """The spec of what the guest's init starts: its root is that of the guest, or the image.

    A program may not make device nodes unless the spec says so: no filter is between it and the guest's devices."""
    asked = {name.upper().removeprefix("CAP_") for name in spec.cap_add}
    return replace(
        spec,
        isolation="container",
        kernel=None,
        root_image=None,
        ephemeral=spec.ephemeral and spec.root_image is not None,
        name=None,
        hostname=spec.hostname or spec.name,
        mounts=tuple(_mount_inside(spec, i) for i in _inside(spec)),
        cap_drop=spec.cap_drop if asked & {"MKNOD", "ALL"} else (*spec.cap_drop, "MKNOD"),
        limits=NO_LIMITS,
        userns="host",
        die_with_parent=False,
        timens="host",
        rootfs="/" if spec.root_image is None else IMAGE,
    )


def inner_host(host: Host, spec: Spec, endpoint: Endpoint | None = None) -> Host:
    """The facts for the inner plan, with those that are the guest's own. ``spec``: the whole; ``endpoint``: the outer
    container's."""
    return host._replace(
        userns="host",
        uid=0,
        gid=0,
        maps=None,
        outer_maps=(),
        files=tuple(host.files[i] for i in _inside(spec)),
        masked=(),
        read_only=READ_ONLY,
        cgroup2=True,
        permitted=-1,
        chrooted=False,
        timens=False,
        exe_reachable=False,
        idmapped=False,
        nested=False,
        groups=True,
        tty_group=True,
        lacks_mount_points=host.lacks_mount_points and spec.root_image is not None,
        endpoint=None if endpoint is None else endpoint._replace(in_guest=True),
        etc=(),
    )


def of_guest(spec: Spec) -> Spec:
    """The spec as its user has written it, with the mounts of ``inner``: for errors of the guest's plan."""
    return replace(spec, mounts=tuple(spec.mounts[i] for i in _inside(spec)))


def mounted_inside(spec: Spec) -> tuple[str, ...]:
    """What the guest mounts that the host does not see."""
    return (*GUESTS_OWN, *(mount.target for mount in spec.mounts if mount.type == "tmpfs"))


def _outside(spec: Spec) -> Iterator[int]:
    """The indexes of the mounts of the outer container: binds, and where the guest sees a read-only root, each tmpfs
    whose mount point the guest cannot make."""
    own = [*GUESTS_OWN]
    for i, mount in enumerate(spec.mounts):
        target = posixpath.normpath(mount.target)
        if mount.type != "tmpfs":
            yield i
        elif spec.read_only and spec.root_image is None:
            if not any(f"{target}/".startswith(f"{above}/") for above in own):
                yield i
            own.append(target)


def _inside(spec: Spec) -> Iterator[int]:
    """The indexes of the mounts that the guest makes: tmpfs, and of what virtio-fs has under the root's flags that with
    flags of its own. With an image that is not the root."""
    for i, mount in enumerate(spec.mounts):
        if mount.type == "tmpfs" or mount.readonly or mount.options or spec.read_only or spec.root_image is not None:
            yield i


def _mount_inside(spec: Spec, index: int) -> Mount:
    mount = spec.mounts[index]
    if mount.type == "tmpfs":
        return mount
    source = mount.target if spec.root_image is None else SHARE + _volume(index)
    return replace(mount, type="bind", source=source)


def _mount_outside(spec: Spec, index: int) -> Mount:
    mount = spec.mounts[index]
    return mount if spec.root_image is None else replace(mount, target=_volume(index))


def _volume(index: int) -> str:
    """Where a volume is in the monitor's root, whatever links ROOTFS has."""
    return f"/minicontainer-volume-{index}"
