"""Disassembles the next instruction of a processor, with capstone if it is installed (extra ``[debug]``)."""

from __future__ import annotations

from functools import cache
from typing import Any

from minicontainer.kvm.debug import linear
from minicontainer.kvm.memory import GuestMemory, GuestMemoryError
from minicontainer.kvm.vcpu import Vcpu

LONGEST = 15  # bytes of an instruction (Intel SDM volume 2, "Instruction format")
BYTES_SHOWN = 8  # without capstone the length of the instruction is unknown


def instruction(vcpu: Vcpu, memory: GuestMemory) -> str:
    """The instruction at rip: ``mov al, 0x48``; its bytes in hexadecimal if capstone is missing or cannot decode it;
    ``(no memory)`` if rip is outside memory."""
    sregs = vcpu.get_sregs()
    rip = vcpu.get_regs().rip
    try:
        code = linear.read(vcpu, memory, linear.code_base(sregs) + rip, LONGEST)
    except GuestMemoryError:
        return "(no memory)"
    return text(code, rip, linear.code_bits(sregs))


def text(code: bytes, address: int, bits: int) -> str:
    """The first instruction of ``code`` at ``address``, in 16-, 32- or 64-bit code."""
    engine = _engine(bits)
    if engine is not None:
        for _, _, mnemonic, operands in engine.disasm_lite(code, address, 1):
            return f"{mnemonic} {operands}".rstrip()
    return code[:BYTES_SHOWN].hex(" ")


@cache
def _engine(bits: int) -> Any:
    """A capstone disassembler for this width; None: capstone is not installed."""
    try:
        import capstone
    except ImportError:
        return None
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    return capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
