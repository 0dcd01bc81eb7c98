"""The outer plan: a container whose program is csrc/vmm. Pure."""

from __future__ import annotations

from minicontainer import plan as p
from minicontainer.container import compiler
from minicontainer.container.machine import interface
from minicontainer.microvm.devices import ALWAYS
from minicontainer.native import LIBEXEC, lib
from minicontainer.plan import Slot
from minicontainer.spec import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.container.host import Host
    from minicontainer.microvm.devices import Device
    from minicontainer.plan import Builder, Plan
    from minicontainer.spec import Spec

PROGRAM = f"{LIBEXEC}/vmm"
OPENED = ("proc", interface.SOCKET)  # by the plan; the others are inputs
NUMBERS = {
    "proc": lib.MC_VMM_PROC_FD,
    "report": lib.MC_VMM_REPORT_FD,
    "kvm": lib.MC_VMM_KVM_FD,
    "machine": lib.MC_VMM_MACHINE_FD,
    "run": lib.MC_VMM_RUN_FD,
    **{f"file-{i}": lib.MC_VMM_FILES_FD + i for i in range(lib.MC_VMM_FILES)},
}
PHASE = "monitor"  # in which it gives up rights
PROGRAM_FD = lib.MC_VMM_GIVEN_FD + lib.MC_VMM_DEVICES
FIRST_FREE = PROGRAM_FD + 1

# What a file server needs to act for any user of the guest, within the container's ids.
RIGHTS = sum(
    1 << CAPABILITIES.index(name)
    for name in "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID SETUID SETGID MKNOD SETFCAP SYS_RESOURCE".split()
)


def compile(spec: Spec, host: Host, devices: Sequence[Device] = ALWAYS) -> Plan:
    """The plan of the outer spec (division.outer). Inputs: those of ``compiler.compile_root``, of NUMBERS, what each of
    the ``devices`` is given, and ``program``; but not what is OPENED."""
    b = compiler.compile_root(spec, host)
    if host.endpoint is not None:
        interface.open_socket(b, host.endpoint)
    b.phase = PHASE
    rights = RIGHTS if host.permitted == -1 else RIGHTS & host.permitted
    b.add(p.capbset_drop_all_but(rights), p.capset(rights, rights, 0), p.call("umask", 0))
    b.add(p.prctl("PR_SET_NO_NEW_PRIVS", 1))
    _execute(b, spec, host, devices)
    return b.plan()


def _execute(b: Builder, spec: Spec, host: Host, devices: Sequence[Device]) -> None:
    """Gives each descriptor its number, and executes the program. An input may have the number that another is to have,
    so each is moved away first."""
    b.phase = "execute"
    given = {device.given: lib.MC_VMM_GIVEN_FD + i for i, device in enumerate(devices) if device.given}
    numbers = NUMBERS | given
    for name in (*numbers, "program"):
        slot = Slot(name) if name in OPENED else b.input(name)
        b.add(p.call("fcntl", slot, p.const("F_DUPFD_CLOEXEC"), FIRST_FREE, into=f"{name}-moved"))
    b.add(p.call("close_range", lib.MC_VMM_GIVEN_FD, FIRST_FREE - 1, 0))  # where a device is given nothing
    b.add(*(p.dup3(Slot(f"{name}-moved"), number) for name, number in numbers.items()))
    b.add(p.call("dup3", Slot("program-moved"), PROGRAM_FD, p.const("O_CLOEXEC")), p.close_range(FIRST_FREE))
    if spec.die_with_parent:
        b.add(p.prctl("PR_SET_PDEATHSIG", 9))
    b.add(p.reset_signals())
    if host.seccomp:
        b.add(p.seccomp(host.seccomp))
    b.add(p.execveat(PROGRAM_FD, ["minicontainer-vmm"], []))
