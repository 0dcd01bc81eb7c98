"""Steps as the flat buffer that C walks (struct mc_plan in ``csrc/plan/native.h``): header, steps, bytes."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.native import ffi, lib
from minicontainer.plan.step import Slot, Step, os_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import struct
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    Part = tuple[int, int, tuple[Any, ...], int]  # a step's op, nr, arguments in C's order, and pointers that it needs
else:
    import _struct as struct  # struct is a module of Python that imports it

    from minicontainer.records import NamedTuple

POINTER = ffi.sizeof("char *")
IMM, BYTES, SLOT = lib.MC_IMM, lib.MC_BYTES, lib.MC_SLOT
HEADER = struct.Struct("=IIIIII")  # struct mc_plan
STEP = struct.Struct("=HHhHHHI6Q")  # struct mc_step
ALIGNING = tuple([bytes(-size % 8) for size in range(8)])  # what follows this many bytes, modulo 8
EXECS = (lib.MC_EXEC, lib.MC_EXEC_FD)

if HEADER.size != ffi.sizeof("struct mc_plan") or STEP.size != ffi.sizeof("struct mc_step"):
    raise ImportError("minicontainer: encoding.py and native.h disagree about the layout of a plan")


class Encoded(NamedTuple):
    """A plan in the form that C walks.

    slots     name -> index: the inputs first, then each step's ``into``
    nstrings  the most pointers that one exec step needs, the two NULLs included
    ops       each step's enum mc_op
    room      bytes that one run needs (mc_run_room)
    """

    buffer: bytes
    slots: dict[str, int]
    nstrings: int
    ops: tuple[int, ...]
    room: int


def encode(steps: Sequence[Step], inputs: Sequence[str]) -> Encoded:
    """Encodes a plan. SpecError: a step cannot be encoded; the message names it."""
    names = [*inputs, *(str(s.into) for s in steps if s.into)]
    slots = {name: i for i, name in enumerate(dict.fromkeys(names))}
    nstrings = max(map(_strings, steps), default=0)
    encoder = _Encoder(HEADER.size + STEP.size * len(steps), slots, set(inputs))
    packed = b"".join(map(encoder.step, steps))
    buffer = _buffer(packed, encoder.tail, len(steps), len(slots), nstrings)
    return Encoded(buffer, slots, nstrings, tuple(step.op for step in steps), _room(buffer))


def _buffer(steps: bytes | bytearray, tail: bytearray, nsteps: int, nslots: int, nstrings: int) -> bytes:
    size = HEADER.size + len(steps) + len(tail) + 1
    head = HEADER.pack(lib.MC_PLAN_MAGIC, size, nsteps, nslots, nstrings, 0)
    return b"".join((head, steps, tail, b"\0"))


def _room(buffer: bytes) -> int:
    return int(lib.mc_run_room(ffi.from_buffer("struct mc_plan *", buffer)))


def packed(items: Sequence[str]) -> bytes:
    """A string list as C reads it: each with its NUL, but the last one."""
    try:
        data = "\0".join(items).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = None
    if data is None or data.count(b"\0") != max(len(items) - 1, 0):  # one of them has an error of its own
        data = b"\0".join([os_bytes(item) for item in items])
    return data


def exec_part(target: Any, argv: Sequence[str], envp: Sequence[str]) -> Part:
    """The exec of a descriptor (a number or a slot), or of the first path that exists."""
    pointers = len(argv) + len(envp) + 2
    arguments = packed(argv), len(argv), packed(envp), len(envp)
    if isinstance(target, (list, tuple)):
        return lib.MC_EXEC, len(target), (packed(target), *arguments), pointers
    return lib.MC_EXEC_FD, 0, (target, *arguments), pointers


class Frame:
    """A plan without some of its steps, which are encoded later, and again and again: none of them uses a slot, skips
    others, or tolerates an error."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[str], missing: Sequence[int]) -> None:
        names = [*inputs, *(str(s.into) for s in steps if s.into)]
        self.slots = {name: i for i, name in enumerate(dict.fromkeys(names))}
        kept = [step for i, step in enumerate(steps) if i not in missing]
        self.nstrings, self.ops = max(map(_strings, kept), default=0), tuple(step.op for step in steps)
        encoder = _Encoder(HEADER.size + STEP.size * len(steps), self.slots, set(inputs))
        empty = bytes(STEP.size)
        self.steps = b"".join(empty if i in missing else encoder.step(step) for i, step in enumerate(steps))
        self.tail = bytes(encoder.tail)
        self.room = _room(_buffer(self.steps, bytearray(), len(steps), len(self.slots), 0))  # for no strings

    def parts(self) -> tuple[Any, ...]:
        """All that it is made of, for ``of``."""
        return self.steps, self.tail, self.slots, self.nstrings, self.ops, self.room

    @classmethod
    def of(cls, parts: tuple[Any, ...]) -> Frame:
        """A frame again."""
        frame = cls.__new__(cls)
        frame.steps, frame.tail, frame.slots, frame.nstrings, frame.ops, frame.room = parts
        return frame

    def complete(self, parts: Mapping[int, Part]) -> Encoded:
        """The plan with these steps at the places of the missing ones."""
        steps, tail, nstrings = bytearray(self.steps), bytearray(self.tail), self.nstrings
        base = HEADER.size + len(steps)
        for i, (op, nr, arguments, pointers) in parts.items():
            kinds, values = 0, [0] * lib.MC_ARGS
            for place, value in enumerate(arguments):
                if type(value) is bytes:
                    tail += ALIGNING[(base + len(tail)) % 8]
                    kinds |= BYTES << 2 * place
                    values[place] = base + len(tail)
                    tail += value
                    tail += b"\0"
                else:
                    values[place] = value
            STEP.pack_into(steps, STEP.size * i, op, kinds, -1, 0, 0, 0, nr, *values)
            nstrings = max(nstrings, pointers)
        buffer = _buffer(steps, tail, len(self.ops), len(self.slots), nstrings)
        return Encoded(buffer, self.slots, nstrings, self.ops, self.room + POINTER * nstrings)


def _strings(step: Step) -> int:
    """The number of pointers that a step needs."""
    if step.op == lib.MC_RUN:
        return len(step.args[1]) + 1  # type: ignore[arg-type]
    return exec_part(*step.args)[3] if step.op in EXECS else 0  # type: ignore[arg-type]


class _Encoder:
    """Encodes steps, and collects their bytes in ``tail``, which is at the offset ``base`` of the buffer. ``filled``:
    the slots that hold a descriptor before the current step."""

    def __init__(self, base: int, slots: dict[str, int], filled: set[str]) -> None:
        self.base, self.slots, self.filled = base, slots, filled
        self.tail = bytearray()
        self.offsets: dict[bytes, int] = {}

    def put(self, data: bytes) -> int:
        """The offset of ``data`` in the buffer, NUL-terminated and aligned; equal bytes are stored once."""
        if data not in self.offsets:
            self.tail += ALIGNING[(self.base + len(self.tail)) % 8]
            self.offsets[data] = self.base + len(self.tail)
            self.tail += data + b"\0"
        return self.offsets[data]

    def arg(self, value: object) -> tuple[int, int]:
        """(kind, 64-bit value) of one argument."""
        if value is None:
            return IMM, 0
        if isinstance(value, int) and -(2**63) <= value < 2**64:
            return IMM, value & 0xFFFFFFFFFFFFFFFF
        if type(value) is str:
            return BYTES, self.put(os_bytes(value))
        if isinstance(value, Slot):
            if value not in self.filled:
                raise ValueError(f"<{value}> is neither an input nor made by an earlier step")
            return SLOT, self.slots[value]
        if isinstance(value, str):
            return BYTES, self.put(os_bytes(value))
        if isinstance(value, bytes):
            return BYTES, self.put(value)
        raise ValueError(f"no system call takes {value!r}")

    def arguments(self, step: Step) -> list[tuple[int, int]]:
        """The step's arguments in C's order; for exec: path(s), argv, argc, envp, envc; for a run: path, argv, argc,
        pid, stderr."""
        if step.op == lib.MC_FAIL:
            return []
        if step.op == lib.MC_RUN:
            path, argv, pid, stderr = step.args
            words: Any = argv
            return [self.arg(argument) for argument in (path, packed(words), len(words), pid, stderr)]
        arguments = exec_part(*step.args)[2] if step.op in EXECS else step.args  # type: ignore[arg-type]
        return [self.arg(argument) for argument in arguments]

    def step(self, step: Step) -> bytes:
        try:
            kinds, values = 0, [0] * lib.MC_ARGS
            for i, (kind, value) in enumerate(self.arguments(step)):
                kinds |= kind << (2 * i)
                values[i] = value
            out = self.slots[step.into] if step.into else -1
            tolerate = (*step.tolerate, *(0, 0)[len(step.tolerate) :]) if step.tolerate else (0, 0)
            packed = STEP.pack(step.op, kinds, out, step.skip, *tolerate, step.nr, *values)
        except (ValueError, IndexError, struct.error) as e:
            reason = str(e) if isinstance(e, ValueError) else "has more or larger parts than a step can hold"
            raise SpecError("step", step.describe(), reason) from None
        self.filled |= {step.into} if step.into else set()
        return packed
