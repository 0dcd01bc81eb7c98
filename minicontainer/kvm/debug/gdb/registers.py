"""gdb's numbers of the x86 registers, and the field of KVM's structures for each (gdb/features/i386 in gdb's source).

gdb has a register set for i386 and one for x86-64. Order and widths are those of gdb's descriptions, since the reply to
``g`` is the concatenation of all registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minicontainer.kvm import x86
from minicontainer.kvm.debug import linear
from minicontainer.kvm.vcpu import Vcpu
from minicontainer.native import ffi

GENERAL64 = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
GENERAL32 = "eax ecx edx ebx esp ebp esi edi eip".split()
SEGMENTS = "cs ss ds es fs gs".split()
X87 = {  # name -> field; current processors do not store the two selectors
    "fctrl": "fpu.fcw",
    "fstat": "fpu.fsw",
    "ftag": "ftag",
    "fiseg": "",
    "fioff": "fpu.last_ip",
    "foseg": "",
    "fooff": "fpu.last_dp",
    "fop": "fpu.last_opcode",
}
CONTROL = "cr0 cr2 cr3 cr4 cr8 efer".split()
POINTERS = {
    "rbp": "data_ptr",
    "rsp": "data_ptr",
    "ebp": "data_ptr",
    "esp": "data_ptr",
    "rip": "code_ptr",
    "eip": "code_ptr",
}
CORE, SSE = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse"
BASES, CONTROLS = "org.gnu.gdb.i386.segments", "org.minicontainer.control"


class Register(NamedTuple):
    """``where``: the register's path in KVM's structures, a name that State handles itself, or "" (reads as zero)."""

    name: str
    bits: int
    type: str
    where: str
    feature: str


def layout(wide: bool) -> list[Register]:
    """The registers of i386:x86-64 (``wide``), or of i386."""
    word = 64 if wide else 32
    registers = [
        Register(name, word, POINTERS.get(name, f"int{word}"), _general(name), CORE)
        for name in (GENERAL64 if wide else GENERAL32)
    ]
    registers.append(Register("eflags", 32, "i386_eflags", "regs.rflags", CORE))
    registers += [Register(name, 32, "int32", f"sregs.{name}.selector", CORE) for name in SEGMENTS]
    registers += [Register(f"st{i}", 80, "i387_ext", f"fpu.fpr.{i}", CORE) for i in range(8)]
    registers += [Register(name, 32, "int", where, CORE) for name, where in X87.items()]
    registers += [Register(f"xmm{i}", 128, "vec128", f"fpu.xmm.{i}", SSE) for i in range(16 if wide else 8)]
    registers.append(Register("mxcsr", 32, "i386_mxcsr", "fpu.mxcsr", SSE))
    if wide:
        registers += [Register(f"{name}_base", 64, "int64", f"sregs.{name}.base", BASES) for name in ("fs", "gs")]
    return registers + [Register(name, word, f"int{word}", f"sregs.{name}", CONTROLS) for name in CONTROL]


def _general(name: str) -> str:
    return "rip" if name[1:] == "ip" else f"regs.r{name[1:]}"


class State:
    """The registers of a stopped processor. Structures are read at the first access; ``store`` writes changed ones.

    rip is a linear address, with the base of the code segment added: gdb does not know segments."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._structs: dict[str, Any] = {}
        self._changed: set[str] = set()

    def get(self, register: Register) -> bytes:
        """The register's bytes, little-endian."""
        size = register.bits // 8
        value = self._value(register.where)
        if isinstance(value, int):
            return (value & (1 << register.bits) - 1).to_bytes(size, "little")
        return bytes(ffi.buffer(value))[:size]

    def set(self, register: Register, raw: bytes) -> None:
        """Sets a register. ValueError, OverflowError: it cannot have this value."""
        if register.where == "" or self.get(register) == raw:
            return
        value = int.from_bytes(raw, "little")
        if register.where == "rip":
            self._struct("regs").rip = value - self._base() & (1 << register.bits) - 1
        elif register.where == "ftag":
            self._struct("fpu").ftwx = sum(1 << i for i in range(8) if value >> 2 * i & 3 != 3)
        elif register.where.endswith(".selector"):
            self._set_selector(register, value)
        else:
            self._assign(register.where, value, raw)
        self._changed.add({"rip": "regs", "ftag": "fpu"}.get(register.where) or register.where.split(".")[0])

    def store(self) -> None:
        """Writes the changed structures to KVM. OSError: KVM refuses a value."""
        for name in sorted(self._changed):
            getattr(self._vcpu, f"set_{name}")(self._structs[name])
        self._changed.clear()

    @property
    def rip(self) -> int:
        """rip as a linear address."""
        return int(self._struct("regs").rip) + self._base() & linear.TOP - 1

    def _struct(self, name: str) -> Any:
        if name not in self._structs:
            self._structs[name] = getattr(self._vcpu, f"get_{name}")()
        return self._structs[name]

    def _base(self) -> int:
        return linear.code_base(self._struct("sregs"))

    def _value(self, where: str) -> Any:
        if where == "rip":
            return self.rip
        if where == "ftag":  # FXSAVE (KVM): a bit for each register in use; FSTENV (gdb): 3 for each empty one
            return sum(3 << 2 * i for i in range(8) if not self._struct("fpu").ftwx >> i & 1)
        if where == "":
            return 0
        struct, *path = where.split(".")
        value = self._struct(struct)
        for step in path:
            value = value[int(step)] if step.isdigit() else getattr(value, step)
        return value

    def _assign(self, where: str, value: int, raw: bytes) -> None:
        path, _, last = where.rpartition(".")
        if last.isdigit():
            ffi.buffer(self._value(where))[: len(raw)] = raw
        elif "." in path:
            setattr(self._value(path), last, value)
        else:
            setattr(self._struct(path), last, value)

    def _set_selector(self, register: Register, value: int) -> None:
        """In real mode the base follows from the selector. ValueError: in protected mode it would need a descriptor."""
        if self._struct("sregs").cr0 & x86.CR0_PE:
            raise ValueError(f"{register.name}: only the guest itself can load a segment in protected mode")
        segment = getattr(self._struct("sregs"), register.name)
        segment.selector = value
        segment.base = value << 4
