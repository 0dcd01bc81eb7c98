"""The end of every plan: what the program may do, and its exec; of a start and of ``exec``. Pure.

The filter of system calls is loaded last of all, so that it need not know of anything that is done here.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Mapping

from minicontainer import plan as p
from minicontainer.container.host import NOT_PERMITTED, Host
from minicontainer.container.seccomp import is_strict
from minicontainer.linux.bpf import INSTRUCTION
from minicontainer.plan import Builder
from minicontainer.spec import CAPABILITIES, DEFAULT_ULIMITS, RLIMITS, Spec

PROGRAM_FD, INIT_FD, FILTER_FD = 3, 4, 5
LAST_FD = FILTER_FD
ADMIN = 1 << CAPABILITIES.index("SYS_ADMIN")
SETTING_IDS = sum(1 << CAPABILITIES.index(name) for name in ("SETUID", "SETGID", "SETPCAP"))


def confine(b: Builder, spec: Spec, host: Host, *, staged: bool = False) -> None:
    """What the program may do, but for the filter of system calls; with ``staged``, init.c loads that."""
    b.phase = "confine"
    given = {limit.name for limit in spec.ulimits}
    b.add(p.prlimit64_all([None if name in given else pair for name, pair in DEFAULT_ULIMITS.items()]))
    if host.userns != "range":
        b.add(p.call("setpriority", 0, 0, 0, tolerate=NOT_PERMITTED))
    b.add(p.call("personality", p.const("PER_LINUX")))
    if host.userns != "range":
        b.add(*(p.prlimit64_raise(RLIMITS[limit.name], limit.hard) for limit in spec.ulimits))
    b.add(p.call("keyctl", p.const("KEYCTL_JOIN_SESSION_KEYRING"), None, tolerate=(errno.ENOSYS,)))
    _give_up_rights(b, spec, host, staged=staged)


def _bars_new_privileges(spec: Spec) -> bool:
    return spec.no_new_privileges and not spec.privileged


def _give_up_rights(b: Builder, spec: Spec, host: Host, *, staged: bool) -> None:
    """The program's user, groups and capabilities.

    seccomp(2) takes no_new_privs or CAP_SYS_ADMIN. The filter comes last, so where new privileges are not barred that
    capability is kept until then; exec takes it away, for it is not in the bounding set (capabilities(7)). Where init.c
    comes between it is inherited by that, which lets no other have it."""
    mask, who = spec.capabilities(host.permitted), host.identity
    own = mask if who.uid == 0 else 0
    kept = 0 if not (host.seccomp or host.suid) or _bars_new_privileges(spec) else ADMIN & ~own
    inherited = kept if staged and host.seccomp else 0
    if inherited:
        b.add(p.capset(mask | kept | SETTING_IDS, mask | kept | SETTING_IDS, inherited))
    b.add(p.capbset_drop_all_but(mask))
    if host.groups:  # else root's own groups are all there can be
        b.add(p.setgroups(who.groups))
    if kept and who.uid:
        b.add(p.prctl("PR_SET_KEEPCAPS", 1))
    b.add(p.setresgid(who.gid), p.setresuid(who.uid), p.capset(own | kept, own | kept, inherited))
    if inherited:
        b.add(p.prctl("PR_CAP_AMBIENT", p.const("PR_CAP_AMBIENT_RAISE"), CAPABILITIES.index("SYS_ADMIN")))
    b.add(p.call("umask", p.Octal(spec.umask)))
    if _bars_new_privileges(spec):
        b.add(p.prctl("PR_SET_NO_NEW_PRIVS", 1))


def is_staged(spec: Spec, host: Host) -> bool:
    """Whether csrc/helpers/init.c is executed first."""
    return spec.init or (host.exe_reachable and not spec.executable)


def execute(b: Builder, spec: Spec, host: Host, env: Mapping[str, str]) -> None:
    """No descriptor is left when the path of cwd is walked, so none can lead outside (CVE-2024-21626)."""
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
        b.add(*_without_suid(host), _stage(spec, host, env))
    else:
        b.add(*become(spec, host, env))


def _stage(spec: Spec, host: Host, env: Mapping[str, str]) -> p.Step:
    """The exec of csrc/helpers/init.c, which loads the filter and executes the program."""
    paths = program_paths(spec.args[0], env["PATH"])
    name = "minicontainer-init" if spec.init else "minicontainer-exec"
    instructions = len(host.seccomp) // INSTRUCTION.size
    argv = [name, _limits(spec), str(instructions), str(len(paths)), *paths, *spec.args]
    return p.execveat(INIT_FD, argv, [f"{k}={v}" for k, v in env.items()])


def _limits(spec: Spec) -> str:
    """The resource limits as csrc/helpers/init.c is told them: a letter for each, its limits in hexadecimal."""
    words = [(RLIMITS[limit.name], limit.soft % 2**64, limit.hard % 2**64) for limit in spec.ulimits]
    return "".join(f"{chr(ord('a') + number)}{soft:016x}{hard:016x}" for number, soft, hard in words)


def become(spec: Spec, host: Host, env: Mapping[str, str]) -> list[p.Step]:
    """The resource limits that were asked for, the filter of system calls, and the exec of the program: nothing else
    of ours is under them."""
    limits = [p.prlimit64(RLIMITS[limit.name], limit.soft, limit.hard) for limit in spec.ulimits]
    envp = [f"{k}={v}" for k, v in env.items()]
    if spec.executable:
        execute = p.execveat(PROGRAM_FD, spec.args, envp)
    else:
        execute = p.execve(program_paths(spec.args[0], env["PATH"]), spec.args, envp)
    load = [p.seccomp(host.seccomp, strict=is_strict(host.seccomp))] if host.seccomp else []
    return [*limits, *_without_suid(host), *load, execute]


def _without_suid(host: Host) -> list[p.Step]:
    """The filter of ``no_new_suid``: no call of ours is one that it refuses."""
    return [p.seccomp(host.suid)] if host.suid else []


def program_paths(program: str, path: str) -> list[str]:
    """Where execvp(3) would look."""
    if "/" in program or not program:
        return [program]
    return [posixpath.join(directory or ".", program) for directory in path.split(":")]
