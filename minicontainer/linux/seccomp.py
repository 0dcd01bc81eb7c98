"""seccomp(2) filters in classic BPF: a small assembler of deny lists, and loading. ``linux.libseccomp`` compiles
filters for many calls and several architectures."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from minicontainer.errors import StepError
from minicontainer.linux.arguments import flags as number
from minicontainer.linux.bpf import ARCH, INSTRUCTION, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, NR, RETURN, pack
from minicontainer.native import ffi, lib, syscall
from minicontainer.plan.step import Struct, const

MAX_ERRNO = 4095


def deny(names: Iterable[str], error: int = errno.EPERM) -> bytes:
    """A program (struct sock_filter[]) that returns ``error`` for the named calls and allows the others.

    A call of another architecture (i386, x32) kills the process, since its numbers mean other calls. ValueError for a
    name that csrc/plan/constants.h does not list as SYS_*."""
    if not 0 < error <= MAX_ERRNO:
        raise ValueError(f"{error} is no errno (1 to {MAX_ERRNO})")
    kill = (RETURN, 0, 0, lib.SECCOMP_RET_KILL_PROCESS)
    program = [(LOAD, 0, 0, ARCH), (JUMP_EQUAL, 1, 0, lib.AUDIT_ARCH_NATIVE), kill, (LOAD, 0, 0, NR)]
    if lib.X32_SYSCALL_BIT:
        program += [(JUMP_AT_LEAST, 0, 1, lib.X32_SYSCALL_BIT), kill]
    for call in map(_number, names):
        if call >= 0:  # negative: not on this architecture
            program += [(JUMP_EQUAL, 0, 1, call), (RETURN, 0, 0, lib.SECCOMP_RET_ERRNO | error)]
    program.append((RETURN, 0, 0, lib.SECCOMP_RET_ALLOW))
    return pack(program)


def _number(name: str) -> int:
    value = getattr(lib, f"SYS_{name}", None)
    if not isinstance(value, int):
        raise ValueError(f"{name!r} is an unknown system call (csrc/plan/constants.h lists them)")
    return value


def load(program: bytes, flags: int | str = 0) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER) of the calling thread, which cannot be undone; needs no_new_privs or
    CAP_SYS_ADMIN.

    ``flags`` of SECCOMP_FILTER_FLAG_* that return no descriptor."""
    count, rest = divmod(len(program), INSTRUCTION.size)
    if rest or not 0 < count <= 0xFFFF:
        raise ValueError(f"{len(program)} bytes are no filter: {INSTRUCTION.size} an instruction, 65535 at most")
    buffer = ffi.from_buffer(program)
    header = struct.pack("=H6xQ", count, int(ffi.cast("uintptr_t", buffer)))
    operation, options = const("SECCOMP_SET_MODE_FILTER"), number(flags)
    what = (operation, options, Struct(b"", f"<{count} instructions>"))
    stuck = syscall("seccomp", lib.SYS_seccomp, operation, options, header, what=what)
    if stuck:  # SECCOMP_FILTER_FLAG_TSYNC: a thread that could not be synchronized
        raise StepError(errno.ESRCH, f"seccomp({operation.text})", hint=f"thread {stuck} has a filter of its own")


def action_avail(action: int | str) -> bool:
    """seccomp(SECCOMP_GET_ACTION_AVAIL): whether this kernel has an action, such as ``"SECCOMP_RET_LOG"``."""
    operation, wanted = const("SECCOMP_GET_ACTION_AVAIL"), number(action)
    try:
        syscall("seccomp", lib.SYS_seccomp, operation, 0, struct.pack("=I", wanted), what=(operation, wanted))
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True
