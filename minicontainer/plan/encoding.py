"""Steps as the flat buffer that C walks (struct mc_plan in ``csrc/plan/native.h``): header, steps, bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from minicontainer.errors import SpecError
from minicontainer.native import ffi, lib
from minicontainer.plan.step import Slot, Step, os_bytes

KINDS = {"imm": lib.MC_IMM, "bytes": lib.MC_BYTES, "slot": lib.MC_SLOT}
HEADER = struct.Struct("=IIIIII")  # struct mc_plan
STEP = struct.Struct("=HHhHHHI6Q")  # struct mc_step
EXECS = (lib.MC_EXEC, lib.MC_EXEC_FD)

if HEADER.size != ffi.sizeof("struct mc_plan") or STEP.size != ffi.sizeof("struct mc_step"):
    raise ImportError("minicontainer: encoding.py and native.h disagree about the layout of a plan")


class Encoded(NamedTuple):
    """A plan in the form that C walks.

    slots     name -> index: the inputs first, then each step's ``into``
    nstrings  the most pointers that one exec step needs, the two NULLs included
    ops       each step's enum mc_op
    """

    buffer: bytes
    slots: dict[str, int]
    nstrings: int
    ops: tuple[int, ...]


def encode(steps: Sequence[Step], inputs: Sequence[str]) -> Encoded:
    """Encodes a plan. SpecError: a step cannot be encoded; the message names it."""
    names = [*inputs, *(str(s.into) for s in steps if s.into)]
    slots = {name: i for i, name in enumerate(dict.fromkeys(names))}
    nstrings = max(map(_strings, steps), default=0)
    return Encoded(
        _Encoder(steps, slots, set(inputs)).encode(nstrings), slots, nstrings, tuple(step.op for step in steps)
    )


def _strings(step: Step) -> int:
    """The number of pointers that a step needs."""
    if step.op == lib.MC_RUN:
        return len(step.args[1]) + 1  # type: ignore[arg-type]
    return len(step.args[1]) + len(step.args[2]) + 2 if step.op in EXECS else 0  # type: ignore[arg-type]


class _Encoder:
    """Encodes steps: header, steps, bytes. ``filled``: the slots that hold a descriptor before the current step."""

    def __init__(self, steps: Sequence[Step], slots: dict[str, int], filled: set[str]) -> None:
        self.steps, self.slots, self.filled = steps, slots, filled
        self.base = HEADER.size + STEP.size * len(steps)
        self.tail = bytearray()
        self.offsets: dict[bytes, int] = {}

    def encode(self, nstrings: int) -> bytes:
        steps = b"".join(map(self.step, self.steps))
        self.tail += b"\0"
        size = self.base + len(self.tail)
        head = HEADER.pack(lib.MC_PLAN_MAGIC, size, len(self.steps), len(self.slots), nstrings, 0)
        return head + steps + bytes(self.tail)

    def put(self, data: bytes) -> int:
        """The offset of ``data`` in the buffer, NUL-terminated and aligned; equal bytes are stored once."""
        if data not in self.offsets:
            self.tail += b"\0" * (-(self.base + len(self.tail)) % 8)
            self.offsets[data] = self.base + len(self.tail)
            self.tail += data + b"\0"
        return self.offsets[data]

    def arg(self, value: object) -> tuple[int, int]:
        """(kind, 64-bit value) of one argument."""
        if value is None:
            return KINDS["imm"], 0
        if isinstance(value, Slot):
            if value not in self.filled:
                raise ValueError(f"<{value}> is neither an input nor made by an earlier step")
            return KINDS["slot"], self.slots[value]
        if isinstance(value, str):
            return KINDS["bytes"], self.put(os_bytes(value))
        if isinstance(value, bytes):
            return KINDS["bytes"], self.put(value)
        if isinstance(value, int) and -(2**63) <= value < 2**64:
            return KINDS["imm"], value & 0xFFFFFFFFFFFFFFFF
        raise ValueError(f"no system call takes {value!r}")

    def arguments(self, step: Step) -> list[tuple[int, int]]:
        """The step's arguments in C's order; for exec: path(s), argv, argc, envp, envc; for a run: path, argv, argc,
        pid, stderr."""
        if step.op == lib.MC_FAIL:
            return []
        if step.op == lib.MC_RUN:
            path, argv, pid, stderr = step.args
            return [self.arg(path), self.strings(argv), self.arg(len(argv)), self.arg(pid), self.arg(stderr)]  # type: ignore[arg-type]
        if step.op not in EXECS:
            return [self.arg(a) for a in step.args]
        target, argv, envp = step.args
        first = self.arg(target) if step.op == lib.MC_EXEC_FD else self.strings(target)
        return [first, self.strings(argv), self.arg(len(argv)), self.strings(envp), self.arg(len(envp))]  # type: ignore[arg-type]

    def strings(self, items: object) -> tuple[int, int]:
        joined = b"\0".join(os_bytes(i) for i in items)  # type: ignore[attr-defined]
        return KINDS["bytes"], self.put(joined)

    def step(self, step: Step) -> bytes:
        try:
            arguments = self.arguments(step)
            kinds = sum(kind << (2 * i) for i, (kind, _) in enumerate(arguments))
            values = [value for _, value in arguments] + [0] * (lib.MC_ARGS - len(arguments))
            out = self.slots[step.into] if step.into else -1
            tolerate = [*step.tolerate, *[0] * (2 - len(step.tolerate))]
            packed = STEP.pack(step.op, kinds, out, step.skip, *tolerate, step.nr, *values)
        except (ValueError, struct.error) as e:
            reason = str(e) if not isinstance(e, struct.error) else "has more or larger parts than a step can hold"
            raise SpecError("step", step.describe(), reason) from None
        self.filled |= {step.into} if step.into else set()
        return packed
