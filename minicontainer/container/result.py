"""The result of a run: usage, reason, timeline. Names are those of BenchExec and isolate, units SI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, AnyStr, Generic, NamedTuple

if TYPE_CHECKING:
    from minicontainer.plan.timeline import Timeline


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


@dataclass
class Result(Generic[AnyStr]):
    """As subprocess.CompletedProcess, and more. ``Result[str]`` where the streams are text, else ``Result[bytes]``.

    ``reason`` is ``exited``, ``signal``, ``timeout`` or ``oom``;
    ``stdout_lost`` and ``stderr_lost`` count the bytes after the first ``max_output``."""

    args: Sequence[str]
    returncode: int
    stdout: AnyStr  # None where it was no pipe; not in the type, as in Popen.communicate
    stderr: AnyStr
    usage: Usage
    reason: str
    timeline: Timeline = field(repr=False)
    stdout_lost: int = 0
    stderr_lost: int = 0

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
