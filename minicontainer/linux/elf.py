"""ELF headers (elf(5)): machine and interpreter, for errors about programs that cannot be executed."""

from __future__ import annotations

import os
import struct

MACHINES = {  # e_machine, elf(5) and <elf.h>
    2: "sparc",
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    43: "sparc64",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
PT_INTERP = 3


def machine(head: bytes) -> str:
    """The name of an ELF file's architecture, from its first bytes."""
    if len(head) < 20:
        return "an unknown machine"
    order = ">" if head[5:6] == b"\x02" else "<"
    number = struct.unpack_from(order + "H", head, 18)[0]
    return MACHINES.get(number, f"machine {number}")


def interpreter(head: bytes) -> str | None:
    """PT_INTERP of an ELF file, if its first bytes contain it."""
    if len(head) < 64 or head[:4] != b"\x7fELF":
        return None
    order = ">" if head[5] == 2 else "<"
    wide = head[4] == 2
    table, size, count = struct.unpack_from(order + ("Q14xHH" if wide else "I10xHH"), head, 32 if wide else 28)
    for i in range(min(count, 64)):
        at = table + i * size
        if at + (56 if wide else 32) > len(head):
            return None
        if struct.unpack_from(order + "I", head, at)[0] == PT_INTERP:
            where = struct.unpack_from(order + ("Q" if wide else "I"), head, at + (8 if wide else 4))[0]
            name = head[where : where + 256].split(b"\0")[0] if where < len(head) else b""
            return os.fsdecode(name) or None
    return None
