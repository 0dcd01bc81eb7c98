"""target.xml: describes the registers to gdb (GDB manual, "Target Descriptions")."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from minicontainer.kvm.debug.gdb.registers import CORE, SSE, Register

EFLAGS = {
    0: "CF", 1: "", 2: "PF", 4: "AF", 6: "ZF", 7: "SF", 8: "TF", 9: "IF", 10: "DF", 11: "OF", 14: "NT", 16: "RF", 17:
    "VM", 18: "AC", 19: "VIF", 20: "VIP", 21: "ID",
}  # fmt: skip
MXCSR = {
    0: "IE", 1: "DE", 2: "ZE", 3: "OE", 4: "UE", 5: "PE", 6: "DAZ", 7: "IM", 8: "DM", 9: "ZM", 10: "OM", 11: "UM", 12:
    "PM", 15: "FZ",
}  # fmt: skip
VECTORS = {  # views of an SSE register: name -> type and number of elements
    "v4_float": ("ieee_single", 4),
    "v2_double": ("ieee_double", 2),
    "v16_int8": ("int8", 16),
    "v8_int16": ("int16", 8),
    "v4_int32": ("int32", 4),
    "v2_int64": ("int64", 2),
}


def target_xml(registers: Sequence[Register], wide: bool) -> bytes:
    """The document for ``registers``, which are grouped by feature."""
    lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', '<target version="1.0">']
    lines.append(f"<architecture>{'i386:x86-64' if wide else 'i386'}</architecture>")
    for feature, members in groupby(registers, lambda r: r.feature):
        lines += [f'<feature name="{feature}">', *_types(feature)]
        lines += [f'<reg name="{r.name}" bitsize="{r.bits}" type="{r.type}"/>' for r in members]
        lines.append("</feature>")
    return "\n".join([*lines, "</target>", ""]).encode("ascii")


def _types(feature: str) -> list[str]:
    if feature == CORE:
        return _flags("i386_eflags", EFLAGS)
    if feature != SSE:
        return []
    vectors = [f'<vector id="{name}" type="{kind}" count="{count}"/>' for name, (kind, count) in VECTORS.items()]
    fields = [f'<field name="{name}" type="{name}"/>' for name in VECTORS]
    whole = '<field name="uint128" type="uint128"/>'
    return [*vectors, '<union id="vec128">', *fields, whole, "</union>", *_flags("i386_mxcsr", MXCSR)]


def _flags(name: str, bits: dict[int, str]) -> list[str]:
    fields = [f'<field name="{flag}" start="{bit}" end="{bit}"/>' for bit, flag in bits.items()]
    return [f'<flags id="{name}" size="4">', *fields, "</flags>"]
