"""The three streams of a container: the child's descriptors, and the caller's ends of pipes."""

from __future__ import annotations

import fcntl
import io
import os
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from minicontainer.spec import Spec

PIPE, STDOUT, DEVNULL = -1, -2, -3  # subprocess's values

NAMES = ("stdin", "stdout", "stderr")
CLOSED = -1  # instead of a descriptor: the caller's stream is closed, so the container gets /dev/null


class Owner(Protocol):
    """An object with the caller's ends of the pipes as files."""

    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None


class Streams:
    """Opens the streams that the arguments of Popen ask for. ``child``: the child's descriptors, or CLOSED."""

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self._opened: list[int] = []
        self._caller_ends = [-1, -1, -1]
        try:
            first, second = self._end(0, stdin), self._end(1, stdout)
            third = second if _is(stderr, STDOUT) else self._end(2, stderr)
        except BaseException:
            self.close()
            raise
        self.child = (first, second, third)

    def _end(self, number: int, argument: Any) -> int:
        if argument is None:
            return _inherited(number)
        if _is(argument, PIPE):
            read, write = os.pipe2(os.O_CLOEXEC)
            child_end, self._caller_ends[number] = (read, write) if number == 0 else (write, read)
            self._opened.append(child_end)
            return child_end
        if _is(argument, DEVNULL):
            self._opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return self._opened[-1]
        if not isinstance(argument, int) and not hasattr(argument, "fileno"):
            reason = f"must be None, PIPE, DEVNULL, a descriptor or a file, not {type(argument).__name__}"
            raise TypeError(f"{NAMES[number]}: {reason}")
        fd = argument if isinstance(argument, int) else int(argument.fileno())
        if fd < 0:
            raise ValueError(f"{NAMES[number]}: {fd} is no descriptor")
        return fd

    def assign(self, owner: Owner, encoding: str | None, errors: str | None) -> None:
        """Sets ``owner.stdin`` ... to the caller's ends as files, of text with an encoding. The owner closes them."""
        for number, name in enumerate(NAMES):
            fd = self._caller_ends[number]
            if fd < 0:
                continue
            self._caller_ends[number] = -1
            stream: Any = open(fd, "wb" if number == 0 else "rb")  # noqa: SIM115 - the owner closes it
            if encoding is not None:
                stream = io.TextIOWrapper(stream, encoding=encoding, errors=errors, write_through=number == 0)
            setattr(owner, name, stream)

    def close(self) -> None:
        """Closes the child's ends, and the caller's ends that were not assigned."""
        for fd in self._opened + [fd for fd in self._caller_ends if fd >= 0]:
            os.close(fd)
        self._opened, self._caller_ends = [], [-1, -1, -1]


def _is(argument: Any, constant: int) -> bool:
    return isinstance(argument, int) and argument == constant


def _inherited(number: int) -> int:
    """The caller's own stream, if it is inheritable; else CLOSED. If the caller closed it, its number may have been
    reused for an internal descriptor (of a cgroup, say), which is close-on-exec and not for the container."""
    try:
        return number if os.get_inheritable(number) else CLOSED
    except OSError:
        return CLOSED


def for_child(spec: Spec, stdio: tuple[int, int, int], opened: list[int]) -> dict[str, int]:
    """The streams as plan inputs, by name, with numbers above 2, so that no dup3 of the plan overwrites another stream.
    A negative descriptor becomes /dev/null. Descriptors that the caller has to close are added to ``opened``."""
    inputs = {}
    for name, fd in zip(("stdin", "stdout", "stderr"), stdio, strict=True):
        if fd < 3 and not spec.tty:
            fd = fcntl.fcntl(fd if fd >= 0 else _null(opened), fcntl.F_DUPFD_CLOEXEC, 3)
            opened.append(fd)
        inputs[name] = fd
    return inputs


def _null(opened: list[int]) -> int:
    opened.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    return opened[-1]
