"""Programs of classic BPF: what they answer, and that a shorter one answers the same."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from minicontainer.errors import StepError
from minicontainer.linux import bpf, libseccomp
from minicontainer.linux.bpf import AND, ARCH, ARGUMENTS, JUMP, LOAD, NR, RETURN, TESTS, Instruction
from minicontainer.linux.libseccomp import OPERATORS, Condition, Rule
from minicontainer.native import lib

ALLOW, KILL, ERRNO = lib.SECCOMP_RET_ALLOW, lib.SECCOMP_RET_KILL_PROCESS, lib.SECCOMP_RET_ERRNO
HERE = lib.AUDIT_ARCH_NATIVE
OFFSETS = (NR, ARCH, *range(8, 64, 4))  # struct seccomp_data: nr, arch, instruction_pointer, six arguments
NAMES = "read write close clone clone3 socket ioctl personality mount bpf keyctl ptrace futex no_such_call".split()
ACTIONS = st.sampled_from([ALLOW, KILL, ERRNO | 1, ERRNO | 38, lib.SECCOMP_RET_LOG])
VALUES = st.one_of(st.integers(0, 9), st.integers(2**31 - 2, 2**32 + 2), st.integers(0, 2**64 - 1))


def same(program: bytes, other: bytes, calls: Sequence[tuple[int, int, Sequence[int]]]) -> None:
    """The same answer to each (number, architecture, arguments)."""
    for number, arch, arguments in calls:
        answers = [bpf.evaluate(p, number, arch, arguments) for p in (program, other)]
        assert answers[0] == answers[1], (number, hex(arch), arguments, [hex(a) for a in answers])


def around(program: bytes) -> list[int]:
    """The constants of a program, and their neighbours: where its answers can change."""
    return sorted({(i.k + more) % 2**32 for i in bpf.parse(program) for more in (-1, 0, 1)} | {0, 2**31, 2**32 - 1})


def signed(value: int) -> int:
    """A number as struct seccomp_data holds it."""
    return value - 2**32 if value >= 2**31 else value


# ---- programs of libseccomp


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    """Of some calls, with conditions on different arguments, as libseccomp wants them."""
    found = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=12)):
        arguments = draw(st.lists(st.integers(0, 5), unique=True, max_size=3))
        operators = st.sampled_from(OPERATORS)
        conditions = tuple(Condition(a, draw(operators), draw(VALUES), draw(VALUES)) for a in arguments)
        found.append(Rule(name, draw(ACTIONS), conditions))
    plain = {rule.name: rule for rule in found if not rule.conditions}  # one answer to a call, where none is asked for
    return [rule for rule in found if rule.conditions or rule is plain[rule.name]]


@settings(max_examples=60)
@given(rules(), ACTIONS, st.sampled_from([(), ("x86",), ("x86", "x32")]), st.randoms(use_true_random=False))
def test_shorter_answers_the_same(
    wanted: list[Rule], default: int, others: tuple[str, ...], dice: random.Random
) -> None:
    if HERE != lib.AUDIT_ARCH_X86_64:
        others = ()
    try:
        program = libseccomp.compile(default, wanted, others)
    except StepError:  # of rules of one call that contradict each other, where i386 has it by socketcall(2) too
        reject()
    made = bpf.optimize(program)
    assert len(made) <= len(program)
    places = around(program)
    values = [v for c in (c for r in wanted for c in r.conditions) for v in (c.value, c.value ^ 1, c.second)] + places
    calls = []
    for number in places:
        for arch in (HERE, *dice.sample(places, 3)):
            calls.append((signed(number), arch, dice.choices([*values, 2**64 - 1], k=6)))
    same(program, made, calls)


def test_shorter_is_shorter() -> None:
    """Neighbours with one answer are one comparison."""
    names = "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk".split()
    program = libseccomp.compile(ERRNO | 1, [Rule(name, ALLOW) for name in names])
    assert len(bpf.optimize(program)) < len(program) / 2


# ---- any program


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Of the instructions that libseccomp uses, each leading to a later one; and those that it never writes so."""
    length = draw(st.integers(1, 24))
    constants = st.one_of(st.integers(0, 6), st.sampled_from([HERE, HERE - 1, HERE + 1, 2**32 - 1, 2**31]))
    found = []
    for left in range(length, 0, -1):
        kinds = [RETURN] if left == 1 else [LOAD, LOAD, RETURN, JUMP, AND, *TESTS] if left > 2 else [LOAD, RETURN, AND]
        code = draw(st.sampled_from(kinds))
        near = st.integers(0, left - 2) if left > 1 else st.just(0)
        if code in TESTS:
            found.append(Instruction(code, draw(near), draw(near), draw(constants)))
        elif code == LOAD:
            found.append(Instruction(code, 0, 0, draw(st.sampled_from([NR, NR, ARCH, ARCH, *OFFSETS]))))
        elif code == JUMP:
            found.append(Instruction(code, 0, 0, draw(near)))
        else:
            found.append(Instruction(code, 0, 0, draw(ACTIONS if code == RETURN else constants)))
    return bpf.pack(found)


@settings(max_examples=400)
@given(programs(), st.randoms(use_true_random=False))
def test_shorter_of_any_program_answers_the_same(program: bytes, dice: random.Random) -> None:
    made = bpf.optimize(program)
    assert len(made) <= len(program)
    places = around(program)
    numbers = places if len(places) < 12 else dice.sample(places, 12)
    calls = [(signed(n), arch, dice.choices(places, k=6)) for n in numbers for arch in (HERE, *dice.sample(places, 3))]
    same(program, made, calls)


def test_more_than_a_conditional_jump_can_lead_over() -> None:
    """Calls with conditions of their own by the hundred: an outcome is further away than 255 instructions."""
    numbers = range(0, 400, 2)
    code: list[Sequence[int]] = [(LOAD, 0, 0, NR)]
    for number in numbers:
        code += [(0x15, 0, 4, number), (LOAD, 0, 0, ARGUMENTS), (0x15, 0, 1, number + 1)]
        code += [(RETURN, 0, 0, ERRNO | number), (RETURN, 0, 0, KILL)]
    for number in range(1000, 1200):
        code += [(0x15, 0, 1, number), (RETURN, 0, 0, ERRNO)]
    program = bpf.pack([*code, (RETURN, 0, 0, ALLOW)])
    made = bpf.optimize(program)
    assert len(made) < len(program)
    assert len(made) // bpf.INSTRUCTION.size > 255
    same(program, made, [(n, HERE, [a]) for n in (*range(402), 999, 1000, 1199, 1200) for a in (n, n + 1)])


def test_what_it_does_not_know_is_kept_as_it_is() -> None:
    add = bpf.pack([(LOAD, 0, 0, NR), (0x04, 0, 0, 1), (RETURN, 0, 0, ALLOW)])  # BPF_ALU|BPF_ADD|BPF_K
    assert bpf.optimize(add) == add
    with pytest.raises(ValueError, match="instruction 1 has an unknown code 0x4"):
        bpf.evaluate(add, 0, HERE)
    masked = bpf.pack([(LOAD, 0, 0, NR), (AND, 0, 0, 1), (0x15, 0, 1, 1), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)])
    assert bpf.optimize(masked) == masked


# ---- what does not depend on arguments, and where a list ends


def test_what_is_decided_whatever_the_arguments() -> None:
    rules = [Rule("read", ALLOW), Rule("socket", ALLOW, (Condition(0, "EQ", 2),))]
    program = bpf.optimize(libseccomp.compile(ERRNO | 1, rules))
    answers = [bpf.constant_answer(program, libseccomp.number(name), HERE) for name in ("read", "write", "socket")]
    assert answers == [ALLOW, ERRNO | 1, None]
    assert bpf.constant_answer(b"", 0, HERE) is None
    assert bpf.constant_answer(b"\x07" + bytes(7), 0, HERE) is None  # BPF_MISC|BPF_TAX


@settings(max_examples=60)
@given(rules(), st.sampled_from([(), ("x86",), ("x86", "x32")]))
@pytest.mark.skipif(HERE != lib.AUDIT_ARCH_X86_64, reason="of x86_64")
def test_a_list_that_ends(some: list[Rule], others: tuple[str, ...]) -> None:
    try:
        whole = libseccomp.compile(ALLOW, some, others)
    except StepError:  # as above
        reject()
    newest = [libseccomp.newest([rule.name for rule in some], arch) for arch in ("", *others)]
    ended = bpf.answer_newer([pair for pair in newest if pair[1] >= 0], ERRNO | 38, whole)
    last = {(arch, number >= lib.X32_SYSCALL_BIT): number for arch, number in newest if number >= 0}
    for arch in (HERE, 0x40000003):  # AUDIT_ARCH_I386
        for number in around(ended):
            end = last.get((arch, arch == HERE and number >= lib.X32_SYSCALL_BIT), 2**32)
            expected = ERRNO | 38 if number > end else bpf.evaluate(whole, signed(number), arch)
            assert bpf.evaluate(ended, signed(number), arch) == expected
            assert bpf.evaluate(bpf.optimize(ended), signed(number), arch) == expected
