"""The filter of a container: of our own profile (``default.json``), of a profile in JSON, or one that was compiled.

Making one takes milliseconds, so each is made once: kept by this process, and by ``cache`` for the next. What makes it
(``reader``, ``profile``, libseccomp) is imported when it has to be made.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from minicontainer import runtime
from minicontainer.errors import SpecError
from minicontainer.linux import bpf
from minicontainer.linux.bpf import INSTRUCTION, INSTRUCTIONS_MAX, PROGRAM_MAX
from minicontainer.linux.files import read_whole
from minicontainer.native import lib
from minicontainer.spec import Spec

CALLS_OF_INIT = ("wait4", "rt_sigtimedwait", "kill", "exit_group")  # csrc/helpers/init.c, once the program runs
CALLS_OF_FAILURE = (
    "clock_gettime",
    "statx",
    "openat",
    "pread64",
    "read",
    "close",
)  # csrc/plan/exec.c, after an exec that failed
DEFAULT = os.path.join(os.path.dirname(__file__), "default.json")
PROFILE_MAX = 2**20


def program(spec: Spec, permitted: int = -1) -> bytes:
    """The filter of ``spec`` (struct sock_filter[]), b"" for none. ``permitted``: see Spec.capabilities.

    SpecError for a file that is none; UnsupportedError where one must be made and libseccomp is not here."""
    if spec.seccomp == "unconfined" or (spec.seccomp is None and spec.privileged):
        return b""
    if spec.seccomp is None:
        return _default(spec.capabilities(permitted))
    data = _read(spec.seccomp)
    if data.lstrip()[:1] == b"{":  # an instruction that begins so loads nothing that seccomp(2) permits
        data = _made(data, spec.seccomp, spec.capabilities(permitted))
    if not data or len(data) % INSTRUCTION.size or len(data) > PROGRAM_MAX:
        reason = f"is no JSON profile, and no classic BPF program (1 to {INSTRUCTIONS_MAX} instructions of 8 bytes)"
        raise SpecError("seccomp", spec.seccomp, reason)
    _check_needed(spec, data)
    return data


def _read(path: str) -> bytes:
    """A file of the caller's, which may be a pipe; or what was kept of one, where nothing else is waited for."""
    if not path.startswith(f"{runtime.directory()}/"):
        return read_whole("seccomp", path, PROFILE_MAX)
    try:
        return runtime.read_bytes(path)
    except ValueError as e:
        raise SpecError("seccomp", path, str(e)) from None


def is_strict(program: bytes) -> bool:
    """Whether it may forbid what explains an exec that failed: then that has to be looked at before it is loaded."""
    return any(_answer(program, name) != lib.SECCOMP_RET_ALLOW for name in CALLS_OF_FAILURE)


def _check_needed(spec: Spec, data: bytes) -> None:
    """The one call that a program cannot begin without, and those of process 1 of ``--init``: all that is ours under a
    filter. One that compares arguments of theirs is not guessed at."""
    by = {"execveat" if spec.executable else "execve": "without it no program can be started"}
    by |= dict.fromkeys(CALLS_OF_INIT if spec.init else (), "process 1 of --init needs it")
    for name, reason in by.items():
        if _answer(data, name) not in (None, lib.SECCOMP_RET_ALLOW, lib.SECCOMP_RET_LOG):
            raise SpecError("seccomp", spec.seccomp, f"forbids {name}: {reason}", f"allow {name}")


def _answer(data: bytes, name: str) -> int | None:
    return bpf.constant_answer(data, getattr(lib, f"SYS_{name}"), lib.AUDIT_ARCH_NATIVE)


@functools.cache
def _default(capabilities: int) -> bytes:
    """Our own profile: the file is looked at once."""
    with open(DEFAULT, "rb", buffering=0) as f:
        return _made(f.readall(), None, capabilities)


@functools.lru_cache(maxsize=64)
def _made(data: bytes, source: str | None, capabilities: int) -> bytes:
    def make() -> bytes:
        from minicontainer.container.seccomp import profile, reader

        return profile.program(reader.read(data, source), capabilities, os.uname().release)

    return _kept(b"%x\n%s" % (capabilities, data), make, "profile", "reader")


@functools.cache
def without_suid() -> bytes:
    """The filter of ``no_new_suid``; UnsupportedError where it must be made and libseccomp is not here."""

    def make() -> bytes:
        from minicontainer.container.seccomp import profile, suid

        return suid.program(tuple(name.lower() for name in profile.HERE.others))

    return _kept(b"no-new-suid", make, "suid")


def _kept(name: bytes, make: Callable[[], bytes], *modules: str) -> bytes:
    """What was made before, by these modules and the library, or is made now and kept."""
    from minicontainer.container.seccomp import cache

    key = b"%x %s %s" % (lib.AUDIT_ARCH_NATIVE, os.fsencode(os.uname().release), name)
    found = cache.load(name, key)
    if found is None:
        from minicontainer.linux import libseccomp

        found = make()
        sources = [os.path.join(os.path.dirname(__file__), f"{module}.py") for module in modules]
        cache.store(name, key, found, (libseccomp.path(), str(libseccomp.__file__), str(bpf.__file__), *sources))
    return found
