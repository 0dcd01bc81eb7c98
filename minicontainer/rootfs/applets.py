"""A small root file system: the host's static busybox, a link for each of its applets, and a few files in /etc."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

from minicontainer.errors import Error, SpecError, UnsupportedError, sentence
from minicontainer.linux import elf
from minicontainer.rootfs.removal import open_inside
from minicontainer.rootfs.staging import MODE, filled, made, open_existing

PACKAGE = "install the package busybox-static"
BINARIES = ("bin", "sbin", "usr/bin", "usr/sbin")
DIRECTORIES = {  # name -> mode; the parents first
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/user": 0o755,
    "mnt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sbin": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
USER = 1000
MARK = "etc/os-release"  # os-release(5); it identifies a directory that this module made
FILES = {
    MARK: 'NAME="minicontainer busybox"\nID=minicontainer-busybox\n',
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        f"user:x:{USER}:{USER}:user:/home/user:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    "etc/group": f"root:x:0:\ndaemon:x:1:\ntty:x:5:\nuser:x:{USER}:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/hostname": "",  # this and the next are mount points
    "etc/resolv.conf": "",
    "etc/profile": (
        "export PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}\n"
        "export PS1='\\u@\\h:\\w\\$ '\n"
    ),
}


def busybox(path: str | os.PathLike[str]) -> None:
    """Create a root file system with the host's static busybox in the directory ``path``.

    A directory that this function made is left unchanged; any other that is not empty is refused (SpecError). The
    directory is created completely or not at all. UnsupportedError: no busybox in PATH, or one that is not static."""
    target = os.fspath(path)
    existing = open_existing(target)
    if existing is None:
        program, applets = static_busybox()
        with made(target) as root:
            _populate(root, program, applets)
        return
    try:
        if not os.listdir(existing):
            program, applets = static_busybox()
            with filled(existing) as root:
                _populate(root, program, applets)
        elif not _is_ours(existing):
            raise SpecError("DIR", target, "is not empty", "name a new or an empty directory")
    finally:
        os.close(existing)


def static_busybox() -> tuple[str, list[str]]:
    """The path of the busybox in PATH, and the paths of its applets (``usr/bin/env``)."""
    import shutil

    program = shutil.which("busybox")
    if program is None:
        raise UnsupportedError("busybox", None, "is not in PATH", PACKAGE)
    with open(program, "rb") as file:
        head = file.read(1 << 16)
    if loader := elf.interpreter(head):
        raise UnsupportedError("busybox", program, f"is not static, it needs {loader}", PACKAGE)
    return program, _applets(program)


def _applets(program: str) -> list[str]:
    import subprocess

    try:
        listed = subprocess.run([program, "--list-full"], capture_output=True, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise Error(sentence("busybox", program, f"does not run: {e}", PACKAGE)) from None
    places = [os.path.split(line) for line in os.fsdecode(listed.stdout).splitlines()]
    return [f"{d}/{name}" for d, name in places if d in BINARIES and (d, name) != ("bin", "busybox")]


def _is_ours(root: int) -> bool:
    try:
        fd = open_inside(root, MARK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with open(fd, "rb") as file:
        return file.read(1024) == FILES[MARK].encode()


def _populate(root: int, program: str, applets: list[str]) -> None:
    for name, mode in DIRECTORIES.items():
        os.mkdir(name, 0o700, dir_fd=root)
        os.chmod(name, mode, dir_fd=root)
    _copy(root, program)
    for applet in applets:
        up = "../" * applet.count("/")
        os.symlink("busybox" if applet.startswith("bin/") else f"{up}bin/busybox", applet, dir_fd=root)
    for name, text in FILES.items():
        with _create(root, name, 0o644) as file:
            file.write(text.encode())
    _give_home(root)
    os.fchmod(root, MODE)


def _give_home(root: int) -> None:
    """Give the ordinary user its home directory, if the caller is root and the id is mapped."""
    if os.geteuid() == 0:
        try:
            os.chown("home/user", USER, USER, dir_fd=root)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise


def _copy(root: int, program: str) -> None:
    import shutil

    with open(program, "rb") as source, _create(root, "bin/busybox", 0o755) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _create(root: int, name: str, mode: int) -> BinaryIO:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root)
    os.fchmod(fd, mode)
    return open(fd, "wb")
