"""The result of a run: usage, reason, timeline. Names are those of BenchExec and isolate, units SI."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, AnyStr, Generic, NamedTuple

    from minicontainer.plan.timeline import Timeline
else:
    from minicontainer.records import AnyStr, Generic, NamedTuple


class Usage(NamedTuple):
    """A container's usage, in seconds and bytes. None is unknown (the host does not measure it); 0 is never unknown.

    walltime         from the clone to the end of process 1
    cputime          user and system, of every process of the container (without a cgroup: of process 1 and the
                     processes it waited for)
    memory_peak      cgroup memory.peak (None without the memory controller)
    max_rss          largest resident set of process 1 or a process it waited for (getrusage(2)); None where it does
                     not exceed that of the calling process, which the kernel counts in at the exec
    pids_peak        cgroup pids.peak (Linux 6.1)
    io_read, io_write   bytes, cgroup io.stat
    pressure_*_some  seconds in which some process waited for that resource (pressure stall information)
    """

    walltime: float
    cputime: float | None = None
    cputime_user: float | None = None
    cputime_system: float | None = None
    memory_peak: int | None = None
    max_rss: int | None = None
    pids_peak: int | None = None
    io_read: int | None = None
    io_write: int | None = None
    pressure_cpu_some: float | None = None
    pressure_memory_some: float | None = None
    pressure_io_some: float | None = None


class Result(Generic[AnyStr]):
    """As subprocess.CompletedProcess, and more. ``Result[str]`` where the streams are text, else ``Result[bytes]``.

    ``reason`` is ``exited``, ``signal``, ``timeout`` or ``oom``;
    ``stdout_lost`` and ``stderr_lost`` count the bytes after the first ``max_output``."""

    stdout: AnyStr  # None where it was no pipe; not in the type, as in Popen.communicate
    stderr: AnyStr

    def __init__(  # noqa: PLR0917 - as CompletedProcess
        self,
        args: Sequence[str],
        returncode: int,
        stdout: Any,
        stderr: Any,
        usage: Usage | Callable[[], Usage],
        reason: str,
        timeline: Timeline,
        stdout_lost: int = 0,
        stderr_lost: int = 0,
    ) -> None:
        self.args, self.returncode, self.stdout, self.stderr = args, returncode, stdout, stderr
        self._usage, self.reason, self.timeline = usage, reason, timeline
        self.stdout_lost, self.stderr_lost = stdout_lost, stderr_lost

    @property
    def usage(self) -> Usage:
        """The container's usage; made from its counters at the first access."""
        usage = self._usage
        if not isinstance(usage, Usage):
            usage = self._usage = usage()  # another thread may do the same
        return usage

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_usage": self.usage}

    def __eq__(self, other: object) -> bool:
        return self.__getstate__() == other.__getstate__() if isinstance(other, Result) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = {"args": self.args, "returncode": self.returncode, "stdout": self.stdout, "stderr": self.stderr}
        values |= {"usage": self.usage, "reason": self.reason}
        values |= {"stdout_lost": self.stdout_lost, "stderr_lost": self.stderr_lost}
        return f"Result({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def check_returncode(self) -> None:
        """Raises CalledProcessError, with both streams, unless the program ended with 0."""
        if self.returncode:
            import subprocess

            raise subprocess.CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)

    def meta(self) -> dict[str, Any]:
        """The result as data, for ``--meta``: unknown values are null."""
        code = self.returncode
        return {
            "args": list(self.args),
            "returncode": code,
            "exit_status": code if code >= 0 else None,
            "exit_signal": -code if code < 0 else None,
            "reason": self.reason,
            "usage": self.usage._asdict(),
        }

    def as_dict(self) -> dict[str, Any]:
        """As ``meta``, with the streams as text for JSON: bytes that are not UTF-8 are replaced."""
        return {
            **self.meta(),
            "stdout": _text(self.stdout),
            "stderr": _text(self.stderr),
            "stdout_lost": self.stdout_lost,
            "stderr_lost": self.stderr_lost,
        }


def _text(data: bytes | str | None) -> str | None:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data


def max_rss(peak_kib: int, caller_kib: int) -> int | None:
    """The peak in bytes; None where it is not clearly above the caller's resident set.

    At exec the kernel counts the memory that the child shared with the caller as the child's own (exec_mmap,
    setmax_mm_hiwater_rss). The counters are approximate."""
    return peak_kib * 1024 if peak_kib > caller_kib + caller_kib // 8 else None
