"""``gather(spec) -> Host``: reads and checks the host facts that the compiler needs for one spec."""

from __future__ import annotations

import os

from minicontainer.container import compiler, host, seccomp
from minicontainer.container.filesystem import etc
from minicontainer.container.network import ping
from minicontainer.linux.userns import is_first_user_namespace, is_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.network.veth import Endpoint
    from minicontainer.spec import Spec

TTY = 5  # the group id of terminals (tty), as in docker and Debian
CALLER = "/proc/self/exe"  # the executable of the calling process


def gather(spec: Spec, exe: str = CALLER, endpoint: Endpoint | None = None, *, waits: bool = False) -> host.Host:
    """The facts for ``spec``. Raises SpecError where ROOTFS, a bind source or a device is not usable.

    ``exe`` is the executable that the child runs until its exec: the caller's, or the monitor's. ``waits`` is as in
    Host."""
    host.check_rootfs(spec.rootfs)
    mode = host.userns_mode(spec)
    nested = not is_first_user_namespace()
    maps, identity = None, host.Identity()
    outer_maps: tuple[tuple[str, ...], ...] = ()
    if mode not in ("host", "range") or nested:
        from minicontainer.container.ids import mappings

        if mode in ("private", "keep-id"):
            maps = mappings.own_maps(mode)
            outer_maps = mappings.outer_maps(mode) if maps is None else ()
    if spec.user is not None or spec.group_add or mode == "keep-id" or maps is not None:
        from minicontainer.container.ids import users

        identity = users.identity(spec, mode)
        if maps is not None:
            users.check_mapped(spec, identity, maps)
    masked, read_only = host.kernel_paths()
    etc_files = etc.files(spec, compiler.hostname(spec))
    permitted = host.permitted(spec, mode)
    return host.Host(
        userns=mode,
        uid=os.geteuid(),
        gid=os.getegid(),
        maps=maps,
        outer_maps=outer_maps,
        identity=identity,
        files=host.check_sources(spec) if spec.mounts else (),
        device_nodes=host.check_devices(spec) if spec.devices else (),
        masked=masked,
        read_only=read_only,
        cgroup2=host.has_cgroup2(),
        seccomp=seccomp.program(spec, permitted),
        suid=seccomp.without_suid() if spec.bars_new_suid else b"",
        window=host.window() if spec.tty else None,
        permitted=permitted,
        chrooted=host.chrooted(mode),
        shm=spec.ipc == "host" and os.path.isdir("/dev/shm"),
        cacheable=host.is_cacheable(spec, mode),
        timens=host.has_time_namespace(spec),
        exe_reachable=host.exe_reachable(spec, mode, exe),
        idmapped=mode == "range" or (mode == "join" and is_root()),
        nested=nested,
        groups=maps is None and (not nested or mode == "join" or mappings.may_set_groups()),
        tty_group=maps is None and ((mode in ("host", "range") and not nested) or mappings.maps_group(spec, mode, TTY)),
        waits=waits,
        sends_upper=exe != CALLER,
        endpoint=endpoint,
        etc=etc_files,
        ping=ping.groups(spec, mode, maps),
        lacks_mount_points=_needs_overlay(spec, etc_files),
    )


def _needs_overlay(spec: Spec, etc_files: tuple[etc.EtcFile, ...]) -> bool:
    """Whether a mount point is missing in a ROOTFS that is to be read-only."""
    if not spec.read_only or spec.ephemeral:
        return False
    from minicontainer.container.filesystem import view

    return view.lacks_any(spec, [file.path for file in etc_files])
