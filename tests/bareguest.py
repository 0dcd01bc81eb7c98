"""A machine from KVM's descriptors, for guests of a few bytes in real mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from minicontainer.kvm import Exit, GuestMemory, IoExit, Kvm, MmioExit, Vm
from minicontainer.native import ffi

PAGE = 4096
START = 0x1000
MMIO = 0x8000  # where memory of these guests ends: within reach of 16-bit addresses
HLT = b"\xf4"
LOOP = b"\xeb\xfe"  # jmp to itself


class Guest:
    """A machine with one processor in real mode, about to execute ``code`` at 0x1000; all segments begin at 0."""

    def __init__(self, stack: ExitStack, code: bytes, irqchip: bool) -> None:
        self.memory = GuestMemory(MMIO)
        stack.callback(self.memory.close)
        self.kvm = stack.enter_context(Kvm())
        self.vm = stack.enter_context(self.kvm.create_vm())
        self.memory.attach(self.vm)
        if irqchip:
            self.vm.create_irqchip()
        self.vcpu = stack.enter_context(self.vm.create_vcpu())
        sregs = self.vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        self.vcpu.set_sregs(sregs)
        self.execute(code)

    def execute(self, code: bytes, **registers: int) -> None:
        """Puts it at 0x1000, and the processor before it."""
        self.memory.write(START, code)
        self.vcpu.set_regs(ffi.new("struct kvm_regs *", {"rip": START, "rflags": 2, "rsp": START, **registers}))

    def vector(self, number: int, code: bytes) -> None:
        """An interrupt's handler, at 0x2000 and 16 bytes for each."""
        at = 0x2000 + 16 * number
        self.memory.write(4 * number, at.to_bytes(4, "little"))
        self.memory.write(at, code)

    def exits(self, most: int = 100) -> list[Exit]:
        """All up to the first that is neither a port nor memory. What is read is all ones."""
        found: list[Exit] = []
        while not found or isinstance(found[-1], IoExit | MmioExit):
            assert len(found) < most
            found.append(self.vcpu.run())
        return found


Make = Callable[..., Guest]


def raw(struct: Any) -> bytes:
    return bytes(ffi.buffer(struct))


def irr(vm: Vm) -> int:
    """The master PIC's requests (struct kvm_pic_state: last_irr, irr, ...)."""
    return raw(vm.get_irqchip("master"))[9]


@contextmanager
def guests() -> Iterator[Make]:
    """``make(code, irqchip=False)``: a Guest, gone at the end."""
    with ExitStack() as stack:
        yield lambda code=HLT, irqchip=False: Guest(stack, code, irqchip)
