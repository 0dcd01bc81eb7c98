"""The plan of ``exec``: a further process joins a running container, and is confined. Pure.

csrc/helpers/enter.c walks the plan: it joins the container's namespaces, then clones a sibling into the container's
cgroup, whose steps are those of a start (compiler.py). Until its exec that sibling has more rights than the container's
processes, which can see it. They cannot trace it (prctl(2), PR_SET_DUMPABLE) without CAP_SYS_PTRACE in the host's user
namespace.
"""

from __future__ import annotations

from minicontainer import plan as p
from minicontainer.container import compiler
from minicontainer.container.filesystem import dev, kernelfs
from minicontainer.container.program import execute
from minicontainer.plan import FDCWD, Builder, Slot
from minicontainer.spec import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.host import Host
    from minicontainer.plan import Plan
    from minicontainer.spec import Spec

INPUTS = ("stdin", "stdout", "stderr", "process")


def compile(spec: Spec, host: Host, namespaces: str, *, has_proc: bool = True) -> Plan:
    """The plan. ``namespaces`` are those to join (CLONE_NEW* by name); the sibling joins the cgroup namespace. Inputs:
    stdin stdout stderr; process, a pidfd of process 1; cgroup, a descriptor of the cgroup directory, or -1;
    parent-socket (``spec.tty``). ``has_proc``: a /proc is mounted where the walk begins; without one the OOM score
    stays as it is."""
    b = Builder()
    for name in INPUTS:
        b.input(name)
    b.phase = "limits"
    if has_proc:
        kernelfs.set_oom_score(b, spec, "/proc/self/oom_score_adj", FDCWD)
    b.add(*(p.prlimit64_raise(RLIMITS[limit.name], limit.hard) for limit in spec.ulimits))
    b.phase = "join namespaces"
    process = Slot("process")
    cgroupns = "CLONE_NEWCGROUP" in namespaces.split("|")
    first = "|".join(name for name in namespaces.split("|") if name != "CLONE_NEWCGROUP")
    b.add(p.setns(process, first), p.prctl("PR_SET_DUMPABLE", 0))
    b.add(p.fork_sibling(b.input("cgroup")))
    if cgroupns:
        b.add(p.setns(process, "CLONE_NEWCGROUP"))
    if host.userns == "join":
        b.phase = "user namespace"
        b.add(p.setresgid(0), p.setresuid(0))
    b.phase = "stdio"
    b.add(p.call("setsid"))
    if spec.tty:
        resolve = "RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS"  # the path is the container's
        dev.attach_terminal(b, host, p.openat2("/dev/pts/ptmx", dev.PTMX, resolve, dev.MASTER))
    else:
        b.add(*(p.dup3(Slot(name), number) for number, name in enumerate(INPUTS[:3])))
    execute.confine(b, spec, host)
    b.phase, env = "execute", compiler.environment(spec, host)
    b.add(p.close_range(3), p.chdir(spec.cwd), p.reset_signals(), *execute.execute_program(spec, host, env))
    return b.plan()
