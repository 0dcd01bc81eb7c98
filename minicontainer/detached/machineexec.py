"""``exec`` in a running virtual machine: as enter.py, by a connection to the guest's init instead of namespaces.

Theory of operation. The plan is that of a container's ``exec``, with the facts that hold in the guest. Init clones
itself, walks it there, and moves the streams, each by a connection of its own (csrc/guest/exec.c). When the program
runs, a child executes csrc/vmexec, which stands for it on this host: it has the caller's streams, passes signals on,
and ends as the program does. So all that a Popen can do, it can do with this child.
"""

from __future__ import annotations

import errno
import os
import struct

from minicontainer import plan as p
from minicontainer.container import compiler, execplan, host, seccomp
from minicontainer.container.child import Child
from minicontainer.container.host import Host
from minicontainer.container.ids import users
from minicontainer.container.machine import division, guest, run, start
from minicontainer.container.process import Popen
from minicontainer.container.program import init
from minicontainer.container.stdio.streams import NAMES, for_helper
from minicontainer.detached import vsock
from minicontainer.detached.enter import Exec, ExecPlan, exec_spec
from minicontainer.detached.sharedmemory import dup_above
from minicontainer.errors import Error
from minicontainer.native import LIBEXEC, ffi, lib, now
from minicontainer.plan import Plan, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack
    from typing import Any, AnyStr

    from minicontainer.spec import Spec
else:
    from minicontainer.light import ExitStack
    from minicontainer.records import AnyStr

PROGRAM = f"{LIBEXEC}/vmexec"
PROGRAM_FD = lib.MC_VMEXEC_STREAM_FD + len(NAMES)
FRAME = struct.Struct("=II")  # struct mc_guest_frame
FRAME_MAX = 1 << 20  # bytes of a frame of the guest, which is not trusted
NO_WAY = "its guest has no vsock, or no init that listens: the kernel needs CONFIG_VIRTIO_VSOCKETS"


def exec_plan(base: Spec, pid: int, args: Sequence[str], **options: Any) -> ExecPlan:
    """``enter.exec_plan`` for a machine, whose monitor is ``pid``."""
    spec = exec_spec(division.inner(base), pid, args, **options)
    facts = Host(
        userns="host",
        uid=0,
        gid=0,
        maps=None,
        groups=True,
        identity=users.identity(spec, "keep-id" if base.userns == "keep-id" else "host"),
        files=(),
        device_nodes=(),
        masked=(),
        read_only=(),
        cgroup2=False,
        seccomp=seccomp.program(spec, -1),
        suid=seccomp.without_suid() if spec.bars_new_suid else b"",
        window=host.window() if spec.tty else None,
        permitted=-1,
    )
    namespaces = compiler.clone_flags(division.inner(base), facts).text
    plan = execplan.compile(spec, facts, namespaces, has_proc=False)  # that of init is in no mount namespace of a plan
    return ExecPlan(pid, spec, facts, plan)


class MachineExec(Exec[AnyStr]):
    """A further process in a virtual machine. ``pid`` and ``pidfd`` are those of the process that stands for it."""

    def __init__(self, exec_plan: ExecPlan, open_directory: Callable[[], int], **streams: Any) -> None:
        """``open_directory`` opens the container's directory."""
        self._exec_plan, self._open_directory = exec_plan, open_directory
        Popen.__init__(self, exec_plan.spec, **streams)

    def _start(self, stdio: tuple[int, int, int]) -> Child:
        with ExitStack() as stack:
            try:
                ends = _connections(self._open_directory, 2 if self.spec.tty else 3, stack)
                records = self._begin(ends[0])
            except TimeoutError:
                raise _confused(f"has not answered for {vsock.TIMEOUT:g} s") from None
            child = Child("", _plan(self.spec.tty))
            try:
                child.joined = self._exec_plan.plan, records
                child.spawn.start("0", self._given(child, stdio, ends, stack))
            except BaseException:
                child.discard()
                raise
        return child

    def _begin(self, control: socket.socket) -> bytes:
        """Has the program started: the records of the plan, on the clock of this host."""
        payload = guest.start_exec(self._exec_plan.plan, self.spec, self._exec_plan.host)
        control.sendall(FRAME.pack(lib.MC_GUEST_START, len(payload)) + payload)
        kind, data = _receive(control)
        if kind == lib.MC_GUEST_FAILED:
            failed, rest = _parsed("struct mc_guest_failed *", data)
            text = rest[len(rest) - failed.length :] if failed.length <= len(rest) else b""
            raise start.guest_error(self.spec, self._exec_plan.plan, failed, text.decode("utf-8", "replace"))
        if kind != lib.MC_GUEST_STARTED:
            raise _confused(f"sent message {kind}")
        started, rest = _parsed("struct mc_guest_started *", data)
        return run.on_host_clock(rest, started.end_ns, now())

    def _given(
        self, child: Child, stdio: tuple[int, int, int], ends: list[socket.socket], stack: ExitStack
    ) -> dict[str, int]:
        """The inputs of the plan, above the numbers that it gives."""
        opened: list[int] = []
        stack.callback(lambda: list(map(os.close, opened)))
        if self.spec.tty:
            child.terminal, terminal = _terminal(self._exec_plan.host.window)
            opened.append(terminal)
            inputs = dict.fromkeys(NAMES, terminal)
        else:
            inputs = for_helper(self.spec, stdio, opened)
        for name, end in zip(_connected(self.spec.tty), ends, strict=True):
            end.setblocking(True)
            inputs[name] = end.fileno()
        inputs["program"] = init.cached(PROGRAM)
        for name, fd in inputs.items():
            inputs[name] = dup_above(fd, PROGRAM_FD + 1)
            opened.append(inputs[name])
        return inputs


# ---- the conversation with init


def _connections(open_directory: Callable[[], int], streams: int, stack: ExitStack) -> list[socket.socket]:
    """The connection to init, and those of the streams, at the port that init says; ``stack`` closes them."""
    directory = open_directory()
    try:
        try:
            ends = [stack.enter_context(vsock.connect(directory, lib.MC_GUEST_PORT))]
        except (Error, FileNotFoundError, ConnectionRefusedError):
            raise Error(f"exec: {NO_WAY}") from None
        kind, data = _receive(ends[0])
        if kind != lib.MC_GUEST_LISTEN:
            raise _confused(f"sent message {kind}")
        port = _parsed("struct mc_guest_listen *", data)[0].port
        return ends + [stack.enter_context(vsock.connect(directory, port)) for _ in range(streams)]
    finally:
        os.close(directory)


def _receive(control: socket.socket) -> tuple[int, bytes]:
    """The kind of the next frame, and its payload."""
    kind, length = FRAME.unpack(_exactly(control, FRAME.size))
    if length > FRAME_MAX:
        raise _confused(f"sent a message of {length} bytes")
    return kind, _exactly(control, length)


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "the guest's init has closed the connection")
        data += part
    return data


def _parsed(pointer: str, data: bytes) -> tuple[Any, bytes]:
    """The structure at the beginning of a payload, and the rest."""
    found = ffi.new(pointer)
    size = ffi.sizeof(found[0])
    if len(data) < size:
        raise _confused("sent a message that is too short")
    ffi.memmove(found, data, size)
    return found, data[size:]


def _confused(what: str) -> Error:
    return Error(f"exec: the guest's init {what}")


# ---- the process that stands for the program


def _connected(tty: bool) -> tuple[str, ...]:
    """The inputs that are connections: ``control``, and one for each stream."""
    return ("control", *(f"to-{name}" for name in NAMES[: 2 if tty else 3]))


_plans: dict[bool, Plan] = {}  # cached, by whether there is a terminal (a dict's methods are atomic)


def _plan(tty: bool) -> Plan:
    plan = _plans.get(tty)
    if plan is None:
        names = [*NAMES, *_connected(tty)]
        steps = [p.call("setsid"), p.chdir("/"), *(p.dup3(Slot(name), number) for number, name in enumerate(names))]
        steps += [p.call("ioctl", 0, p.const("TIOCSCTTY"), 0)] if tty else []
        steps += [p.call("dup3", Slot("program"), PROGRAM_FD, p.const("O_CLOEXEC")), p.close_range(PROGRAM_FD + 1)]
        words = ["minicontainer-vmexec", *(["terminal"] if tty else [])]
        steps += [p.reset_signals(), p.execveat(PROGRAM_FD, words, [])]
        plan = _plans[tty] = Plan(steps, [*names, "program"])
    return plan


def _terminal(window: tuple[int, int] | None) -> tuple[int, int]:
    """A pty that passes bytes as they are, since that of the guest does what terminals do: master and slave."""
    import fcntl
    import termios
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    if window is not None:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("=HHHH", *window, 0, 0))
    return master, slave
