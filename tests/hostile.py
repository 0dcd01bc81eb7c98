"""Hostile root file systems, and a watch over the host files that they attack. Also a program for other users:

    python tests/hostile.py DIRECTORY USERNS

starts a container in each of them, and prints what came of it; it fails where anything happened outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tars import snapshot

PLACES = (
    "dev dev/pts dev/null dev/console dev/shm dev/mqueue dev/fd proc proc/self proc/sys sys sys/fs etc etc/passwd"
    " run tmp work volume file a"
).split()
LINKS = ("absolute", "mirrored", "sibling", "upward", "loop", "magic")
KINDS = (*LINKS, "file", "fifo", "socket", "missing", "closed")

IN_ALL_EVENTS, IN_Q_OVERFLOW, IN_ISDIR = 0xFFF, 0x4000, 0x40000000  # inotify(7)
EVENT = struct.Struct("=iIII")


class Watch:
    """Records every open, access and change below a directory, by any process. inotify(7) does not report lookups and
    O_PATH opens; files that are created or changed that way show in the snapshot."""

    def __init__(self, top: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._top, self._before = top, snapshot(top)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._names = {}
        for directory, _, _ in os.walk(top):
            number = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), IN_ALL_EVENTS)
            assert number > 0, os.strerror(ctypes.get_errno())
            self._names[number] = directory
        self.events()  # os.walk's own

    def events(self) -> list[str]:
        """The events since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                while data:
                    number, mask, _, length = EVENT.unpack_from(data)
                    name = data[EVENT.size : EVENT.size + length].rstrip(b"\0").decode()
                    found.append(f"{self._names.get(number, 'overflow')}/{name}: {mask:#x}")
                    data = data[EVENT.size + length :]
        return found

    def happened(self) -> list[str]:
        """The events, and the changes of the directory."""
        found, now = self.events(), snapshot(self._top)
        self.events()  # of the snapshot
        return found + [f"{k}: changed" for k in sorted({*self._before, *now}) if self._before.get(k) != now.get(k)]

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def watched(top: Path) -> Iterator[Watch]:
    """Fail if anything below the directory is accessed during the block."""
    watch = Watch(top)
    try:
        yield watch
        assert not (happened := watch.happened()), happened
    finally:
        watch.close()


SWAP = """if True:
    import ctypes, itertools, os, sys
    call, pairs = ctypes.CDLL(None, use_errno=True).renameat2, [os.fsencode(path) for path in sys.argv[1:]]
    print("ready", flush=True)
    for path in itertools.cycle(pairs):
        if call(-100, path, -100, path + b"-link", 2):  # AT_FDCWD, RENAME_EXCHANGE
            sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
"""


@contextlib.contextmanager
def swapping(*paths: Path) -> Iterator[None]:
    """Exchange each directory with ``NAME-link`` beside it, continuously."""
    with subprocess.Popen([sys.executable, "-c", SWAP, *paths], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def make_outside(path: Path) -> Path:
    """The target of hostile links: a directory that resembles those to which a runtime writes."""
    for name in ("pts", "shm", "mqueue", "self", "sys", "fs/cgroup", "volume", "a", "b"):
        (path / name).mkdir(parents=True)
    for name in (
        "null",
        "console",
        "ptmx",
        "passwd",
        "group",
        "hosts",
        "resolv.conf",
        "kcore",
        "file",
        "sysrq-trigger",
    ):
        (path / name).write_text("outside")
    return path


@contextlib.contextmanager
def variant(parent: Path, place: str, kind: str, outside: Path) -> Iterator[Path]:
    """A busybox root file system with a hostile entry at ``place``."""
    root, busybox = parent / "root", parent / "busybox"
    (root / "bin").mkdir(parents=True)
    if not busybox.exists():
        shutil.copy(str(shutil.which("busybox")), busybox)
    (root / "bin/busybox").hardlink_to(busybox)
    (root / "bin/sh").symlink_to("busybox")
    if place:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        make(root / place, kind, outside, root)
    try:
        yield root
    finally:
        if kind == "closed":
            (root / place).chmod(0o700)  # so that an ordinary user can remove it
        shutil.rmtree(root)


def make(path: Path, kind: str, outside: Path, root: Path) -> None:
    """Create one hostile entry."""
    up = "../" * len(path.relative_to(root).parts)
    targets = {
        "absolute": str(outside),
        "mirrored": str(outside),
        "sibling": f"{up}{outside.name}",
        "upward": f"{'../' * 40}{outside}",
        "loop": path.name,
        "magic": f"/proc/self/root{outside}",
    }
    if kind == "mirrored":
        inside = root / str(outside)[1:]
        if not inside.is_relative_to(path):
            inside.mkdir(parents=True, exist_ok=True)
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "file":
        path.write_text("root:x:0:0::/:/bin/sh\n")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o666)
    elif kind == "closed":
        path.mkdir()
        path.chmod(0)


# Options of the container for each place: only those that use the place, so that there is one reason for a failure.
WISHES: dict[str, dict[str, Any]] = {
    "work": {"cwd": "/work"},
    "volume": {"mounts": (("/volume", "directory"),)},
    "file": {"mounts": (("/file", "file"),)},
    "a": {"mounts": (("/a/b", "directory"), ("/a/c/d", "file"))},
    "etc": {"user": "root"},
    "etc/passwd": {"user": "root"},
    "dev/console": {"tty": True},
    "dev/pts": {"tty": True},
}


class Outcome(NamedTuple):
    """The result of one container: its output, or the one-line error."""

    place: str
    kind: str
    said: str


def outcome(root: Path, given: Path, place: str, kind: str, **more: Any) -> Outcome:
    """Starts a container there. ``given`` holds what is mounted: ``directory`` and ``file``."""
    import minicontainer as mc

    wish = dict(WISHES.get(place, {}))
    mounts = tuple(mc.Mount(target, str(given / name)) for target, name in wish.pop("mounts", ()))
    shown = "cat /proc/self/mountinfo >/dev/null; cd /; echo works"
    try:
        streams: dict[str, Any] = {} if wish.get("tty") else {"capture_output": True}
        done = mc.run(["/bin/sh", "-c", shown], rootfs=str(root), mounts=mounts, timeout=120, **streams, **wish, **more)
    except mc.Error as e:
        return Outcome(place, kind, str(e))
    said = "works" if wish.get("tty") else (done.stdout + done.stderr).decode().strip()
    return Outcome(place, kind, said if done.returncode == 0 else f"status {done.returncode}: {said}")


def every(parent: Path, kinds: tuple[str, ...] = KINDS, **more: Any) -> Iterator[Outcome]:
    """Run a container in each hostile root file system; no file outside may be accessed."""
    outside = make_outside(parent / "outside")
    given = parent / "given"
    (given / "directory").mkdir(parents=True)
    (given / "file").touch()
    with watched(outside) as watch:
        for place, kind in itertools.product(PLACES, kinds):
            with variant(parent, place, kind, outside) as root:
                yield outcome(root, given, place, kind, **more)
            assert not (happened := watch.happened()), (place, kind, happened)


if __name__ == "__main__":
    for line in every(Path(sys.argv[1]), userns=sys.argv[2]):
        print(*line, sep="\t")
