"""The packets of a client and their replies, for a stopped machine (GDB manual, "Packets"). No sockets, no threads.

gdb's threads are processors, numbered from 1. The reply to an unknown or malformed packet is empty, which means "not
supported"; a command that fails is answered with ``E`` and an errno.
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
SIGINT, SIGTRAP = 2, 5  # gdb's numbers (gdb/signals.def)
STEP, CONTINUE = "step", "continue"
KINDS = {b"0": "swbreak", b"1": "hwbreak"}
THREAD = rb"(-1|[0-9a-f]{1,8})"
WORD = rb"([0-9a-f]{1,16})"
COUNT = rb"([0-9a-f]{1,8})"


class Stop(NamedTuple):
    """Why a machine has stopped: the processor, gdb's signal, and the kind of breakpoint."""

    number: int
    signal: int = SIGTRAP
    kind: str = ""


class Resume(NamedTuple):
    """The client resumes the machine. ``actions``: by processor; a processor without an action stays stopped."""

    actions: dict[int, str]


class Disconnect(NamedTuple):
    """The client disconnects. ``kill``: the machine ends too."""

    reply: bytes = OK
    kill: bool = False


class Target(Protocol):
    """A stopped machine. Processors are numbered from 0."""

    def processors(self) -> Sequence[int]:
        """Their numbers."""

    def describe(self, number: int) -> str:
        """The state of a processor as text."""

    def description(self) -> bytes:
        """target.xml."""

    def read_registers(self, number: int) -> bytes:
        """All registers, in the order of target.xml."""

    def write_registers(self, number: int, raw: bytes) -> None:
        """All registers."""

    def read_register(self, number: int, register: int) -> bytes:
        """One register. IndexError: there is no such register."""

    def write_register(self, number: int, register: int, raw: bytes) -> None:
        """One register."""

    def jump(self, number: int, address: int) -> None:
        """Sets rip."""

    def read(self, number: int, address: int, length: int) -> bytes:
        """Memory, up to the first byte that is not mapped."""

    def write(self, number: int, address: int, data: bytes) -> None:
        """Writes memory."""

    def add_breakpoint(self, address: int, kind: str) -> None:
        """Sets a breakpoint; it is active from the next resume on."""

    def remove_breakpoint(self, address: int, kind: str) -> None:
        """Removes a breakpoint; no error if there is none."""


Reply = bytes | Resume | Disconnect


class Commands:
    """The state of one client: its selected threads, and the features that it supports."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._general_thread = 0  # the processor of `Hg`: for registers and memory
        self._continue_thread: int | None = None  # the processor of `Hc`: for `s` and `c`; None: all
        self._kinds: set[str] = set()  # stop reasons that the client supports
        self.stop = Stop(0, SIGTRAP)

    def answer(self, packet: bytes) -> Reply:
        """The reply to a packet."""
        for pattern, function in COMMANDS:
            match = pattern.fullmatch(packet)
            if match:
                return self._call(function, match.groups())
        return NOT_SUPPORTED

    def _call(self, function: Callable[..., Reply], groups: tuple[bytes, ...]) -> Reply:
        try:
            return function(self, *groups)
        except GuestMemoryError:
            return _error(errno.EFAULT)
        except OSError as error:
            return _error(error.errno or errno.EIO)
        except (Error, ValueError, OverflowError, IndexError):
            return _error(errno.EINVAL)

    def stopped(self, stop: Stop) -> bytes:
        """The stop reply."""
        self.stop, self._general_thread = stop, stop.number
        return self._stop_reply()

    def _stop_reply(self) -> bytes:
        number, signal, kind = self.stop
        return b"T%02xthread:%x;%b" % (signal, number + 1, kind.encode() + b":;" if kind in self._kinds else b"")

    # ---- features and threads

    def _supported(self, features: bytes) -> bytes:
        self._kinds = {kind for kind in KINDS.values() if kind.encode() + b"+" in features.split(b";")}
        return FEATURES

    def _description(self, offset: bytes, length: bytes) -> bytes:
        start, most = int(offset, 16), min(int(length, 16), SIZE_MAX // 2)
        document = self._target.description()
        part = document[start : start + most]
        return (b"l" if start + most >= len(document) else b"m") + part

    def _set_thread(self, operation: bytes, thread: bytes) -> bytes:
        number = self._number(thread)
        if operation == b"g":
            self._general_thread = self.stop.number if number is None else number
        else:
            self._continue_thread = number
        return OK

    def _number(self, thread: bytes) -> int | None:
        """The processor of a thread id; None: "any" or "all"."""
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

    def _thread_info(self, thread: bytes) -> bytes:
        return self._target.describe(self._number(thread) or 0).encode().hex().encode()

    # ---- registers and memory

    def _read_registers(self) -> bytes:
        return _hex(self._target.read_registers(self._general_thread))

    def _write_registers(self, data: bytes) -> bytes:
        self._target.write_registers(self._general_thread, _bytes(data))
        return OK

    def _read_register(self, register: bytes) -> bytes:
        return _hex(self._target.read_register(self._general_thread, int(register, 16)))

    def _write_register(self, register: bytes, data: bytes) -> bytes:
        self._target.write_register(self._general_thread, int(register, 16), _bytes(data))
        return OK

    def _read(self, address: bytes, length: bytes) -> bytes:
        return _hex(self._target.read(self._general_thread, int(address, 16), min(int(length, 16), SIZE_MAX // 2)))

    def _write(self, address: bytes, length: bytes, data: bytes) -> bytes:
        return self._write_bytes(address, length, _bytes(data))

    def _write_bytes(self, address: bytes, length: bytes, data: bytes) -> bytes:
        if len(data) != int(length, 16):
            raise ValueError(data)
        self._target.write(self._general_thread, int(address, 16), data)
        return OK

    # ---- running

    def _add_breakpoint(self, kind: bytes, address: bytes) -> bytes:
        self._target.add_breakpoint(int(address, 16), KINDS[kind])
        return OK

    def _remove_breakpoint(self, kind: bytes, address: bytes) -> bytes:
        self._target.remove_breakpoint(int(address, 16), KINDS[kind])
        return OK

    def _continue_or_step(self, action: bytes, address: bytes | None) -> Resume:
        """``c``, ``s``, ``C``, ``S``: the signal is ignored, since a guest has none. The other processors continue."""
        number = self.stop.number if self._continue_thread is None else self._continue_thread
        if address:
            self._target.jump(number, int(address, 16))
        actions = dict.fromkeys(self._target.processors(), CONTINUE)
        if action in b"sS":
            actions[number] = STEP
        return Resume(actions)

    def _vcont(self, text: bytes) -> Resume:
        """``vCont``: the leftmost action that matches a thread applies to it."""
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
    rb"\?": lambda s: s._stop_reply(),
    rb"qSupported(?::(.*))?": lambda s, features: s._supported(features or b""),
    rb"qXfer:features:read:target\.xml:" + COUNT + b"," + COUNT: Commands._description,
    rb"H([gc])" + THREAD: Commands._set_thread,
    rb"T" + THREAD: Commands._is_alive,
    rb"qC": lambda s: b"QC%x" % (s._general_thread + 1),
    rb"qfThreadInfo": Commands._threads,
    rb"qsThreadInfo": lambda _: b"l",
    rb"qThreadExtraInfo," + THREAD: Commands._thread_info,
    rb"qAttached(?::.*)?": lambda _: b"1",  # 1: gdb has attached to an existing machine, and detaches when it quits
    rb"g": Commands._read_registers,
    rb"G((?:[0-9a-f]{2})+)": Commands._write_registers,
    rb"p" + COUNT: Commands._read_register,
    rb"P" + COUNT + rb"=((?:[0-9a-f]{2})+)": Commands._write_register,
    rb"m" + WORD + b"," + COUNT: Commands._read,
    rb"M" + WORD + b"," + COUNT + rb":((?:[0-9a-f]{2})*)": Commands._write,
    rb"X" + WORD + b"," + COUNT + b":(.*)": Commands._write_bytes,
    rb"Z([01])," + WORD + b",[0-9a-f]+": Commands._add_breakpoint,
    rb"z([01])," + WORD + b",[0-9a-f]+": Commands._remove_breakpoint,
    rb"([cs])" + WORD + b"?": Commands._continue_or_step,
    rb"([CS])[0-9a-f]{2}(?:;" + WORD + b")?": Commands._continue_or_step,
    rb"vCont\?": lambda _: b"vCont;c;C;s;S",
    rb"vCont;(" + ACTION + rb"(?:;" + ACTION + rb")*)": Commands._vcont,
    rb"D(?:;.*)?": lambda _: Disconnect(),
    rb"k": lambda _: Disconnect(b"", kill=True),
    rb"vKill;.*": lambda _: Disconnect(OK, kill=True),
}
COMMANDS = [(re.compile(pattern, re.DOTALL), function) for pattern, function in TABLE.items()]
