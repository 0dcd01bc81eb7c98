"""``gather(spec) -> Host``: all that the compiler needs to know, looked at and checked for one spec."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minicontainer.container import compiler, etc, host, ping, seccomp, seen, users
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.container.attached import Wire

CALLER = "/proc/self/exe"  # the executable of who clones


def gather(spec: Spec, maker: str = CALLER, wire: Wire | None = None) -> host.Host:
    """Gathers and checks what the compiler needs to know; raises SpecError where ROOTFS, a source ... is amiss.
    ``maker`` is the executable that the child is before it becomes the program."""
    host.check_rootfs(spec.rootfs)
    mode = host.userns_mode(spec)
    maps = None
    if mode in ("private", "keep-id"):
        from minicontainer.container import idmap

        maps = idmap.own_maps(mode)
    identity = users.identity(spec, mode)
    if maps is not None:
        users.check_mapped(spec, identity, maps)
    masked, read_only = host.kernel_paths()
    own = etc.files(spec, compiler.hostname(spec))
    permitted = host.permitted(spec, mode)
    return host.Host(
        userns=mode,
        uid=os.geteuid(),
        gid=os.getegid(),
        maps=maps,
        identity=identity,
        files=host.check_sources(spec) if spec.mounts else (),
        device_nodes=host.check_devices(spec) if spec.devices else (),
        masked=masked,
        read_only=read_only,
        cgroup2=host.has_cgroup2(),
        seccomp=seccomp.program(spec, permitted),
        window=host.window() if spec.tty else None,
        permitted=permitted,
        chrooted=host.chrooted(mode),
        shm=spec.ipc == "host" and os.path.isdir("/dev/shm"),
        lasting=host.is_lasting(spec, mode),
        timens=host.own_time(spec),
        exposed=host.exposed(spec, mode, maker),
        shown=mode == "range" or (mode == "join" and os.geteuid() == 0),
        kept=maker != CALLER,
        wire=wire,
        etc=own,
        ping=ping.groups(spec, mode, maps),
        layered=spec.read_only and not spec.ephemeral and seen.lacks(spec, [file.path for file in own]),
    )
