"""The program of device access: what it answers, by an interpreter of the few instructions that it has."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from minicontainer.container.cgroup.devices import ALWAYS
from minicontainer.linux.devices import INSTRUCTION, Rule, program

numbers = st.integers(0, 300) | st.integers(2040, 4094)
accesses = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters)))
rules = st.builds(Rule, st.sampled_from("cb"), numbers, st.none() | numbers, accesses)
WORDS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*


ARITHMETIC: dict[
    int, Callable[[int, int, int], int]
] = {  # opcode -> the result of (register, immediate value, other register)
    0xBF: lambda _to, _immediate, source: source,  # mov64 register
    0xB7: lambda _to, immediate, _source: immediate,  # mov64
    0x54: lambda to, immediate, _source: to & immediate,  # and32
    0x74: lambda to, immediate, _source: to >> immediate,  # rsh32
    0x64: lambda to, immediate, _source: to << immediate & 0xFFFFFFFF,  # lsh32
    0x4C: lambda to, _immediate, source: (to | source) & 0xFFFFFFFF,  # or32 register
}
COMPARISONS: dict[int, Callable[[int, int], bool]] = {  # opcode -> whether it jumps
    0x05: lambda _to, _immediate: True,  # ja
    0x16: lambda to, immediate: to == immediate & 0xFFFFFFFF,  # jeq32
    0x25: lambda to, immediate: to > immediate,  # jgt
    0x45: lambda to, immediate: to & immediate != 0,  # jset
    0x55: lambda to, immediate: to != immediate,  # jne
    0xA5: lambda to, immediate: to < immediate,  # jlt
}


def answer(code: bytes, kind: str, major: int, minor: int, wanted: str) -> int:
    """Runs it on a struct bpf_cgroup_dev_ctx, as the kernel's documentation has the instructions."""
    context = struct.pack("=III", sum(WORDS[w] for w in wanted) << 16 | KINDS[kind], major, minor)
    registers, at = [0] * 11, 0
    instructions = list(INSTRUCTION.iter_unpack(code))
    while True:
        opcode, pair, offset, immediate = instructions[at]
        to, source = pair & 15, pair >> 4
        at += 1
        if opcode == 0x61:  # ldxw
            assert registers[source] == 0, "only the context is read"
            (registers[to],) = struct.unpack_from("=I", context, offset)
        elif opcode in ARITHMETIC:
            registers[to] = ARITHMETIC[opcode](registers[to], immediate, registers[source])
        elif opcode in COMPARISONS:
            at += offset if COMPARISONS[opcode](registers[to], immediate) else 0
        else:
            assert opcode == 0x95, hex(opcode)  # exit
            return registers[0]


@given(st.lists(rules, max_size=8), st.sampled_from("cb"), numbers, numbers, accesses)
def test_it_allows_what_a_rule_allows_and_nothing_else(
    some: list[Rule], kind: str, major: int, minor: int, wanted: str
) -> None:
    some = [*some, Rule(kind, major + 1, minor), Rule(kind, major, minor + 1)]
    expected = any(
        rule.kind == kind and rule.major == major and rule.minor in (None, minor) and set(wanted) <= set(rule.access)
        for rule in some
    )
    assert answer(program(some), kind, major, minor, wanted) == expected


def test_every_container_has_these_and_no_more() -> None:
    code = program(ALWAYS)
    allowed = [n for n in range(256) if answer(code, "c", 1, n, "rwm")]
    assert allowed == [3, 5, 7, 8, 9]  # null, zero, full, random, urandom
    assert [n for n in range(256) if answer(code, "c", 5, n, "rwm")] == [0, 2]  # tty, ptmx
    assert [n for n in range(256) if answer(code, "c", n, 200, "r")] == list(range(136, 144))  # pts
    assert not any(answer(code, "c", 136, 0, wanted) for wanted in ("m", "rm"))
    assert not any(answer(code, "b", major, 0, wanted) for major in range(256) for wanted in ("r", "w", "m"))
