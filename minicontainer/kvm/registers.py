"""Registers of a processor, by name: those that a result has, and the kernel's structures as type checkers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol


class Registers(dict[str, int]):
    """Values by name; shown as hexadecimal numbers."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {value:#x}" for name, value in self.items()) + "}"


if TYPE_CHECKING:

    class Regs(Protocol):
        """``struct kvm_regs *``."""

        rax: int
        rbx: int
        rcx: int
        rdx: int
        rsi: int
        rdi: int
        rsp: int
        rbp: int
        r8: int
        r9: int
        r10: int
        r11: int
        r12: int
        r13: int
        r14: int
        r15: int
        rip: int
        rflags: int

    class Segment(Protocol):
        """``struct kvm_segment``."""

        base: int
        limit: int
        selector: int
        type: int
        present: int
        dpl: int
        db: int
        s: int
        l: int  # noqa: E741 - its name
        g: int
        avl: int
        unusable: int

    class Table(Protocol):
        """``struct kvm_dtable``."""

        base: int
        limit: int

    class Sregs(Protocol):
        """``struct kvm_sregs *``."""

        cs: Segment
        ds: Segment
        es: Segment
        fs: Segment
        gs: Segment
        ss: Segment
        tr: Segment
        ldt: Segment
        gdt: Table
        idt: Table
        cr0: int
        cr2: int
        cr3: int
        cr4: int
        cr8: int
        efer: int
        apic_base: int
        interrupt_bitmap: Any

    class Debugregs(Protocol):
        """``struct kvm_debugregs *``."""

        db: Any
        dr6: int
        dr7: int
        flags: int
