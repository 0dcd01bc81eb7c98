"""Explains why a program could not be executed, from the child's description of the file (struct mc_program)."""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import ProgramError, quote
from minicontainer.linux import elf
from minicontainer.linux.files import LEASED


def explain(program: str, number: int, path: str | None, mode: int, head: bytes) -> ProgramError:
    """The error of an execve that failed with errno ``number``. ``path``: the file that the child found, or None.
    ``mode`` and ``head``: its mode and first bytes."""
    if number == errno.E2BIG:
        return ProgramError(number, program, "argument list too long", "the kernel's limit of one argument is 128 KiB")
    if path is None:
        return ProgramError(errno.ENOENT, program, "not found in the container", _where(program))
    if stat.S_ISDIR(mode):
        return ProgramError(errno.EACCES, path, "is a directory")
    if not stat.S_ISREG(mode):
        return ProgramError(errno.EACCES, path, "is not a regular file")
    if number == errno.EBUSY:
        return leased(path)
    if number == errno.EACCES:
        if not mode & 0o111:
            return ProgramError(number, path, "is not executable", "chmod +x")
        return ProgramError(number, path, "permission denied", "its mode, its interpreter's, or a noexec mount")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return _missing_interpreter(path, head)
    if number == errno.ENOEXEC:
        return _bad_format(path, head)
    return ProgramError(number, path, os.strerror(number).lower())


def leased(program: str) -> ProgramError:
    """The error where a process holds a lease on the program or its interpreter (fcntl(2), F_SETLEASE): the exec would
    wait for the end of the lease."""
    return ProgramError(errno.EBUSY, program, LEASED, "or of its interpreter; once more, when that is given up")


def _where(program: str) -> str:
    return "" if "/" in program else "in no directory of its PATH"


def _missing_interpreter(path: str, head: bytes) -> ProgramError:
    if head.startswith(b"#!"):
        name = os.fsdecode(head[2:].split(b"\n")[0].strip(b" \t").replace(b"\t", b" ").split(b" ")[0])
        hint = "the script has the line ends of Windows" if name.endswith("\r") else ""
        return ProgramError(errno.ENOENT, path, f"its interpreter {quote(name)} is missing in the container", hint)
    loader = elf.interpreter(head)
    if loader:
        return ProgramError(
            errno.ENOENT, path, f"its loader {quote(loader)} is missing in the container", "a static program needs none"
        )
    return ProgramError(errno.ENOENT, path, "its interpreter is missing in the container")


def _bad_format(path: str, head: bytes) -> ProgramError:
    if not head:
        return ProgramError(errno.ENOEXEC, path, "is empty")
    if head.startswith(b"\x7fELF"):
        built, host = elf.machine(head), os.uname().machine
        if built != host:
            return ProgramError(errno.ENOEXEC, path, f"built for {built}, host is {host}")
        return ProgramError(errno.ENOEXEC, path, "is a damaged ELF file")
    return ProgramError(errno.ENOEXEC, path, "is no program", "a script needs #! in its first line")
