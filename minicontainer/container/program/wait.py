"""The last steps of the plan of a container that waits for its program, which a pool hands to it. Pure.

The child executes csrc/helpers/ready.c. That receives the program, its working directory, its environment and its
streams, sets the resource limits, and executes the program. The seccomp filter is loaded before, as in every plan; a
filter that forbids a call of ready.c is loaded by ready.c, as its last step.
"""

from __future__ import annotations

from minicontainer import plan as p
from minicontainer.container.host import Host
from minicontainer.container.program import execute
from minicontainer.container.seccomp import permits_waiting
from minicontainer.linux.bpf import INSTRUCTION
from minicontainer.plan import Builder
from minicontainer.spec import Spec

HELPER_FD, REQUEST_FD = 3, 4  # the report takes 3 later (csrc/helpers/ready.c)


def confine_and_wait(b: Builder, spec: Spec, host: Host) -> None:
    """Confines the process and executes ready.c. Inputs: ``helper``, its memfd; ``request``, its end of a socket;
    ``filter``, a memfd, where it loads the filter."""
    late = bool(host.seccomp) and not permits_waiting(host.seccomp)
    execute.confine(b, spec, host, staged=late)
    b.phase, last = "execute", REQUEST_FD
    b.add(p.call("dup3", b.input("helper"), HELPER_FD, p.const("O_CLOEXEC")))
    b.add(p.dup3(b.input("request"), REQUEST_FD))
    if late:
        b.add(p.dup3(b.input("filter"), execute.FILTER_FD))
        last = execute.FILTER_FD
    b.add(p.close_range(last + 1))
    if spec.die_with_parent:
        b.add(p.prctl("PR_SET_PDEATHSIG", 9))
    b.add(p.reset_signals(), *execute.without_suid(host))
    if host.seccomp and not late:
        b.add(p.seccomp(host.seccomp))
    instructions = len(host.seccomp) // INSTRUCTION.size if late else 0
    argv = ["minicontainer-ready", execute.limits_argument(spec), str(instructions)]
    b.add(p.execveat(HELPER_FD, argv, []))
