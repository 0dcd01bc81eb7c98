"""The last steps of the plans of a start and of ``exec``: confine the program, and execute it. Pure.

The seccomp filter is loaded last, so that it does not have to permit the system calls of these steps.
"""

from __future__ import annotations

import errno
import posixpath

from minicontainer import plan as p
from minicontainer.container.host import NOT_PERMITTED
from minicontainer.spec import CAPABILITIES, DEFAULT_ULIMITS, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from minicontainer.container.host import Host
    from minicontainer.plan import Builder
    from minicontainer.spec import Spec

PROGRAM_FD, INIT_FD, FILTER_FD = 3, 4, 5
LAST_FD = FILTER_FD
ADMIN = 1 << CAPABILITIES.index("SYS_ADMIN")
SETTING_IDS = sum(1 << CAPABILITIES.index(name) for name in ("SETUID", "SETGID", "SETPCAP"))


def confine(b: Builder, spec: Spec, host: Host, *, staged: bool = False) -> None:
    """Confines the program, except for the seccomp filter; with ``staged``, csrc/helpers/init.c loads the filter."""
    b.phase = "confine"
    in_spec = {limit.name for limit in spec.ulimits}
    b.add(p.prlimit64_all([None if name in in_spec else pair for name, pair in DEFAULT_ULIMITS.items()]))
    if host.userns != "range":
        b.add(p.call("setpriority", 0, 0, 0, tolerate=NOT_PERMITTED))
    b.add(p.call("personality", p.const("PER_LINUX")))
    if host.userns != "range":
        b.add(*(p.prlimit64_raise(RLIMITS[limit.name], limit.hard) for limit in spec.ulimits))
    b.add(p.call("keyctl", p.const("KEYCTL_JOIN_SESSION_KEYRING"), None, tolerate=(errno.ENOSYS,)))
    _drop_rights(b, spec, host, staged=staged)


def _bars_new_privileges(spec: Spec) -> bool:
    return spec.no_new_privileges and not spec.privileged


def _drop_rights(b: Builder, spec: Spec, host: Host, *, staged: bool) -> None:
    """Sets the program's user, groups and capabilities.

    seccomp(2) needs no_new_privs or CAP_SYS_ADMIN. The filter is loaded last, so without no_new_privs the child retains
    CAP_SYS_ADMIN until then. The exec drops it, since it is not in the bounding set (capabilities(7)). With
    csrc/helpers/init.c in between, init inherits it as an ambient capability, and drops it before the program."""
    mask, identity = spec.capabilities(host.permitted), host.identity
    granted = mask if identity.uid == 0 else 0
    retained = 0 if not (host.seccomp or host.suid) or _bars_new_privileges(spec) else ADMIN & ~granted
    inherited = retained if staged and host.seccomp else 0
    if inherited:
        b.add(p.capset(mask | retained | SETTING_IDS, mask | retained | SETTING_IDS, inherited))
    b.add(p.capbset_drop_all_but(mask))
    if host.groups:  # else setgroups(2) is refused
        b.add(p.setgroups(identity.groups))
    if retained and identity.uid:
        b.add(p.prctl("PR_SET_KEEPCAPS", 1))
    b.add(p.setresgid(identity.gid), p.setresuid(identity.uid))
    b.add(p.capset(granted | retained, granted | retained, inherited))
    if inherited:
        b.add(p.prctl("PR_CAP_AMBIENT", p.const("PR_CAP_AMBIENT_RAISE"), CAPABILITIES.index("SYS_ADMIN")))
    b.add(p.call("umask", p.Octal(spec.umask)))
    if _bars_new_privileges(spec):
        b.add(p.prctl("PR_SET_NO_NEW_PRIVS", 1))


def is_staged(spec: Spec, host: Host) -> bool:
    """Whether the child executes csrc/helpers/init.c, which then executes the program."""
    return spec.init or (host.exe_reachable and not spec.executable)


def execute(b: Builder, spec: Spec, host: Host, env: Mapping[str, str]) -> None:
    """Sets the working directory and executes the program, or init. All other descriptors are closed before chdir, so
    that no /proc/self/fd path of ``cwd`` leads outside (CVE-2024-21626)."""
    b.phase = "execute"
    staged = is_staged(spec, host)
    last = 2
    if staged:
        init, report = b.input("init"), b.input("report")
        b.add(p.dup3(report, INIT_FD - 1), p.call("dup3", init, INIT_FD, p.const("O_CLOEXEC")))
        last = INIT_FD
        if host.seccomp:
            b.add(p.dup3(b.input("filter"), FILTER_FD))
            last = FILTER_FD
    elif spec.executable:
        b.add(p.call("dup3", b.input("executable"), PROGRAM_FD, p.const("O_CLOEXEC")))
        last = PROGRAM_FD
    b.add(p.close_range(last + 1), p.chdir(spec.cwd))
    if spec.die_with_parent:
        b.add(p.prctl("PR_SET_PDEATHSIG", 9))
    b.add(p.reset_signals())
    if staged:
        b.add(*without_suid(host), exec_step(*exec_arguments(spec, host, env)))
    else:
        b.add(*execute_program(spec, host, env))


def exec_arguments(spec: Spec, host: Host, env: Mapping[str, str]) -> tuple[Any, Sequence[str], list[str]]:
    """What the last step of a start executes: a descriptor or paths, argv, envp. With csrc/helpers/init.c in between,
    that is init, which loads the filter and executes the program."""
    if not is_staged(spec, host):
        return _program_arguments(spec, env)
    paths = program_paths(spec.args[0], env["PATH"])
    argv = [*stage_arguments(spec, host), str(len(paths)), *paths, *spec.args]
    return INIT_FD, argv, [f"{k}={v}" for k, v in env.items()]


def _program_arguments(spec: Spec, env: Mapping[str, str]) -> tuple[Any, Sequence[str], list[str]]:
    target = PROGRAM_FD if spec.executable else program_paths(spec.args[0], env["PATH"])
    return target, spec.args, [f"{k}={v}" for k, v in env.items()]


def exec_step(target: Any, argv: Sequence[str], envp: Sequence[str]) -> p.Step:
    """The exec of a descriptor, or of the first path that exists."""
    return p.execveat(target, argv, envp) if isinstance(target, int) else p.execve(target, argv, envp)


def stage_arguments(spec: Spec, host: Host) -> list[str]:
    """The first arguments of csrc/helpers/init.c; the number of paths, the paths and the program's arguments follow."""
    from minicontainer.linux.bpf import INSTRUCTION

    name = "minicontainer-init" if spec.init else "minicontainer-exec"
    return [name, limits_argument(spec), str(len(host.seccomp) // INSTRUCTION.size)]


def limits_argument(spec: Spec) -> str:
    """The resource limits as an argument of csrc/helpers/execute.c: a letter for each, then soft and hard limit in
    hexadecimal."""
    limits = [(RLIMITS[limit.name], limit.soft % 2**64, limit.hard % 2**64) for limit in spec.ulimits]
    return "".join(f"{chr(ord('a') + number)}{soft:016x}{hard:016x}" for number, soft, hard in limits)


def execute_program(spec: Spec, host: Host, env: Mapping[str, str]) -> list[p.Step]:
    """The last steps: ``spec.ulimits``, the seccomp filters, and the exec of the program."""
    limits = [p.prlimit64(RLIMITS[limit.name], limit.soft, limit.hard) for limit in spec.ulimits]
    load = [p.seccomp(host.seccomp, strict=spec.seccomp is not None and _is_strict(host))] if host.seccomp else []
    return [*limits, *without_suid(host), *load, exec_step(*_program_arguments(spec, env))]


def _is_strict(host: Host) -> bool:
    """Whether the spec's own filter is strict; the default profile is not (tests/unit/test_seccomp_profile.py)."""
    from minicontainer.container.seccomp import is_strict

    return is_strict(host.seccomp)


def without_suid(host: Host) -> list[p.Step]:
    """Loads the filter of ``no_new_suid``, which refuses no system call of the steps after it."""
    return [p.seccomp(host.suid)] if host.suid else []


def program_paths(program: str, path: str) -> list[str]:
    """The paths that execvp(3) would try."""
    if "/" in program or not program:
        return [program]
    return [posixpath.join(directory or ".", program) for directory in path.split(":")]
