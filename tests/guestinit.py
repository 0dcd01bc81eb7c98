"""The init of a microVM's guest (csrc/guest/) as a process of this host: sockets in place of its ports, no machine.

It runs as process 1 of a pid namespace, as it kills all processes that it sees; the namespace ends with the test."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from minicontainer import plan as p
from minicontainer.native import ffi, lib
from minicontainer.plan import Plan, Slot
from minicontainer.plan.spawn import Spawn

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 30.0
FIRST_FREE = 32  # above the descriptors that the plan of Init gives to its program
NAMES = ("control", "stdin", "stdout", "stderr")
STREAMS = ("stdin", "stdout", "stderr")
REPLACED = ("main.c", "vsock.c")  # by tests/native/guest_main.c


def build(program: Path) -> Path:
    """Compiles init for this host, as setup.py does the helpers."""
    plan = "walk exec mountpoint clone now parent spawn netlink packet program check lay".split()
    sources = [f"csrc/plan/{name}.c" for name in plan]
    sources += [f"csrc/helpers/{name}.c" for name in ("freestanding", "clock", "received")]
    sources += ["csrc/monitor/text.c", "csrc/monitor/remove.c", "tests/native/guest_main.c"]
    sources += [str(path) for path in sorted((ROOT / "csrc/guest").glob("*.c")) if path.name not in REPLACED]
    flags = "-std=gnu11 -O2 -Wall -Wextra -Werror -Wno-missing-field-initializers -static -Icsrc".split()
    flags += "-nostdlib -ffreestanding -fno-stack-protector -fno-builtin -Wl,--build-id=none".split()
    subprocess.run(["cc", *flags, "-o", str(program), *sources], cwd=ROOT, check=True)
    return program


def program(*args: str, env: Sequence[str] = (), steps: Sequence[p.Step] = ()) -> Plan:
    """A plan that executes a program with the three streams, after ``steps``."""
    paths = [args[0]] if "/" in args[0] else [f"/bin/{args[0]}", f"/usr/bin/{args[0]}"]
    streams = [p.dup3(Slot(name), number) for number, name in enumerate(STREAMS)]
    exe = p.execve(paths, args, ["PATH=/usr/bin:/bin", *env])
    return Plan([*streams, *steps, p.close_range(3), p.call("setsid"), p.reset_signals(), exe], STREAMS)


def shell(script: str, **options: Any) -> Plan:
    """The plan of a shell."""
    return program("sh", "-c", script, **options)


def terminal(script: str) -> Plan:
    """The plan of a program with a pty of its own (container/filesystem/dev.py)."""
    tty, master, flags = Slot("tty"), Slot("master"), "O_RDWR|O_NOCTTY|O_CLOEXEC"
    steps = [
        p.call("setsid"),
        p.openat("/dev/ptmx", flags, master),
        p.call("ioctl", master, p.const("TIOCSPTLCK"), p.Struct(bytes(4), "{0}")),
        p.call("ioctl", master, p.const("TIOCGPTPEER"), p.const(flags), into=tty),
        p.send_fd(Slot("parent-socket"), master),
        p.call("ioctl", tty, p.const("TIOCSCTTY"), 0),
        *(p.dup3(tty, number) for number in (0, 1, 2)),
        p.close_range(3),
        p.reset_signals(),
        p.execve(["/bin/sh"], ["sh", "-c", script], ["PATH=/usr/bin:/bin"]),
    ]
    return Plan(steps, ["parent-socket"])


def received(end: socket.socket | int, pattern: bytes) -> bytes:
    """Reads until the pattern is in what was read."""
    data = b""
    while not re.search(pattern, data):
        part = os.read(end, 1000) if isinstance(end, int) else end.recv(1000)
        assert part, data
        data += part
    return data


def payload(
    plan: Plan,
    clone: str = "0",
    /,
    *,
    tty: bool = False,
    window: tuple[int, int] = (0, 0),
    filter_: bytes = b"",
    numbers: Mapping[str, int] | None = None,
    fields: Mapping[str, int] | None = None,
) -> bytes:
    """The payload of START. ``fields``: fields of struct mc_guest_start that differ."""
    header: Any = ffi.new("struct mc_guest_start *")
    data = bytearray(ffi.sizeof("struct mc_guest_start"))

    def put(part: bytes) -> int:
        data.extend(bytes(-len(data) % 8))
        data.extend(part)
        return len(data) - len(part)

    slots = plan.slots
    header.magic, header.flags, header.clone_flags = lib.MC_GUEST_MAGIC, lib.MC_GUEST_TTY if tty else 0, p.const(clone)
    header.plan, header.rows, header.columns = put(plan.buffer), *window
    if numbers:
        header.initial_slots = put(struct.pack(f"={len(slots)}i", *((numbers or {}).get(name, -1) for name in slots)))
    header.filter_data, header.filter_size = put(filter_) if filter_ else 0, len(filter_)
    names = {"input": "stdin", "output": "stdout", "error": "stderr", "socket": "parent-socket"}
    for field in ("input", "output", "error", "socket", "init", "report", "filter"):
        setattr(header, field, slots.get(names.get(field, field), -1))
    header.size = len(data)
    for field, value in (fields or {}).items():
        setattr(header, field, value)
    data[: ffi.sizeof("struct mc_guest_start")] = bytes(ffi.buffer(header))
    return bytes(data)


def _listener() -> socket.socket:
    """A listening socket at an address of the kernel's choice (unix(7), autobind)."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen()
    listener.setblocking(False)
    return listener


class Host:
    """The host's ends of a conversation: sockets ``control``, ``stdin``, ``stdout``, ``stderr``."""

    control: socket.socket
    stdin: socket.socket
    stdout: socket.socket
    stderr: socket.socket

    def send(self, kind: int, data: bytes) -> None:
        """Sends a frame."""
        self.control.sendall(struct.pack("=II", kind, len(data)) + data)

    def frame(self) -> tuple[int, bytes]:
        """Receives a frame."""
        kind, length = struct.unpack("=II", self._exactly(8))
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.control.recv(size - len(data))
            assert part, "init has closed the control port"
            data += part
        return data

    def expect(self, kind: int, struct_name: str) -> tuple[Any, bytes]:
        """Receives a frame of this kind: its structure, and the bytes that follow."""
        got, data = self.frame()
        assert got == kind, (got, data)
        size = ffi.sizeof(struct_name)
        found = ffi.new(f"{struct_name} *")
        ffi.memmove(found, data[:size], size)
        return found, data[size:]

    def signal(self, number: int) -> None:
        """Sends SIGNAL."""
        self.send(lib.MC_GUEST_SIGNAL, struct.pack("=i", number))

    def resize(self, rows: int, columns: int) -> None:
        """Sends RESIZE."""
        self.send(lib.MC_GUEST_RESIZE, struct.pack("=HH", rows, columns))

    def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Writes stdin, closes it, and reads both outputs to their ends."""
        got = {self.stdout: bytearray(), self.stderr: bytearray()}
        left, reading = memoryview(data), set(got)
        if not left:
            self.stdin.close()
        while reading or left:
            writing = [self.stdin] if left else []
            readable, writable, _ = select.select(reading, writing, [], TIMEOUT)
            assert readable or writable, "nothing moves"
            for end in writable:
                left = left[end.send(left[:65536]) :]
                if not left:
                    end.close()
            for end in readable:
                part = end.recv(1 << 20)
                got[end] += part
                reading -= set() if part else {end}
        return bytes(got[self.stdout]), bytes(got[self.stderr])


class Init(Host):
    """A running init."""

    def __init__(self, program: Path, helper: int = -1, room: int = 0, vmstat: int = -1) -> None:
        """``helper``, ``vmstat``: descriptors of its /init-helper and /proc/vmstat; ``room``: bytes that its outputs
        hold until they are read."""
        pairs = {name: socket.socketpair() for name in NAMES}
        self.listener = _listener()
        self.ends = [pair[0] for pair in pairs.values()]
        for name, end in zip(NAMES, self.ends, strict=True):
            setattr(self, name, end)
            end.settimeout(TIMEOUT)
        for name in ("stdout", "stderr") if room else ():
            pairs[name][1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        with open(os.devnull, "rb+", buffering=0) as null:
            given = {name: pair[1].fileno() for name, pair in pairs.items()}
            given |= {"null": null.fileno(), "listener": self.listener.fileno()}
            given |= {name: fd for name, fd in (("helper", helper), ("vmstat", vmstat)) if fd >= 0}
            for _, end in pairs.values():
                end.setblocking(False)
            self._start(program, given)
        for _, end in pairs.values():
            end.close()

    def _start(self, program: Path, given: Mapping[str, int]) -> None:
        names = [name for name in given if name != "null"]
        numbers = [3 + i for i in range(len(names))]
        steps = [p.prctl("PR_SET_PDEATHSIG", 9), *(p.dup3(Slot("null"), number) for number in (0, 1, 2))]
        steps += [p.dup3(Slot(name), number) for name, number in zip(names, numbers, strict=True)]
        known = dict(zip(names, numbers, strict=True))
        words = [str(known.get(name, "-")) for name in (*NAMES, "listener", "helper", "vmstat")]
        steps += [p.close_range(3 + len(names)), p.execve([str(program)], ["guest-main", *words], [])]
        self.child = Spawn(Plan(steps, given))
        copies = {name: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for name, fd in given.items()}
        try:
            self.child.start("CLONE_NEWPID", copies)
        finally:
            for fd in copies.values():
                os.close(fd)

    def ready(self) -> Any:
        """Receives READY."""
        return self.expect(lib.MC_GUEST_READY, "struct mc_guest_ready")[0]

    def start(self, plan: Plan, clone: str = "0", **options: Any) -> tuple[Any, bytes]:
        """Sends START, receives STARTED: its structure, and the records."""
        self.ready()
        self.send(lib.MC_GUEST_START, payload(plan, clone, **options))
        return self.expect(lib.MC_GUEST_STARTED, "struct mc_guest_started")

    def failed(self, plan: Plan | bytes, clone: str = "0", **options: Any) -> tuple[Any, str]:
        """Sends START, receives FAILED: its structure, and the text. Init must then end."""
        self.ready()
        self.send(lib.MC_GUEST_START, plan if isinstance(plan, bytes) else payload(plan, clone, **options))
        return self.failure()

    def failure(self) -> tuple[Any, str]:
        """Receives FAILED."""
        found, rest = self.expect(lib.MC_GUEST_FAILED, "struct mc_guest_failed")
        assert len(rest) == found.nrecords * 24 + found.length
        self.control.close()
        assert self.child.wait() == 1
        return found, rest[len(rest) - found.length :].decode()

    def exited(self) -> Any:
        """Receives EXITED, and lets init end."""
        found, rest = self.expect(lib.MC_GUEST_EXITED, "struct mc_guest_exited")
        assert rest == b""
        self.control.close()
        assert self.child.wait() == 0
        return found

    def __enter__(self) -> Init:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.child.kill_and_reap()
        self.child.close()
        for end in (*self.ends, self.listener):
            end.close()


class Exec(Host):
    """The host of a further process beside the program of ``init``, with ``streams``."""

    def __init__(self, init: Init, streams: Sequence[str] = STREAMS) -> None:
        self.ends = [_connected(init.listener.getsockname())]
        self.control = self.ends[0]
        listen, _ = self.expect(lib.MC_GUEST_LISTEN, "struct mc_guest_listen")
        for name in streams:
            self.ends.append(_connected(b"\0%05x" % listen.port))
            setattr(self, name, self.ends[-1])

    def start(self, plan: Plan, **options: Any) -> Any:
        """Sends START, receives STARTED."""
        self.send(lib.MC_GUEST_START, payload(plan, numbers={"process": lib.MC_GUEST_PROCESS_FD}, **options))
        return self.expect(lib.MC_GUEST_STARTED, "struct mc_guest_started")[0]

    def failed(self, plan: Plan, **options: Any) -> tuple[Any, str]:
        """Sends START, receives FAILED: its structure, and the text."""
        self.send(lib.MC_GUEST_START, payload(plan, numbers={"process": lib.MC_GUEST_PROCESS_FD}, **options))
        found, rest = self.expect(lib.MC_GUEST_FAILED, "struct mc_guest_failed")
        return found, rest[len(rest) - found.length :].decode()

    def exited(self) -> Any:
        """Receives EXITED, and the end."""
        found, _ = self.expect(lib.MC_GUEST_EXITED, "struct mc_guest_exited")
        assert self.control.recv(1) == b""
        return found

    def __enter__(self) -> Exec:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for end in self.ends:
            end.close()


def _connected(address: bytes) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(TIMEOUT)
    end.connect(address)
    return end


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, for all tests."""
    return build(tmp_path_factory.mktemp("guest") / "guest-main")
