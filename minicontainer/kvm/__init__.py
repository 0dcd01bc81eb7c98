"""Virtual machines from /dev/kvm: a class for each of KVM's descriptors, and a small machine above them (x86_64).

    from minicontainer.kvm import Kvm, Machine

    with Kvm() as kvm, kvm.create_vm() as vm, vm.create_vcpu() as vcpu: ...     # KVM's descriptors

    with Machine(memory="2M") as m:                                             # a machine
        m.load("kernel.bin")
        result = m.run(timeout=5)
        result.reason, result.exits, result.output, result.registers

``Kvm``, ``Vm`` and ``Vcpu`` have a method for each ioctl, named after it (Linux Documentation/virt/kvm/api.rst), and
use the kernel's structures; ``Vcpu.run`` returns a typed exit. Names are imported at their first use.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from minicontainer.errors import UnsupportedError
from minicontainer.native import lib

if not hasattr(lib, "KVM_RUN"):
    raise UnsupportedError("KVM", platform.machine(), "virtual machines are for x86_64 hosts")

_NAMES = {  # module -> the names that it defines
    "boot": "Entry Kernel KernelError",
    "bus": "Access Bus",
    "exits": "DebugExit Exit FailEntryExit HltExit HypercallExit InternalErrorExit InterruptedExit IoExit MmioExit"
    " MsrExit ShutdownExit SystemEventExit UnknownExit",
    "machine": "Machine",
    "memory": "GuestMemory GuestMemoryError",
    "result": "ExitCount Outcome Result",
    "serial": "Serial",
    "system": "Kvm",
    "debug.trace": "Tracer",
    "vcpu": "Vcpu",
    "vm": "Vm",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [
    "Access", "Bus", "DebugExit", "Entry", "Exit", "ExitCount", "FailEntryExit", "GuestMemory", "GuestMemoryError",
    "HltExit", "HypercallExit", "InternalErrorExit", "InterruptedExit", "IoExit", "Kernel", "KernelError", "Kvm",
    "Machine", "MmioExit", "MsrExit", "Outcome", "Result", "Serial", "ShutdownExit", "SystemEventExit", "Tracer",
    "UnknownExit", "Vcpu", "Vm",
]  # fmt: skip

if TYPE_CHECKING:
    from minicontainer.kvm.boot import Entry, Kernel, KernelError
    from minicontainer.kvm.bus import Access, Bus
    from minicontainer.kvm.debug.trace import Tracer
    from minicontainer.kvm.exits import (
        DebugExit,
        Exit,
        FailEntryExit,
        HltExit,
        HypercallExit,
        InternalErrorExit,
        InterruptedExit,
        IoExit,
        MmioExit,
        MsrExit,
        ShutdownExit,
        SystemEventExit,
        UnknownExit,
    )
    from minicontainer.kvm.machine import Machine
    from minicontainer.kvm.memory import GuestMemory, GuestMemoryError
    from minicontainer.kvm.result import ExitCount, Outcome, Result
    from minicontainer.kvm.serial import Serial
    from minicontainer.kvm.system import Kvm
    from minicontainer.kvm.vcpu import Vcpu
    from minicontainer.kvm.vm import Vm


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"minicontainer.kvm.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
