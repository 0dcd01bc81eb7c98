"""Registers of a processor by name, and the types of the kernel's structures for type checkers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar, overload

T = TypeVar("T")


class Registers(dict[str, int]):
    """Values by name; repr() prints them in hexadecimal."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {value:#x}" for name, value in self.items()) + "}"


if TYPE_CHECKING:

    class Array(Protocol[T]):
        """A C array."""

        @overload
        def __getitem__(self, index: int) -> T: ...
        @overload
        def __getitem__(self, index: slice) -> Array[T]: ...
        def __setitem__(self, index: int | slice, value: object) -> None: ...
        def __iter__(self) -> Iterator[T]: ...
        def __len__(self) -> int: ...

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
        l: int  # noqa: E741 - the kernel's name
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
        interrupt_bitmap: Array[int]

    class Debugregs(Protocol):
        """``struct kvm_debugregs *``."""

        db: Array[int]
        dr6: int
        dr7: int
        flags: int

    class Fpu(Protocol):
        """``struct kvm_fpu *``."""

        fpr: Array[Array[int]]
        fcw: int
        fsw: int
        ftwx: int
        last_opcode: int
        last_ip: int
        last_dp: int
        xmm: Array[Array[int]]
        mxcsr: int

    class Xsave(Protocol):
        """``struct kvm_xsave *``."""

        region: Array[int]

    class Xcr(Protocol):
        """``struct kvm_xcr``."""

        xcr: int
        value: int

    class Xcrs(Protocol):
        """``struct kvm_xcrs *``."""

        nr_xcrs: int
        flags: int
        xcrs: Array[Xcr]

    class CpuidEntry(Protocol):
        """``struct kvm_cpuid_entry2``."""

        function: int
        index: int
        flags: int
        eax: int
        ebx: int
        ecx: int
        edx: int

    class Cpuid(Protocol):
        """``struct kvm_cpuid2 *``."""

        nent: int
        entries: Array[CpuidEntry]

    class Lapic(Protocol):
        """``struct kvm_lapic_state *``: an array of char, which cffi reads as bytes of length 1."""

        regs: Array[bytes]

    class Events(Protocol):
        """``struct kvm_vcpu_events *``."""

        flags: int
        sipi_vector: int

    class Synced(Protocol):
        """``struct kvm_sync_regs *``."""

        regs: Regs
        sregs: Sregs
        events: Events
