"""Classic BPF for seccomp(2): evaluates a filter, and optimizes it to a shorter one with the same results.

Theory of operation of ``optimize``. The kernel loads a filter at the start of each container, in time linear in its
instructions. A filter of libseccomp compares the architecture, then the system call number with one constant after the
other, and then returns, or examines arguments. Up to there its result depends on these two numbers only, and is the
same for all numbers between two neighbouring constants. So the filter is evaluated once per interval between constants;
adjacent intervals with the same result are merged, and a binary search over them is emitted. The code that examines
arguments is copied unchanged.
"""

from __future__ import annotations

import struct

from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import NamedTuple, TypeVar

    T = TypeVar("T")
else:
    from minicontainer.records import NamedTuple

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
NEAR = 250  # instructions; a conditional jump reaches at most 255
WORDS = 2**32


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


class Outcome(NamedTuple):
    """The state after the part of a program that depends on architecture and number only: a result (``answer``), or the
    index ``at`` of the instruction that loads something else."""

    answer: int
    at: int = -1


Table = tuple[tuple[int, Outcome], ...]  # (first number of an interval, its outcome)


def parse(program: bytes) -> list[Instruction]:
    """struct sock_filter[]."""
    return [Instruction(*fields) for fields in INSTRUCTION.iter_unpack(program)]


def pack(instructions: Iterable[Sequence[int]]) -> bytes:
    """struct sock_filter[] of (code, jt, jf, k)."""
    return b"".join(INSTRUCTION.pack(*i) for i in instructions)


def evaluate(program: bytes, number: int, arch: int, arguments: Sequence[int] = ()) -> int:
    """The result (SECCOMP_RET_*) of ``program`` for system call ``number`` of ``arch`` (AUDIT_ARCH_*).

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


def constant_answer(program: bytes, number: int, arch: int) -> int | None:
    """The result of ``program`` for call ``number`` of ``arch`` if it does not depend on the arguments, else None; None
    also for a program with instructions that libseccomp does not use."""
    try:
        outcome = _run(_View(program), arch, number)
    except (KeyError, struct.error):  # an unknown instruction, or one beyond the end
        return None
    return outcome.answer if outcome.at < 0 else None


class _View:
    """The instructions of a program, each decoded at its access."""

    def __init__(self, program: bytes) -> None:
        self.program = program

    def __getitem__(self, pc: int) -> tuple[int, int, int, int]:
        code, jt, jf, k = INSTRUCTION.unpack_from(self.program, pc * INSTRUCTION.size)
        return code, jt, jf, k


def answer_newer(newest: Iterable[tuple[int, int]], answer: int, program: bytes) -> bytes:
    """``program``, preceded by code that returns ``answer`` for each call number above the ``newest`` one of its
    architecture: (architecture, number). x32 numbers are those of x86_64 with X32_SYSCALL_BIT."""
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


def optimize(program: bytes) -> bytes:
    """A shorter program with the same result for every call, or ``program`` itself."""
    instructions = parse(program)
    held = _accumulator(instructions)
    if held is None:
        return program
    tests = [(what, i.k) for i, what in zip(instructions, held, strict=True) if i.code in TESTS]
    arches = _intervals(k for what, k in tests if what == ARCH)
    numbers = list(_intervals(k for what, k in tests if what == NR))
    tables = ((arch, tuple(_merged((nr, _run(instructions, arch, nr)) for nr in numbers))) for arch in arches)
    return min(_Writer(instructions).program(_merged(tables)), program, key=len)


def _accumulator(instructions: list[Instruction]) -> list[int | None] | None:
    """The content of the accumulator at each instruction: ARCH, NR, or None for anything else. None instead of a list
    if a comparison uses an accumulator whose content is ambiguous or computed, which libseccomp does not emit."""
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
    """Indices of the instructions that may follow this one."""
    if i.code == RETURN:
        return ()
    if i.code == JUMP:
        return (pc + 1 + i.k,)
    return (pc + 1 + i.jt, pc + 1 + i.jf) if i.code in TESTS else (pc + 1,)


def _intervals(constants: Iterable[int]) -> Iterator[int]:
    """The first value of each interval whose values compare equally with all ``constants``."""
    yield from sorted({0, *(k + more for k in constants for more in (0, 1) if k + more < WORDS)})


def _run(instructions: list[Instruction] | _View, arch: int, number: int) -> Outcome:
    """Run until a result, or until anything but architecture or number is loaded."""
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
    """Merge adjacent intervals with the same outcome."""
    merged: list[tuple[int, T]] = []
    for first, outcome in intervals:
        if not merged or merged[-1][1] != outcome:
            merged.append((first, outcome))
    return merged


class _Writer:
    """Emits a program backwards, so that the target of each jump is emitted before the jump. Positions are counted from
    the end."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self.old = instructions
        self.code: list[Sequence[int]] = []
        self.returns: dict[int, int] = {}
        self.copied: dict[int, int] = {}  # position of each old instruction that is copied

    def program(self, arches: list[tuple[int, Table]]) -> bytes:
        """The whole program, from (first architecture of an interval, its table)."""
        self._copy({outcome.at for _, table in arches for _, outcome in table if outcome.at >= 0})
        tables = {table: self._table(table) for table in dict.fromkeys(table for _, table in arches)}
        self._enter(self._search([(first, tables[table]) for first, table in arches]))
        self.code.append((LOAD, 0, 0, ARCH))
        return pack(reversed(self.code))

    def _table(self, table: Table) -> int:
        """Emit the code for one architecture."""
        entries = [(first, self._leaf(outcome)) for first, outcome in table]
        if len(entries) == 1:
            return entries[0][1]
        self._enter(self._search(entries))
        return self._add(LOAD, 0, 0, NR)

    def _copy(self, entries: set[int]) -> None:
        """Copy the instructions that are reachable from ``entries``."""
        needed = set(entries)
        for pc, i in enumerate(self.old):
            if pc in needed:
                needed.update(_targets(pc, i))
        for pc in sorted(needed, reverse=True):
            i = self.old[pc]
            if i.code == RETURN:
                self.copied[pc] = self._return(i.k)
            elif i.code in TESTS:
                yes, no = self._near(*(self.copied[t] for t in _targets(pc, i)))
                self.copied[pc] = self._branch(i.code, i.k, yes, no)
            else:
                self._enter(self.copied[_targets(pc, i)[0]])
                self.copied[pc] = len(self.code) - 1 if i.code == JUMP else self._add(*i)

    def _leaf(self, outcome: Outcome) -> int:
        return self.copied[outcome.at] if outcome.at >= 0 else self._return(outcome.answer)

    def _search(self, entries: list[tuple[int, int]]) -> int:
        """Emit a binary search over (first value, position)."""
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
        """The position of a return of ``answer``; a new one if the last is out of reach."""
        if answer not in self.returns or len(self.code) - self.returns[answer] > NEAR:
            self.returns[answer] = self._add(RETURN, 0, 0, answer)
        return self.returns[answer]

    def _near(self, *places: int) -> tuple[int, ...]:
        """The positions, replaced by unconditional jumps if out of reach of a conditional jump."""
        return tuple(p if len(self.code) - p <= NEAR else self._add(JUMP, 0, 0, len(self.code) - p - 1) for p in places)

    def _branch(self, code: int, k: int, yes: int, no: int) -> int:
        here = len(self.code)
        return self._add(code, here - yes - 1, here - no - 1, k)

    def _enter(self, place: int) -> None:
        """Make the next emitted instruction continue at ``place``."""
        if place != len(self.code) - 1:
            self._add(JUMP, 0, 0, len(self.code) - place - 1)
