"""``gather(spec) -> Host``: all that the compiler needs to know, looked at and checked for one spec."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minicontainer.container import compiler, host, seccomp
from minicontainer.container.filesystem import etc, view
from minicontainer.container.ids import mappings, users
from minicontainer.container.network import ping
from minicontainer.linux import namespaces
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.container.network.veth import Wire

TTY = 5  # the group of terminals: docker's, and Debian's
CALLER = "/proc/self/exe"  # the executable of who clones


def gather(spec: Spec, maker: str = CALLER, wire: Wire | None = None) -> host.Host:
    """Gathers and checks what the compiler needs to know; raises SpecError where ROOTFS, a source ... is amiss.
    ``maker`` is the executable that the child is before it becomes the program."""
    host.check_rootfs(spec.rootfs)
    mode = host.userns_mode(spec)
    nested = not namespaces.is_first_user_namespace()
    maps = mappings.own_maps(mode) if mode in ("private", "keep-id") else None
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
        suid=seccomp.without_suid() if spec.bars_new_suid else b"",
        window=host.window() if spec.tty else None,
        permitted=permitted,
        chrooted=host.chrooted(mode),
        shm=spec.ipc == "host" and os.path.isdir("/dev/shm"),
        lasting=host.is_lasting(spec, mode),
        timens=host.own_time(spec),
        exposed=host.exposed(spec, mode, maker),
        shown=mode == "range" or (mode == "join" and namespaces.is_root()),
        nested=nested,
        groups=maps is None and (not nested or mode == "join" or mappings.may_set_groups()),
        tty_group=maps is None and ((mode in ("host", "range") and not nested) or mappings.maps_group(spec, mode, TTY)),
        kept=maker != CALLER,
        wire=wire,
        etc=own,
        ping=ping.groups(spec, mode, maps),
        layered=spec.read_only and not spec.ephemeral and view.lacks(spec, [file.path for file in own]),
    )
