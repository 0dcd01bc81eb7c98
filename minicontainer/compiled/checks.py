"""What must still be true of the host's paths when a compiled container runs: ``struct mc_check``."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from minicontainer.compiled.payload import Payload, checksum, padded
from minicontainer.container.filesystem import etc
from minicontainer.container.filesystem.view import MISSING, View
from minicontainer.container.host import MASKED, READ_ONLY, Host
from minicontainer.native import lib, syscall
from minicontainer.spec import Limits, Spec
from minicontainer.spec.limits import RATES

STATX = struct.Struct("=I76xqI164x")  # struct statx: mask, time of birth
NONE = 2**64 - 1  # instead of the size of a file that does not exist
NULL = os.makedev(1, 3)


class Check(NamedTuple):
    """struct mc_check."""

    kind: int
    what: int
    path: int
    reserved: int = 0
    device: int = 0
    inode: int = 0
    time: int = 0
    size: int = 0
    hash: int = 0


class Checks:
    """The checks of one spec."""

    def __init__(self, payload: Payload, spec: Spec, host: Host) -> None:
        self._payload, self._spec, self._host = payload, spec, host

    def all(self) -> list[Check]:
        """Every check, the most telling first."""
        spec, host = self._spec, self._host
        checks = [self._root("rootfs", spec.rootfs)]
        for mount, is_file in zip(spec.mounts, host.files, strict=True):
            if mount.type == "bind":
                kind = lib.MC_CHECK_FILE if is_file else lib.MC_CHECK_DIRECTORY
                checks.append(self._check(kind, "volume", mount.source or ""))
        for device, (major, minor, mode) in zip(spec.devices, host.device_nodes, strict=True):
            checks.append(self._device("device", device.source, os.makedev(major, minor), mode))
        checks += self._rates(spec.limits)
        if host.userns in ("host", "join"):
            checks.append(self._root("root directory", "/"))
        checks += [self._content(what, path) for what, path in self._files()]
        if not spec.privileged:
            checks.append(self._device("device", "/dev/null", NULL, stat.S_IFCHR))
            there = {*(path for path, _ in host.masked), *host.read_only}
            for path in (*MASKED, *READ_ONLY):
                checks.append(self._check(lib.MC_CHECK_PRESENT if path in there else lib.MC_CHECK_ABSENT, "path", path))
        return checks

    def _check(self, kind: int, what: str, path: str, **numbers: int) -> Check:
        return Check(kind, self._payload.string(what), self._payload.string(path), **numbers)

    def _root(self, what: str, path: str) -> Check:
        info = os.stat(path)
        return self._check(
            lib.MC_CHECK_ROOT, what, path, device=_number(info.st_dev), inode=info.st_ino, time=birth(path)
        )

    def _device(self, what: str, path: str, number: int, mode: int) -> Check:
        return self._check(lib.MC_CHECK_DEVICE, what, path, device=_number(number), inode=stat.S_IFMT(mode))

    def _rates(self, limits: Limits) -> Iterator[Check]:
        for field in RATES:
            for rate in getattr(limits, field):
                info = os.stat(rate.path)
                yield self._device(field.replace("_", "-"), rate.path, info.st_rdev, info.st_mode)

    def _content(self, what: str, path: str) -> Check:
        """A file whose content the plan was made of."""
        try:
            with open(path, "rb") as file:
                data, info = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            return self._check(lib.MC_CHECK_CONTENT, what, path, size=NONE)
        known = {"device": _number(info.st_dev), "inode": info.st_ino, "size": len(data)}
        time = 0 if path.startswith("/proc/") else info.st_ctime_ns  # those of /proc change without a change of it
        return self._check(lib.MC_CHECK_CONTENT, what, path, time=time, hash=checksum(padded(data)), **known)

    def _files(self) -> Iterator[tuple[str, str]]:
        """(what, path) of each file of the host or the container whose content is in the plan."""
        spec, host = self._spec, self._host
        if host.userns == "range":
            yield from (("id ranges", path) for path in ("/etc/subuid", "/etc/subgid"))
        if host.nested:
            yield from (("user namespace", f"/proc/self/{name}") for name in ("uid_map", "gid_map", "setgroups"))
        if any(file.name == "resolv.conf" for file in host.etc):
            yield from (("name servers", path) for path in ("/etc/resolv.conf", etc.UPLINK))
        if any(file.name == "hosts" for file in host.etc) and spec.network == "host":
            yield "hosts", "/etc/hosts"
        if spec.user is not None or spec.group_add or host.userns == "keep-id":
            with View(spec) as view:
                yield from (("users", _path_of(view, spec, path)) for path in ("/etc/passwd", "/etc/group"))


def _path_of(view: View, spec: Spec, path: str) -> str:
    """The host's path of a file of the container; a missing one is expected where ROOTFS has none."""
    place = view.find(path)
    return spec.rootfs + path if place.fd == MISSING else os.readlink(f"/proc/self/fd/{place.fd}")


def birth(path: str) -> int:
    """When a file was made, in nanoseconds, by which it differs from a later one with its inode (statx(2)); 0 where
    the file system does not say."""
    buffer = bytearray(STATX.size)
    syscall("statx", lib.SYS_statx, lib.AT_FDCWD, os.fsencode(path) + b"\0", 0, lib.STATX_BTIME, buffer)
    mask, seconds, nanoseconds = STATX.unpack(buffer)
    return seconds * 10**9 + nanoseconds if mask & lib.STATX_BTIME else 0


def _number(device: int) -> int:
    return os.major(device) << 32 | os.minor(device)
