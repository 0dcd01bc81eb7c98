"""The seccomp filter of a container: from the default profile (``default.json``), from another profile in JSON, or a
file of compiled BPF.

Compiling a profile takes milliseconds, so each filter is compiled once: cached in this process, and in files by
``filecache``. The compiler (``reader``, ``profile``, libseccomp) is imported only when it is needed.
"""

from __future__ import annotations

import os

from minicontainer import runtime
from minicontainer.errors import SpecError
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import lru_cache

    from minicontainer.spec import Spec
else:
    from minicontainer.light import lru_cache

# The calls of csrc/helpers/init.c while the program runs.
CALLS_OF_INIT = ("wait4", "rt_sigtimedwait", "kill", "exit_group")
# The calls of csrc/plan/exec.c after a failed exec.
CALLS_OF_FAILURE = ("clock_gettime", "statx", "openat", "pread64", "read", "close")
# The calls of csrc/helpers/ready.c and execute.c until the exec, that of a failure included.
CALLS_OF_READY = (
    *CALLS_OF_FAILURE, "capget", "chdir", "execve", "execveat", "exit_group", "fcntl", "getcwd", "mmap", "prctl",
    "prlimit64", "recvmsg", "sendto", "write",
)  # fmt: skip
DEFAULT = os.path.join(os.path.dirname(__file__), "default.json")
PROFILE_MAX = 2**20


def program(spec: Spec, permitted: int = -1) -> bytes:
    """The filter of ``spec`` (struct sock_filter[]), b"" for none. ``permitted``: see Spec.capabilities.

    SpecError for a file that is no filter; UnsupportedError where it has to be compiled and libseccomp is missing."""
    if spec.seccomp == "unconfined" or (spec.seccomp is None and spec.privileged):
        return b""
    if spec.seccomp is None:
        return _default(spec.capabilities(permitted))
    from minicontainer.linux.bpf import INSTRUCTION, INSTRUCTIONS_MAX, PROGRAM_MAX

    data = _read(spec.seccomp)
    if data.lstrip()[:1] == b"{":  # JSON: a filter that starts with this instruction is refused by seccomp(2)
        data = _compiled(data, spec.seccomp, spec.capabilities(permitted))
    if not data or len(data) % INSTRUCTION.size or len(data) > PROGRAM_MAX:
        reason = f"is no JSON profile, and no classic BPF program (1 to {INSTRUCTIONS_MAX} instructions of 8 bytes)"
        raise SpecError("seccomp", spec.seccomp, reason)
    _check_required_calls(spec, data)
    return data


def _read(path: str) -> bytes:
    """Reads a file of the caller's, which may be a pipe; or the copy of one in the state directory."""
    if not path.startswith(f"{runtime.directory()}/"):
        from minicontainer.linux.files import read_whole

        return read_whole("seccomp", path, PROFILE_MAX)
    try:
        return runtime.read_bytes(path)
    except ValueError as e:
        raise SpecError("seccomp", path, str(e)) from None


def is_strict(program: bytes) -> bool:
    """Whether the filter may forbid the calls that explain a failed exec: then the child inspects the program before it
    loads the filter."""
    return not _permits(program, CALLS_OF_FAILURE)


def permits_waiting(program: bytes) -> bool:
    """Whether csrc/helpers/ready.c can work under the filter; else it loads the filter itself, as its last step."""
    return _permits(program, CALLS_OF_READY)


def _permits(program: bytes, calls: tuple[str, ...]) -> bool:
    return all(_answer(program, name) == lib.SECCOMP_RET_ALLOW for name in calls)


def _check_required_calls(spec: Spec, data: bytes) -> None:
    """SpecError where the filter forbids the exec of the program, or a call of process 1 of ``--init``. An answer that
    depends on arguments is not checked."""
    reasons = {"execveat" if spec.executable else "execve": "without it no program can be started"}
    reasons |= dict.fromkeys(CALLS_OF_INIT if spec.init else (), "process 1 of --init needs it")
    for name, reason in reasons.items():
        if _answer(data, name) not in (None, lib.SECCOMP_RET_ALLOW, lib.SECCOMP_RET_LOG):
            raise SpecError("seccomp", spec.seccomp, f"forbids {name}: {reason}", f"allow {name}")


def _answer(data: bytes, name: str) -> int | None:
    from minicontainer.linux import bpf

    return bpf.constant_answer(data, getattr(lib, f"SYS_{name}"), lib.AUDIT_ARCH_NATIVE)


@lru_cache(maxsize=None)
def _default(capabilities: int) -> bytes:
    """The filter of the default profile, whose file is read once."""
    with open(DEFAULT, "rb", buffering=0) as f:
        return _compiled(f.readall(), None, capabilities)


@lru_cache(maxsize=64)
def _compiled(data: bytes, source: str | None, capabilities: int) -> bytes:
    def make() -> bytes:
        from minicontainer.container.seccomp import profile, reader

        return profile.program(reader.read(data, source), capabilities, os.uname().release)

    return _cached(b"%x\n%s" % (capabilities, data), make, "profile", "reader")


@lru_cache(maxsize=None)
def without_suid() -> bytes:
    """The filter of ``no_new_suid``; UnsupportedError where it has to be compiled and libseccomp is missing."""

    def make() -> bytes:
        from minicontainer.container.seccomp import profile, suid

        return suid.program(tuple(name.lower() for name in profile.NATIVE.others))

    return _cached(b"no-new-suid", make, "suid")


def _cached(name: bytes, make: Callable[[], bytes], *modules: str) -> bytes:
    """The filter from the cache; or ``make()``, which is then cached until libseccomp or one of ``modules`` changes."""
    from minicontainer.container import filecache

    key = b"%x %s %s" % (lib.AUDIT_ARCH_NATIVE, os.fsencode(os.uname().release), name)
    program = filecache.load("seccomp", name, key)
    if program is None:
        from minicontainer.linux import bpf, libseccomp

        program = make()
        sources = [os.path.join(os.path.dirname(__file__), f"{module}.py") for module in modules]
        filecache.store(
            "seccomp", name, key, program, (libseccomp.path(), str(libseccomp.__file__), str(bpf.__file__), *sources)
        )
    return program
