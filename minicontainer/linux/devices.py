"""The eBPF program that decides which devices the processes of a cgroup may use (cgroup-v2.rst "Device controller",
bpf(2)).

The kernel runs the program whenever a device node is opened or made, with the requested access and the device in struct
bpf_cgroup_dev_ctx. The program returns 1 to allow, or 0 for EPERM. Programs of the cgroups above must allow it, too.
"""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it

from minicontainer.native import ffi, lib, syscall
from minicontainer.plan.step import Struct, const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn: code, registers, offset, immediate
LOAD_ATTR = struct.Struct("=IIQQIIQII16sII")  # union bpf_attr of BPF_PROG_LOAD, to expected_attach_type
ATTACH_ATTR = struct.Struct("=IIII")  # of BPF_PROG_ATTACH: target_fd, attach_bpf_fd, attach_type, attach_flags
LICENSE = b"GPL\0"
KINDS = {"c": lib.BPF_DEVCG_DEV_CHAR, "b": lib.BPF_DEVCG_DEV_BLOCK}
ACCESS = {"m": lib.BPF_DEVCG_ACC_MKNOD, "r": lib.BPF_DEVCG_ACC_READ, "w": lib.BPF_DEVCG_ACC_WRITE}
# Registers: r0 is the result, r1 points to the context. DEVICE has both numbers of the device, as the kernel's dev_t.
RESULT, CONTEXT, KIND, WANTED, MAJOR, MINOR, DEVICE = range(7)
MINOR_BITS = 20


class Rule(NamedTuple):
    """Devices that may be used: ``kind`` c or b; ``minor`` None for any; ``access`` of r, w and m (mknod)."""

    kind: str
    major: int
    minor: int | None = None
    access: str = "rwm"


def program(rules: Iterable[Rule]) -> bytes:
    """A program (struct bpf_insn[]) that allows what the rules allow, and nothing else.

    The kernel's check of a program takes some 10 us for each branch. So a device of which everything is allowed costs
    one comparison, of both its numbers, and consecutive major numbers are compared together."""
    word = lib.BPF_LDX | lib.BPF_MEM | lib.BPF_W
    code = [
        _instruction(word, KIND, CONTEXT, 0),  # access_type: access << 16 | kind
        _instruction(lib.BPF_ALU64 | lib.BPF_MOV | lib.BPF_X, WANTED, KIND),
        _instruction(lib.BPF_ALU | lib.BPF_AND | lib.BPF_K, KIND, immediate=0xFFFF),
        _instruction(lib.BPF_ALU | lib.BPF_RSH | lib.BPF_K, WANTED, immediate=16),
        _instruction(word, MAJOR, CONTEXT, 4),
        _instruction(word, MINOR, CONTEXT, 8),
        _instruction(lib.BPF_ALU64 | lib.BPF_MOV | lib.BPF_X, DEVICE, MAJOR),
        _instruction(lib.BPF_ALU | lib.BPF_LSH | lib.BPF_K, DEVICE, immediate=MINOR_BITS),
        _instruction(lib.BPF_ALU | lib.BPF_OR | lib.BPF_X, DEVICE, MINOR),
    ]
    jumps: list[Jump] = []
    spans = _spans(rules)
    for kind, number in KINDS.items():
        of_kind = [jump for span in spans if span.kind == kind for jump in _matching(span)]
        jumps += [Jump(lib.BPF_JMP | lib.BPF_JNE, KIND, number, len(of_kind)), *of_kind] if of_kind else []
    refusal, permission = _answer(0), _answer(1)
    for left, (test, register, value, over) in zip(range(len(jumps) - 1, -1, -1), jumps, strict=True):
        offset = left + len(refusal) if over is None else over
        code.append(_instruction(test | lib.BPF_K, register, offset=offset, immediate=value))
    return b"".join([*code, *refusal, *permission])


class Jump(NamedTuple):
    """A comparison, and how many jumps it skips where it is true; None: the access is allowed."""

    test: int
    register: int
    value: int
    over: int | None = None


class _Span(NamedTuple):
    """The rules for consecutive major numbers as one."""

    kind: str
    first: int
    last: int
    minor: int | None
    access: str


def _spans(rules: Iterable[Rule]) -> list[_Span]:
    spans: list[_Span] = []
    for kind, major, minor, access in rules:
        last = spans[-1] if spans else None
        if last is not None and last[2:] == (major - 1, minor, access) and last.kind == kind:
            spans[-1] = last._replace(last=major)
        else:
            spans.append(_Span(kind, major, major, minor, access))
    return spans


def _matching(span: _Span) -> list[Jump]:
    """Comparisons that allow the access if the span does, and else fall through."""
    refused = sum(bit for letter, bit in ACCESS.items() if letter not in span.access)
    if not refused and span.minor is not None and span.first == span.last:
        return [Jump(lib.BPF_JMP32 | lib.BPF_JEQ, DEVICE, _signed(span.first << MINOR_BITS | span.minor))]
    tests = [(lib.BPF_JNE, MAJOR, span.first)]
    if span.first != span.last:
        tests = [(lib.BPF_JLT, MAJOR, span.first), (lib.BPF_JGT, MAJOR, span.last)]
    if span.minor is not None:
        tests.append((lib.BPF_JNE, MINOR, span.minor))
    if refused:
        tests.append((lib.BPF_JSET, WANTED, refused))
    skips = [
        Jump(lib.BPF_JMP | test, register, value, len(tests) - i) for i, (test, register, value) in enumerate(tests)
    ]
    return [*skips, Jump(lib.BPF_JMP | lib.BPF_JA, 0, 0)]


def _signed(number: int) -> int:
    """A number of 32 bits as the immediate value of an instruction."""
    return number - 2**32 if number >= 2**31 else number


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
