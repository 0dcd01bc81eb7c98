"""Registers of a processor by name, and the types of the kernel's structures for type checkers."""

from __future__ import annotations

from minicontainer.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NamedTuple, Protocol, TypeVar, overload
else:
    from minicontainer.records import NamedTuple


class Registers(dict[str, int]):
    """Values by name; repr() prints them in hexadecimal."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {value:#x}" for name, value in self.items()) + "}"


INITIAL = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rflags".split()


def initial(values: Mapping[str, int]) -> dict[str, int]:
    """The values of registers that a caller wants at the start. SpecError: an unknown name, or more than 64 bits."""
    if not hasattr(values, "items"):
        raise SpecError("registers", values, "must be a dict of values by name")
    for name, value in values.items():
        if name not in INITIAL:
            remedy = "entry, or the argument rip of enter" if name == "rip" else ", ".join(INITIAL)
            raise SpecError("registers", name, "is no register that can be set here", remedy)
        if not isinstance(value, int) or not 0 <= value < 1 << 64:
            raise SpecError(f"registers {name}", value, "must be a number from 0 to 2**64 - 1")
    return dict(values)


class Synced(NamedTuple):
    """The parts of ``struct kvm_sync_regs``, inside struct kvm_run. Each can be used for as long as it is referred to,
    also when the Vcpu is closed."""

    regs: Regs
    sregs: Sregs
    events: Events


if TYPE_CHECKING:
    T = TypeVar("T")

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

    class System(Protocol):
        """What ``struct kvm_sregs`` and ``struct kvm_sregs2`` have in common."""

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

    class Sregs(System, Protocol):
        """``struct kvm_sregs *``."""

        interrupt_bitmap: Array[int]

    class Sregs2(System, Protocol):
        """``struct kvm_sregs2 *``."""

        flags: int
        pdptrs: Array[int]

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
