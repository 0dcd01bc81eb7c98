"""Classic BPF as seccomp(2) runs it: what a program answers to a call, and a shorter program with the same answers.

Theory of operation of ``shorter``. Loading a filter costs time with each instruction, so with each container. A
program of libseccomp compares the architecture, then the number of the call, one call at a time, and returns, or goes
on to look at arguments. All that its answer depends on until then is those two numbers, and between two constants that
they are compared with it cannot change. So the program is run once for each such interval; neighbours with one answer
become one interval, and a binary search over those is what is written. The code for arguments is kept as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from minicontainer.native import lib

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
LOAD, RETURN, JUMP, AND = 0x20, 0x06, 0x05, 0x54  # BPF_LD|BPF_W|BPF_ABS, BPF_RET|BPF_K, BPF_JMP|BPF_JA, BPF_ALU|BPF_AND
JUMP_EQUAL, JUMP_ABOVE, JUMP_AT_LEAST, JUMP_SET = 0x15, 0x25, 0x35, 0x45  # BPF_JMP|BPF_JEQ|BPF_K, JGT, JGE, JSET
NR, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
DATA = struct.Struct("=iIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args
TESTS: dict[int, Callable[[int, int], bool]] = {
    JUMP_EQUAL: lambda a, k: a == k,
    JUMP_ABOVE: lambda a, k: a > k,
    JUMP_AT_LEAST: lambda a, k: a >= k,
    JUMP_SET: lambda a, k: bool(a & k),
}
INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS
PROGRAM_MAX = INSTRUCTIONS_MAX * INSTRUCTION.size
NEAR = 250  # a conditional jump leads over at most 255 instructions
WORDS = 2**32


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


class Outcome(NamedTuple):
    """Where a program is when all of it that depends on architecture and number has run: at the end, with an answer, or
    at an instruction that looks at something else."""

    answer: int
    at: int = -1


Table = tuple[tuple[int, Outcome], ...]  # (first number of an interval, what comes of it)
T = TypeVar("T")


def parse(program: bytes) -> list[Instruction]:
    """struct sock_filter[]."""
    return [Instruction(*fields) for fields in INSTRUCTION.iter_unpack(program)]


def pack(instructions: Iterable[Sequence[int]]) -> bytes:
    """struct sock_filter[] of (code, jt, jf, k)."""
    return b"".join(INSTRUCTION.pack(*i) for i in instructions)


def decide(program: bytes, number: int, arch: int, arguments: Sequence[int] = ()) -> int:
    """What ``program`` answers (SECCOMP_RET_*) to call ``number`` of ``arch`` (AUDIT_ARCH_*).

    ValueError for an instruction that libseccomp does not use."""
    six = [value % 2**64 for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = DATA.pack(number, arch, 0, *six)
    instructions, pc, a = parse(program), 0, 0
    while True:
        code, jt, jf, k = instructions[pc]
        pc += 1
        if code == RETURN:
            return k
        if code == LOAD:
            (a,) = struct.unpack_from("=I", data, k)
        elif code == AND:
            a &= k
        elif code == JUMP:
            pc += k
        elif code in TESTS:
            pc += jt if TESTS[code](a, k) else jf
        else:
            raise ValueError(f"instruction {pc - 1} has an unknown code {code:#x}")


def decided(program: bytes, number: int, arch: int) -> int | None:
    """What ``program`` answers to call ``number`` of ``arch``, whatever its arguments; None where these count, or where
    it is no program of libseccomp's kind."""
    try:
        outcome = _run(_View(program), arch, number)
    except (KeyError, struct.error):  # an unknown instruction, or beyond the end
        return None
    return outcome.answer if outcome.at < 0 else None


class _View:
    """The instructions of a program, each read when it is asked for."""

    def __init__(self, program: bytes) -> None:
        self.program = program

    def __getitem__(self, pc: int) -> tuple[int, int, int, int]:
        code, jt, jf, k = INSTRUCTION.unpack_from(self.program, pc * INSTRUCTION.size)
        return code, jt, jf, k


def until(newest: Iterable[tuple[int, int]], answer: int, program: bytes) -> bytes:
    """``program``, but ``answer`` to each call that is newer than the ``newest`` of its table: (architecture, number).
    x32 has a table of its own in x86_64: of the numbers that have X32_SYSCALL_BIT."""
    code = list(parse(program))
    for arch, number in newest:
        x32 = lib.X32_SYSCALL_BIT if arch == lib.AUDIT_ARCH_NATIVE else 0
        limits = [(JUMP_ABOVE, 0, 1, number), (RETURN, 0, 0, answer)]
        if x32 and number & x32:
            limits.insert(0, (JUMP_AT_LEAST, 0, 2, x32))
        elif x32:
            limits.insert(0, (JUMP_AT_LEAST, 2, 0, x32))
        table = [(LOAD, 0, 0, ARCH), (JUMP_EQUAL, 0, len(limits) + 1, arch), (LOAD, 0, 0, NR), *limits]
        code = [*(Instruction(*i) for i in table), *code]
    return pack(code)


def shorter(program: bytes) -> bytes:
    """A program with the same answers to every call; ``program`` itself where no shorter one is found."""
    instructions = parse(program)
    held = _held(instructions)
    if held is None:
        return program
    tests = [(what, i.k) for i, what in zip(instructions, held, strict=True) if i.code in TESTS]
    arches = _intervals(k for what, k in tests if what == ARCH)
    numbers = list(_intervals(k for what, k in tests if what == NR))
    tables = ((arch, tuple(_merged((nr, _run(instructions, arch, nr)) for nr in numbers))) for arch in arches)
    return min(_Writer(instructions).program(_merged(tables)), program, key=len)


def _held(instructions: list[Instruction]) -> list[int | None] | None:
    """What is in the accumulator at each instruction: ARCH, NR, or None for anything else. None in all where a program
    does what libseccomp does not: compare one or the other at one place, or compute with them."""
    held: list[set[int | None]] = [set() for _ in instructions]
    held[0] = {None}
    for pc, i in enumerate(instructions):
        now = held[pc]
        if i.code not in (LOAD, RETURN, JUMP, AND, *TESTS) or (i.code == AND and now & {ARCH, NR}):
            return None
        if (i.code in TESTS and len(now) > 1) or (i.code == JUMP_SET and now & {ARCH, NR}):
            return None
        after = {i.k if i.k in (ARCH, NR) else None} if i.code == LOAD else now
        for target in _targets(pc, i):
            held[target] |= after
    return [next(iter(what), None) for what in held]


def _targets(pc: int, i: Instruction) -> tuple[int, ...]:
    """Where an instruction leads."""
    if i.code == RETURN:
        return ()
    if i.code == JUMP:
        return (pc + 1 + i.k,)
    return (pc + 1 + i.jt, pc + 1 + i.jf) if i.code in TESTS else (pc + 1,)


def _intervals(constants: Iterable[int]) -> Iterator[int]:
    """The first value of each interval within which no comparison with ``constants`` can tell two values apart."""
    yield from sorted({0, *(k + more for k in constants for more in (0, 1) if k + more < WORDS)})


def _run(instructions: list[Instruction] | _View, arch: int, number: int) -> Outcome:
    """Runs until the answer, or until something else than these two is loaded."""
    pc, a = 0, 0
    while True:
        code, jt, jf, k = instructions[pc]
        if code == RETURN:
            return Outcome(k)
        if code == LOAD and k not in (ARCH, NR):
            return Outcome(0, pc)
        pc += 1
        if code == LOAD:
            a = arch if k == ARCH else number
        elif code == AND:
            a &= k
        elif code == JUMP:
            pc += k
        else:
            pc += jt if TESTS[code](a, k) else jf


def _merged(intervals: Iterable[tuple[int, T]]) -> list[tuple[int, T]]:
    """Neighbours with the same outcome as one."""
    merged: list[tuple[int, T]] = []
    for first, outcome in intervals:
        if not merged or merged[-1][1] != outcome:
            merged.append((first, outcome))
    return merged


class _Writer:
    """Writes a program from its end to its beginning, so that where a jump leads is there before it. Places are counted
    from the end."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self.old = instructions
        self.code: list[Sequence[int]] = []
        self.returns: dict[int, int] = {}
        self.kept: dict[int, int] = {}  # the place of each old instruction that is needed still

    def program(self, arches: list[tuple[int, Table]]) -> bytes:
        """The whole, of (first architecture of an interval, its numbers)."""
        self._keep({outcome.at for _, table in arches for _, outcome in table if outcome.at >= 0})
        tables = {table: self._table(table) for table in dict.fromkeys(table for _, table in arches)}
        self._enter(self._search([(first, tables[table]) for first, table in arches]))
        self.code.append((LOAD, 0, 0, ARCH))
        return pack(reversed(self.code))

    def _table(self, table: Table) -> int:
        """What follows once the architecture is known."""
        entries = [(first, self._leaf(outcome)) for first, outcome in table]
        if len(entries) == 1:
            return entries[0][1]
        self._enter(self._search(entries))
        return self._add(LOAD, 0, 0, NR)

    def _keep(self, entries: set[int]) -> None:
        """Writes what can be reached from ``entries``, as it is."""
        needed = set(entries)
        for pc, i in enumerate(self.old):
            if pc in needed:
                needed.update(_targets(pc, i))
        for pc in sorted(needed, reverse=True):
            i = self.old[pc]
            if i.code == RETURN:
                self.kept[pc] = self._return(i.k)
            elif i.code in TESTS:
                yes, no = self._near(*(self.kept[t] for t in _targets(pc, i)))
                self.kept[pc] = self._branch(i.code, i.k, yes, no)
            else:
                self._enter(self.kept[_targets(pc, i)[0]])
                self.kept[pc] = len(self.code) - 1 if i.code == JUMP else self._add(*i)

    def _leaf(self, outcome: Outcome) -> int:
        return self.kept[outcome.at] if outcome.at >= 0 else self._return(outcome.answer)

    def _search(self, entries: list[tuple[int, int]]) -> int:
        """A binary search over (first value, place)."""
        if len(entries) == 1:
            return entries[0][1]
        if len(entries) == 3 and entries[0][1] == entries[2][1] and entries[1][0] + 1 == entries[2][0]:
            yes, no = self._near(entries[1][1], entries[0][1])
            return self._branch(JUMP_EQUAL, entries[1][0], yes, no)
        middle = len(entries) // 2
        high, low = self._search(entries[middle:]), self._search(entries[:middle])
        high, low = self._near(high, low)
        return self._branch(JUMP_AT_LEAST, entries[middle][0], high, low)

    # ---- single instructions

    def _add(self, *instruction: int) -> int:
        self.code.append(instruction)
        return len(self.code) - 1

    def _return(self, answer: int) -> int:
        """One for each answer, or another where that is too far."""
        if answer not in self.returns or len(self.code) - self.returns[answer] > NEAR:
            self.returns[answer] = self._add(RETURN, 0, 0, answer)
        return self.returns[answer]

    def _near(self, *places: int) -> tuple[int, ...]:
        """The same places, or jumps there, so that a conditional jump can lead to them."""
        return tuple(p if len(self.code) - p <= NEAR else self._add(JUMP, 0, 0, len(self.code) - p - 1) for p in places)

    def _branch(self, code: int, k: int, yes: int, no: int) -> int:
        here = len(self.code)
        return self._add(code, here - yes - 1, here - no - 1, k)

    def _enter(self, place: int) -> None:
        """The next instruction, which only leads on, leads to ``place``."""
        if place != len(self.code) - 1:
            self._add(JUMP, 0, 0, len(self.code) - place - 1)
