"""A container that waits for its program, and is handed one.

Theory of operation. Its process 1 executes csrc/helpers/ready.c, which holds one end of a socket pair, and ``Waiting``
the other. A request is one message with the program's strings, its three streams, and a pipe for the report. The exec
closes the pipe: end of file means that the program runs, else the pipe has the error. The answer on the socket has the
time of the exec. Without an answer the process has ended before the exec: the program has not run, and another
container can take it.

The end of the owner closes its end of the socket, upon which the container ends. A process that the owner forks must
not hold it open, so it is closed there.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import weakref
from array import array
from contextlib import ExitStack, suppress
from functools import partial
from threading import RLock
from typing import NamedTuple

from minicontainer.container import explain
from minicontainer.container.child import Child
from minicontainer.container.compilation import Compiled, compile_to_wait
from minicontainer.container.program import init
from minicontainer.container.program.execute import LAST_FD
from minicontainer.container.start import clone_with, reusable_inputs, start_with
from minicontainer.container.stdio.streams import NAMES, for_helper
from minicontainer.errors import StepError
from minicontainer.linux.files import memfd
from minicontainer.native import LIBEXEC, lib, now
from minicontainer.plan.timeline import Event
from minicontainer.pool import request
from minicontainer.spec import Spec

READY = f"{LIBEXEC}/ready"
TIMES = struct.Struct("=QQ")  # the answer of csrc/helpers/ready.c


class Running(NamedTuple):
    """A container that was handed its program, and what that took."""

    child: Child
    events: tuple[Event, ...]


class Waiting:
    """A container that waits for its program. ``close`` ends it, unless ``hand`` has handed it one."""

    __slots__ = ("_compiled", "_socket", "child")

    def __init__(self, spec: Spec) -> None:
        """Starts it; raises as ``start`` does."""
        self._socket, other = _socket_pair()
        try:
            with other:
                self.child = start_with(spec, partial(self._clone, other.fileno()), compile=compile_to_wait)
        except BaseException:
            self._socket.close()
            raise

    def _clone(self, end: int, child: Child, spec: Spec, compiled: Compiled) -> int:
        self._compiled = compiled
        child.spawn.forgets = False  # the plan is that of all containers of the pool
        with ExitStack() as stack:
            inputs = dict.fromkeys(NAMES, -1) | reusable_inputs(spec, compiled, stack)
            inputs |= {"helper": init.cached(READY), "request": fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, LAST_FD + 1)}
            stack.callback(os.close, inputs["request"])
            if "filter" in compiled.plan.inputs:
                inputs["filter"] = init.sealed("filter", compiled.host.seccomp)
                stack.callback(os.close, inputs["filter"])
            return clone_with(child, spec, compiled, inputs)

    @property
    def pidfd(self) -> int:
        """Ready to read when the container has ended."""
        return self.child.spawn.pidfd

    def has_ended(self) -> bool:
        """Whether it has been killed."""
        return bool(lib.mc_pidfd_wait(self.pidfd, 0) == 1)

    def hand(self, spec: Spec, stdio: tuple[int, int, int]) -> Running | None:
        """Hands the program of ``spec`` to the container, with three descriptors as its streams; None where the
        container has ended, and the program has not run. Raises as ``start`` does for a program that cannot run."""
        began = now()
        message, memory = request.encode(spec, self._compiled.host, self.child.id)
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            if not self._send(message, memory, spec, stdio, write):
                return None
            sent = now()
            error, file = init.report(read)
            ended = now()
        finally:
            os.close(read)
        times = self._answer()
        if times is None:
            return None
        if error:
            raise explain.program_error(spec, error, file)
        self._socket.close()
        self.child.namespaces = ""  # its clone3 is not of this request, from which the walltime counts
        self.child.spawn.struct.start_ns = began
        events = (
            Event("parent", "request", f"sendmsg({len(message)} bytes, SCM_RIGHTS)", began, sent, len(message)),
            Event("child", "request", f"chdir({spec.cwd!r})", *times, 0),
            Event("child", "execute", f"execve({spec.args[0]!r})", times[1], ended, 0),
        )
        return Running(self.child, events)

    def _send(self, message: bytes, memory: bytes, spec: Spec, stdio: tuple[int, int, int], report: int) -> bool:
        """Sends the request, and closes this process's end of the report. False: the container has ended."""
        opened = [report]
        try:
            streams = for_helper(spec, stdio, opened)
            fds = [*(streams[name] for name in NAMES), report]
            if memory:
                opened.append(memfd("request", memory))
                fds.append(opened[-1])
            self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as e:  # such as EBADF, of a stream
            raise StepError(e.errno or 0, "sendmsg(SCM_RIGHTS)") from None
        finally:
            for fd in opened:
                os.close(fd)
        return True

    def _answer(self) -> tuple[int, int] | None:
        try:
            answer = self._socket.recv(TIMES.size, socket.MSG_DONTWAIT)
        except OSError:
            return None
        return TIMES.unpack(answer) if len(answer) == TIMES.size else None

    def leave(self) -> None:
        """Gives the container up without ending it, in a process that was forked: it belongs to the parent process."""
        self.child.hand_over()

    def let_end(self) -> None:
        """Closes the socket, upon which the container ends by itself."""
        self._socket.close()

    def close(self) -> None:
        """Ends the container, and removes what it owns."""
        self._socket.close()
        self.child.discard()


# ---- the sockets, which no forked process must hold open

_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_forking = RLock()  # reentrant: a signal handler may fork


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    with _forking:
        own, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
        _open.add(own)
    own.setblocking(True)  # whatever socket.setdefaulttimeout says
    other.setblocking(True)
    return own, other


def _close_in_child() -> None:
    for own in tuple(_open):
        with suppress(OSError):
            own.close()
    _forking.release()


os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_close_in_child)
