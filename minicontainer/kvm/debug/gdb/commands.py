"""What a client asks of a machine that stands, and what it is told (GDB manual, "Packets"). No sockets, no threads.

Threads are processors, numbered from 1. A packet that is unknown, or whose form is not as the manual has it, gets the
empty reply, which means "not supported"; one that cannot be done gets ``E`` and an errno.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from minicontainer.errors import Error
from minicontainer.kvm.debug.gdb.packets import SIZE_MAX
from minicontainer.kvm.memory import GuestMemoryError

OK, NOT_SUPPORTED = b"OK", b""
FEATURES = b"PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;swbreak+;hwbreak+;vContSupported+" % SIZE_MAX
SIGINT, SIGTRAP = 2, 5  # in gdb's own numbering (gdb/signals.def)
STEP, CONTINUE = "step", "continue"
KINDS = {b"0": "swbreak", b"1": "hwbreak"}
THREAD = rb"(-1|[0-9a-f]{1,8})"
WORD = rb"([0-9a-f]{1,16})"
COUNT = rb"([0-9a-f]{1,8})"


class Stop(NamedTuple):
    """Why a machine stands: the processor that it is about, gdb's signal, and the kind of breakpoint."""

    number: int
    signal: int = SIGTRAP
    kind: str = ""


class Resume(NamedTuple):
    """The client lets the machine go on: what each processor is to do; one that is not named stays."""

    actions: dict[int, str]


class Leave(NamedTuple):
    """The client has had enough. ``kill``: and so has the machine."""

    reply: bytes = OK
    kill: bool = False


class Target(Protocol):
    """A machine that stands, as the commands see it. Numbers of processors are from 0."""

    def processors(self) -> Sequence[int]:
        """Their numbers."""

    def describe(self, number: int) -> str:
        """What a processor is doing, for people."""

    def description(self) -> bytes:
        """target.xml."""

    def read_registers(self, number: int) -> bytes:
        """All, in the description's order."""

    def write_registers(self, number: int, raw: bytes) -> None:
        """All."""

    def read_register(self, number: int, register: int) -> bytes:
        """One. IndexError where there is none."""

    def write_register(self, number: int, register: int, raw: bytes) -> None:
        """One."""

    def jump(self, number: int, address: int) -> None:
        """Sets rip."""

    def read(self, number: int, address: int, length: int) -> bytes:
        """Memory, as far as there is any."""

    def write(self, number: int, address: int, data: bytes) -> None:
        """Memory."""

    def add_breakpoint(self, address: int, kind: str) -> None:
        """From the next resume on."""

    def remove_breakpoint(self, address: int, kind: str) -> None:
        """One that is not there is no mistake."""


Reply = bytes | Resume | Leave


class Commands:
    """One client's conversation: the threads that it has chosen, and what it understands."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._chosen = 0  # the processor that registers and memory are asked of
        self._stepped: int | None = None  # that `s` and `c` are about; None: all
        self._kinds: set[str] = set()  # the client knows what these mean in a stop's reply
        self.stop = Stop(0, SIGTRAP)

    def answer(self, packet: bytes) -> Reply:
        """The reply to a packet."""
        for pattern, function in COMMANDS:
            found = pattern.fullmatch(packet)
            if found:
                return self._tried(function, found.groups())
        return NOT_SUPPORTED

    def _tried(self, function: Callable[..., Reply], groups: tuple[bytes, ...]) -> Reply:
        try:
            return function(self, *groups)
        except GuestMemoryError:
            return _error(errno.EFAULT)
        except OSError as error:
            return _error(error.errno or errno.EIO)
        except (Error, ValueError, OverflowError, IndexError):
            return _error(errno.EINVAL)

    def stopped(self, stop: Stop) -> bytes:
        """The reply that tells of a stop."""
        self.stop, self._chosen = stop, stop.number
        return self._why()

    def _why(self) -> bytes:
        number, signal, kind = self.stop
        return b"T%02xthread:%x;%b" % (signal, number + 1, kind.encode() + b":;" if kind in self._kinds else b"")

    # ---- the client, and its threads

    def _supported(self, features: bytes) -> bytes:
        self._kinds = {kind for kind in KINDS.values() if kind.encode() + b"+" in features.split(b";")}
        return FEATURES

    def _description(self, offset: bytes, length: bytes) -> bytes:
        start, most = int(offset, 16), min(int(length, 16), SIZE_MAX // 2)
        document = self._target.description()
        part = document[start : start + most]
        return (b"l" if start + most >= len(document) else b"m") + part

    def _choose(self, operation: bytes, thread: bytes) -> bytes:
        number = self._number(thread)
        if operation == b"g":
            self._chosen = self.stop.number if number is None else number
        else:
            self._stepped = number
        return OK

    def _number(self, thread: bytes) -> int | None:
        """The processor of a thread id; None for "any" and "all"."""
        identity = int(thread, 16)
        if identity <= 0:
            return None
        if identity - 1 not in self._target.processors():
            raise IndexError(identity)
        return identity - 1

    def _is_alive(self, thread: bytes) -> bytes:
        self._number(thread)
        return OK

    def _threads(self) -> bytes:
        return b"m" + b",".join(b"%x" % (number + 1) for number in self._target.processors())

    def _extra(self, thread: bytes) -> bytes:
        return self._target.describe(self._number(thread) or 0).encode().hex().encode()

    # ---- registers and memory

    def _read_registers(self) -> bytes:
        return _hex(self._target.read_registers(self._chosen))

    def _write_registers(self, data: bytes) -> bytes:
        self._target.write_registers(self._chosen, _bytes(data))
        return OK

    def _read_register(self, register: bytes) -> bytes:
        return _hex(self._target.read_register(self._chosen, int(register, 16)))

    def _write_register(self, register: bytes, data: bytes) -> bytes:
        self._target.write_register(self._chosen, int(register, 16), _bytes(data))
        return OK

    def _read(self, address: bytes, length: bytes) -> bytes:
        return _hex(self._target.read(self._chosen, int(address, 16), min(int(length, 16), SIZE_MAX // 2)))

    def _write(self, address: bytes, length: bytes, data: bytes) -> bytes:
        return self._write_bytes(address, length, _bytes(data))

    def _write_bytes(self, address: bytes, length: bytes, data: bytes) -> bytes:
        if len(data) != int(length, 16):
            raise ValueError(data)
        self._target.write(self._chosen, int(address, 16), data)
        return OK

    # ---- running

    def _add_breakpoint(self, kind: bytes, address: bytes) -> bytes:
        self._target.add_breakpoint(int(address, 16), KINDS[kind])
        return OK

    def _remove_breakpoint(self, kind: bytes, address: bytes) -> bytes:
        self._target.remove_breakpoint(int(address, 16), KINDS[kind])
        return OK

    def _go(self, how: bytes, address: bytes | None) -> Resume:
        """``c`` and ``s``, with a signal or not: the guest knows no signals. The others go on in both."""
        number = self.stop.number if self._stepped is None else self._stepped
        if address:
            self._target.jump(number, int(address, 16))
        actions = dict.fromkeys(self._target.processors(), CONTINUE)
        if how in b"sS":
            actions[number] = STEP
        return Resume(actions)

    def _go_each(self, text: bytes) -> Resume:
        """``vCont``: for each thread the leftmost action that names it."""
        actions: dict[int, str] = {}
        for part in text.split(b";"):
            action, _, thread = part.partition(b":")
            number = self._number(thread) if thread else None
            for each in self._target.processors() if number is None else (number,):
                actions.setdefault(each, STEP if action[:1] in b"sS" else CONTINUE)
        return Resume(actions)


def _error(number: int) -> bytes:
    return b"E%02x" % (number & 0xFF)


def _hex(data: bytes) -> bytes:
    return data.hex().encode("ascii")


def _bytes(data: bytes) -> bytes:
    return bytes.fromhex(data.decode("ascii"))


ACTION = rb"(?:[cs]|[CS][0-9a-f]{2})(?::(?:-1|[0-9a-f]{1,8}))?"
TABLE: dict[bytes, Callable[..., Reply]] = {
    rb"\?": lambda s: s._why(),
    rb"qSupported(?::(.*))?": lambda s, features: s._supported(features or b""),
    rb"qXfer:features:read:target\.xml:" + COUNT + b"," + COUNT: Commands._description,
    rb"H([gc])" + THREAD: Commands._choose,
    rb"T" + THREAD: Commands._is_alive,
    rb"qC": lambda s: b"QC%x" % (s._chosen + 1),
    rb"qfThreadInfo": Commands._threads,
    rb"qsThreadInfo": lambda _: b"l",
    rb"qThreadExtraInfo," + THREAD: Commands._extra,
    rb"qAttached(?::.*)?": lambda _: b"1",  # the machine was there before: at its own end the client detaches
    rb"g": Commands._read_registers,
    rb"G((?:[0-9a-f]{2})+)": Commands._write_registers,
    rb"p" + COUNT: Commands._read_register,
    rb"P" + COUNT + rb"=((?:[0-9a-f]{2})+)": Commands._write_register,
    rb"m" + WORD + b"," + COUNT: Commands._read,
    rb"M" + WORD + b"," + COUNT + rb":((?:[0-9a-f]{2})*)": Commands._write,
    rb"X" + WORD + b"," + COUNT + b":(.*)": Commands._write_bytes,
    rb"Z([01])," + WORD + b",[0-9a-f]+": Commands._add_breakpoint,
    rb"z([01])," + WORD + b",[0-9a-f]+": Commands._remove_breakpoint,
    rb"([cs])" + WORD + b"?": Commands._go,
    rb"([CS])[0-9a-f]{2}(?:;" + WORD + b")?": Commands._go,
    rb"vCont\?": lambda _: b"vCont;c;C;s;S",
    rb"vCont;(" + ACTION + rb"(?:;" + ACTION + rb")*)": Commands._go_each,
    rb"D(?:;.*)?": lambda _: Leave(),
    rb"k": lambda _: Leave(b"", kill=True),
    rb"vKill;.*": lambda _: Leave(OK, kill=True),
}
COMMANDS = [(re.compile(pattern, re.DOTALL), function) for pattern, function in TABLE.items()]
