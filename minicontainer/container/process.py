"""``Popen`` (and ``run``, in running.py): subprocess's names and meanings, for a whole container.

``communicate``, ``wait``, ``poll``, ``returncode`` (negative for a signal), TimeoutExpired and CalledProcessError are
subprocess's. What differs: ``kill`` ends the whole container, and so do a timeout of ``run`` and an exception that
leaves ``with Popen``; ``terminate`` sends the spec's stop signal to process 1.
"""

from __future__ import annotations

import _signal  # signal imports enum
import _warnings
import errno
from _thread import RLock
from time import monotonic

from minicontainer.container.cgroup import limits
from minicontainer.container.result import Result, Usage, max_rss
from minicontainer.container.start import start
from minicontainer.container.stdio.streams import DEVNULL, INHERITED, PIPE, STDOUT, Streams
from minicontainer.errors import Error, StepError, as_step_error
from minicontainer.linux.cgroupusage import as_usage
from minicontainer.native import check, lib, now
from minicontainer.spec import check_timeout, make, signal_number, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Any, AnyStr, Generic, overload

    from typing_extensions import Self, Unpack

    from minicontainer.container.child import Child
    from minicontainer.container.stdio.communicate import Exchange
    from minicontainer.plan.timeline import Timeline
    from minicontainer.spec import Spec
    from minicontainer.spec.keywords import (
        BytesPopenKeywords,
        EncodedPopenKeywords,
        Fields,
        PopenKeywords,
        Stream,
        TextPopenKeywords,
    )
else:
    from minicontainer.records import AnyStr, Generic, overload

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Popen", "signal_number"]

UNKNOWN_STATUS = 255  # the return code, as in asyncio, of a child whose status another wait took
KILLED = (-_signal.SIGKILL, 128 + _signal.SIGKILL)  # of process 1; of its child, as init and shells report it
LONGEST = 2**31 - 1  # milliseconds: the longest time-out of one ppoll(2)


class Popen(Generic[AnyStr]):
    """A running container. ``Popen[str]`` where its pipes are text, else ``Popen[bytes]``.

    args        the command, or a Spec
    stdin, stdout, stderr   None (the caller's), PIPE, DEVNULL, a descriptor or a file; stderr also STDOUT
    text, encoding, errors  make the pipes text, as in subprocess
    max_output  bytes (or "1M") of each output that ``communicate`` returns; the rest is read and counted in ``lost``
    spec fields by keyword (rootfs=, limits=, env=, network= ...), also as changes to a given Spec

    ``pid``, ``pidfd`` (ready to read when process 1 has ended), ``cgroup`` (None where the caller can create none, and
    after the end). Every method may be called from any thread, and from a signal handler.
    """

    buffers = True

    @overload
    def __init__(self: Popen[str], args: Sequence[str] | Spec, **keywords: Unpack[TextPopenKeywords]) -> None: ...
    @overload
    def __init__(self: Popen[str], args: Sequence[str] | Spec, **keywords: Unpack[EncodedPopenKeywords]) -> None: ...
    @overload
    def __init__(self: Popen[bytes], args: Sequence[str] | Spec, **keywords: Unpack[BytesPopenKeywords]) -> None: ...
    @overload
    def __init__(self: Popen[Any], args: Sequence[str] | Spec, **keywords: Unpack[PopenKeywords]) -> None: ...
    def __init__(
        self,
        args: Sequence[str] | Spec,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        max_output: int | str | None = None,
        **fields: Unpack[Fields],
    ) -> None:
        self.stdin: IO[AnyStr] | None = None  # a file where it was PIPE, else None
        self.stdout: IO[AnyStr] | None = None
        self.stderr: IO[AnyStr] | None = None
        self.returncode: int | None = None
        self._child: Child | None = None
        self._lock = RLock()
        self._usage: Usage | None = None
        self._reason = ""
        self._kill_reason = ""
        self.max_output = None if max_output is None else size("max_output", max_output, least=0)
        self.lost = {"stdout": 0, "stderr": 0}  # bytes
        self._exchange: Exchange | None = None
        self.spec = make(args, **fields)
        self.args = list(self.spec.args)
        self._text = bool(text or encoding or errors)
        if self._text and encoding is None:
            encoding = "utf-8"
        try:
            streams = Streams(stdin, stdout, stderr)
        except OSError as e:
            raise as_step_error(e, "pipe2()") from None
        try:
            self._child = self._start(streams.child)
            if streams.child is not INHERITED:
                streams.assign(self, encoding, errors)
        except BaseException as e:
            self._abandon()
            if isinstance(e, OSError):
                raise as_step_error(e, "container") from None
            raise
        finally:
            if streams.child is not INHERITED:
                streams.close()

    def _start(self, stdio: tuple[int, int, int]) -> Child:
        if self.spec.isolation == "kvm":
            from minicontainer.container.machine.start import start_machine

            return start_machine(self.spec, stdio)
        return start(self.spec, stdio)

    def _abandon(self) -> None:
        if self._child is not None:
            self.kill()
            self.wait()
            self.close()

    # -- properties

    @property
    def _started(self) -> Child:
        if self._child is None:
            raise Error("container: was not started")
        return self._child

    @property
    def pid(self) -> int:
        """The process id of the container's process 1, in the caller's pid namespace."""
        return self._started.spawn.pid

    @property
    def pidfd(self) -> int:
        """Ready to read when process 1 has ended (pidfd_open(2)). Open until ``close`` after the end, or as long as
        this object: another thread may be waiting on it."""
        return self._started.spawn.pidfd

    @property
    def cgroup(self) -> Any:
        """The container's Cgroup, or None."""
        return self._started.cgroup

    @property
    def id(self) -> str:
        """The container's id: twelve hexadecimal digits."""
        return self._started.id

    @property
    def terminal(self) -> int:
        """The master of the container's pty (tty=True), else -1. The Popen closes it."""
        return self._started.terminal

    @property
    def timeline(self) -> Timeline:
        """The timeline of every primitive so far."""
        return self._started.timeline()

    @property
    def reason(self) -> str:
        """Why the container ended: ``exited``, ``signal``, ``timeout``, ``oom``, or the end of its machine before the
        program's (``panic`` ...); '' while it runs."""
        with self._lock:
            return self._reason

    @property
    def machine_error(self) -> Error | None:
        """Of a virtual machine that has ended before its program: why, with the end of its kernel's console."""
        return None if self._started.machine is None else self._started.machine.ended_early()

    # -- methods

    def send_signal(self, number: int) -> None:
        """Sends a signal to process 1, which ignores signals without a handler (pid_namespaces(7))."""
        with self._lock:
            if self.returncode is None:
                result = lib.mc_syscall(lib.SYS_pidfd_send_signal, self._started.spawn.pidfd, int(number), 0, 0, 0, 0)
                if result != -errno.ESRCH:
                    check(result, "pidfd_send_signal", self.pid, int(number))

    def terminate(self) -> None:
        """Sends the spec's stop signal to process 1."""
        self.send_signal(signal_number("stop_signal", self.spec.stop_signal))

    def kill(self) -> None:
        """Kills every process of the container."""
        with self._lock:
            if self.returncode is None and self.cgroup is not None and self.cgroup.fd >= 0:
                self.cgroup.kill()
            self.send_signal(_signal.SIGKILL)

    def freeze(self) -> None:
        """Freezes every process of the container until ``thaw``."""
        self._require_cgroup("freeze").freeze()

    def thaw(self) -> None:
        """Resumes a frozen container."""
        self._require_cgroup("thaw").thaw()

    def _require_cgroup(self, what: str) -> Any:
        cgroup = self.cgroup
        if self.returncode is not None:
            raise Error(f"{what}: the container has ended")
        if cgroup is None:
            raise Error(f"{what}: the container has no cgroup (this host gives this user none: minicontainer doctor)")
        return cgroup

    def usage(self) -> Usage:
        """The container's usage so far; the total once it has ended."""
        with self._lock:
            usage = self._usage or self._measure()
            if self.returncode is not None:
                self._usage = usage
            return usage

    def poll(self) -> int | None:
        """The return code, or None while process 1 runs."""
        if self.returncode is None and lib.mc_pidfd_wait(self._started.spawn.pidfd, 0) == 1:
            self._reap()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for process 1 to end. TimeoutExpired leaves the container running, as in subprocess."""
        if self.returncode is None and not self._wait(None if timeout is None else check_timeout(timeout)):
            import subprocess

            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self._reap()
        assert self.returncode is not None
        return self.returncode

    def _wait(self, timeout: float | None) -> bool:
        """Whether the container has ended within ``timeout`` seconds. Python's signal handlers run meanwhile."""
        deadline = None if timeout is None else monotonic() + timeout
        spawn = self._started.spawn
        while self.returncode is None:
            left = -1 if deadline is None else int(min(LONGEST, max(0.0, (deadline - monotonic()) * 1000 + 0.999)))
            ready = lib.mc_pidfd_wait(spawn.pidfd, left)
            if ready == 1:
                return True
            if ready == 0 and left < LONGEST:
                return False
            if ready not in (0, -errno.EINTR, -errno.EBADF):
                check(ready, "ppoll", self.pid)
        return True

    def communicate(self, input: AnyStr | None = None, timeout: float | None = None) -> tuple[AnyStr, AnyStr]:
        """As in subprocess: writes stdin, reads stdout and stderr to their end (None for one that is no pipe),
        waits."""
        out, err = self._communicate(input, check_timeout(timeout), text=self._text)
        return out, err

    def _communicate(self, input: Any, timeout: float | None, *, text: bool) -> tuple[Any, Any]:
        """Both outputs, as str where ``text``. TimeoutExpired holds the bytes that were read so far."""
        from minicontainer.container.stdio.communicate import Exchange

        deadline = None if timeout is None else monotonic() + timeout
        exchange = self._exchange
        if exchange is None:
            pipes = {
                name: pipe for name, pipe in (("stdout", self.stdout), ("stderr", self.stderr)) if pipe is not None
            }
            exchange = Exchange(self.stdin, pipes, input, lost=self.lost, limit=self.max_output)
            self._exchange = exchange
        elif input:
            raise ValueError("Cannot send input after starting communication")
        done = exchange.run(deadline)
        if not done or not self._wait(None if deadline is None else max(0.0, deadline - monotonic())):
            import subprocess

            out, err = (data or None for data in exchange.result())
            raise subprocess.TimeoutExpired(self.args, timeout or 0, output=out, stderr=err)
        self.wait()
        return exchange.result(text=text)

    # -- the end

    def _reap(self) -> None:
        """Reaps process 1: its status and final counters; removes the cgroup. Only the first call does so."""
        with self._lock:
            if self.returncode is not None:
                return
            child = self._started
            result = child.finish()
            if self.returncode is not None:  # a signal handler has called this meanwhile
                return
            status = child.spawn.struct.status if result == 0 else UNKNOWN_STATUS
            self.returncode = status = status if child.machine is None else child.machine.status(status)
            try:
                if child.used.failed and child.place is not None:
                    child.place.group.as_usage(child.used)  # raises the error of the file
                self._reason = self._end_reason(child, status)
            finally:
                self._release(child)
            if result < 0:
                hint = "another wait took its status: SIGCHLD is ignored, or somebody waits for any child"
                raise StepError(-result, f"waitid({self.pid})", hint=hint)

    def _release(self, child: Child) -> None:
        start_ns, left = now(), child.placed is not None and child.placed.cgroup >= 0
        child.release()
        if left:
            child.note("remove", f'rmdir("{child.cgroup_path}")', start_ns)

    def _measure(self) -> Usage:
        """The usage so far; after the end, from the counters that C has read then."""
        child, used = self._started, self._started.used
        struct = child.spawn.struct
        until = now() if used is None else used.records[lib.MC_WAITED].start_ns
        walltime = (until - struct.start_ns) / 1e9
        peak = max_rss(struct.rusage[2], struct.caller_kib) if struct.reaped else None
        if child.placed is not None:
            group = child.cgroup
            counters = group.usage() if used is None and group is not None else as_usage(used)
            cputime, user, system, memory_peak, *others = counters.values()
            return Usage(walltime, cputime, user, system, memory_peak, peak, *others)  # type: ignore[arg-type]
        if not struct.reaped:
            return Usage(walltime)
        user, system = struct.rusage[0] / 1e6, struct.rusage[1] / 1e6
        return Usage(walltime, user + system, user, system, max_rss=peak)

    def _end_reason(self, child: Child, status: int) -> str:
        if status in KILLED and (
            (child.machine is not None and child.machine.was_out_of_memory)
            or (child.cgroup is not None and limits.oom_killed(child.cgroup))
        ):
            return "oom"
        if self._kill_reason and status:
            return self._kill_reason
        if child.machine is not None and child.machine.end:
            return child.machine.end
        return "signal" if status < 0 else "exited"

    def expire(self) -> None:
        """Kills the container because its time limit has passed: its ``reason`` is then ``timeout``."""
        self._kill_reason = "timeout"
        self.kill()

    def result(self, stdout: Any = None, stderr: Any = None) -> Result[Any]:
        """The Result of a container that has ended, with its output as ``communicate`` returned it."""
        if self.returncode is None:
            raise Error("container: has not ended")
        lost = self.lost
        return Result(
            self.args, self.returncode, stdout, stderr, self.usage, self._reason, self.timeline, lost["stdout"],
            lost["stderr"],
        )  # fmt: skip

    # -- as a context

    def close(self) -> None:
        """Closes the streams and, once the container has ended, every other descriptor of this object."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        if self._child is not None and self.returncode is not None:
            self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is not None:
            self.kill()
        self.close()
        self.wait()
        self.close()

    _warn = staticmethod(_warnings.warn)  # at the interpreter's end globals are gone

    def __del__(self) -> None:
        """As in subprocess: a container whose Popen is garbage-collected runs on; a later start reaps it."""
        child: Child | None = getattr(self, "_child", None)
        if child is not None and self.returncode is None:
            child.abandon()
            self._warn(f"container {self.pid} is still running", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<minicontainer.Popen: returncode: {self.returncode} args: {self.args!r}>"
