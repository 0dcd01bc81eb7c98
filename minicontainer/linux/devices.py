"""The eBPF program that decides which devices the processes of a cgroup may use (cgroup-v2.rst "Device controller",
bpf(2)).

The kernel runs the program whenever a device node is opened or made, with the requested access and the device in struct
bpf_cgroup_dev_ctx. The program returns 1 to allow, or 0 for EPERM. Programs of the cgroups above must allow it, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from minicontainer.native import ffi, lib, syscall
from minicontainer.plan.step import Struct, const

INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn: code, registers, offset, immediate
LOAD_ATTR = struct.Struct("=IIQQIIQII16sII")  # union bpf_attr of BPF_PROG_LOAD, to expected_attach_type
ATTACH_ATTR = struct.Struct("=IIII")  # of BPF_PROG_ATTACH: target_fd, attach_bpf_fd, attach_type, attach_flags
LICENSE = b"GPL\0"
KINDS = {"c": lib.BPF_DEVCG_DEV_CHAR, "b": lib.BPF_DEVCG_DEV_BLOCK}
ACCESS = {"m": lib.BPF_DEVCG_ACC_MKNOD, "r": lib.BPF_DEVCG_ACC_READ, "w": lib.BPF_DEVCG_ACC_WRITE}
RESULT, CONTEXT, KIND, WANTED, MAJOR, MINOR = range(6)  # registers: r0 is the result, r1 points to the context


class Rule(NamedTuple):
    """Devices that may be used: ``kind`` c or b; ``minor`` None for any; ``access`` of r, w and m (mknod)."""

    kind: str
    major: int
    minor: int | None = None
    access: str = "rwm"


def program(rules: Iterable[Rule]) -> bytes:
    """A program (struct bpf_insn[]) that allows what the rules allow, and nothing else."""
    word = lib.BPF_LDX | lib.BPF_MEM | lib.BPF_W
    code = [
        _instruction(word, KIND, CONTEXT, 0),  # access_type: access << 16 | kind
        _instruction(lib.BPF_ALU64 | lib.BPF_MOV | lib.BPF_X, WANTED, KIND),
        _instruction(lib.BPF_ALU | lib.BPF_AND | lib.BPF_K, KIND, immediate=0xFFFF),
        _instruction(lib.BPF_ALU | lib.BPF_RSH | lib.BPF_K, WANTED, immediate=16),
        _instruction(word, MAJOR, CONTEXT, 4),
        _instruction(word, MINOR, CONTEXT, 8),
    ]
    for rule in rules:
        code += _matching(rule)
    return b"".join([*code, *_answer(0)])


def _matching(rule: Rule) -> list[bytes]:
    """Code that returns 1 if the rule allows the access, and else falls through."""
    tests = [(lib.BPF_JNE, KIND, KINDS[rule.kind]), (lib.BPF_JNE, MAJOR, rule.major)]
    if rule.minor is not None:
        tests.append((lib.BPF_JNE, MINOR, rule.minor))
    refused = sum(bit for letter, bit in ACCESS.items() if letter not in rule.access)
    if refused:
        tests.append((lib.BPF_JSET, WANTED, refused))
    answer = _answer(1)
    beyond = range(len(tests) - 1 + len(answer), len(answer) - 1, -1)
    jumps = [
        _instruction(lib.BPF_JMP | test | lib.BPF_K, register, offset=over, immediate=value)
        for (test, register, value), over in zip(tests, beyond, strict=True)
    ]
    return jumps + answer


def _answer(value: int) -> list[bytes]:
    move = _instruction(lib.BPF_ALU64 | lib.BPF_MOV | lib.BPF_K, RESULT, immediate=value)
    return [move, _instruction(lib.BPF_JMP | lib.BPF_EXIT)]


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return INSTRUCTION.pack(code, source << 4 | to, offset, immediate)


def load(code: bytes) -> int:
    """bpf(BPF_PROG_LOAD): a descriptor of the program. Needs CAP_BPF, or CAP_SYS_ADMIN before Linux 5.8."""
    instructions, license_text = ffi.from_buffer(code), ffi.from_buffer(LICENSE)
    attr = LOAD_ATTR.pack(
        lib.BPF_PROG_TYPE_CGROUP_DEVICE,
        len(code) // INSTRUCTION.size,
        int(ffi.cast("uintptr_t", instructions)),
        int(ffi.cast("uintptr_t", license_text)),
        *(0, 0, 0, 0, 0, b"minicontainer", 0),
        lib.BPF_CGROUP_DEVICE,
    )
    what = (const("BPF_PROG_LOAD"), Struct(b"", f"{{BPF_PROG_TYPE_CGROUP_DEVICE, <{len(code) // 8} instructions>}}"))
    return syscall("bpf", lib.SYS_bpf, lib.BPF_PROG_LOAD, attr, len(attr), what=what)


def attach(cgroup: int, loaded: int) -> None:
    """bpf(BPF_PROG_ATTACH) to the directory of a cgroup, for the cgroup's lifetime, in addition to other programs."""
    attr = ATTACH_ATTR.pack(cgroup, loaded, lib.BPF_CGROUP_DEVICE, lib.BPF_F_ALLOW_MULTI)
    what = (const("BPF_PROG_ATTACH"), Struct(b"", f"{{{cgroup}, {loaded}, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI}}"))
    syscall("bpf", lib.SYS_bpf, lib.BPF_PROG_ATTACH, attr, len(attr), what=what)
