"""The three streams of a container: the child's descriptors, and the caller's ends of pipes."""

from __future__ import annotations

import io
import os

from minicontainer.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Protocol

    from minicontainer.spec import Spec

    class Owner(Protocol):
        """An object with the caller's ends of the pipes as files."""

        stdin: IO[Any] | None
        stdout: IO[Any] | None
        stderr: IO[Any] | None
        buffers: bool  # whether its files have buffers, if they are of bytes


PIPE, STDOUT, DEVNULL = -1, -2, -3  # subprocess's values

NAMES = ("stdin", "stdout", "stderr")
INHERITED = (0, 1, 2)


class Streams:
    """Opens the streams that the arguments of Popen ask for. ``child``: the child's descriptors; 0, 1 and 2 are those
    that it inherits from the caller."""

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self._opened: list[int] = []
        self._caller_ends = [-1, -1, -1]
        if stdin is None and stdout is None and stderr is None:
            self.child = INHERITED
            return
        try:
            first, second = self._end(0, stdin), self._end(1, stdout)
            third = second if _is(stderr, STDOUT) else self._end(2, stderr)
        except BaseException:
            self.close()
            raise
        self.child = (first, second, third)

    def _end(self, number: int, argument: Any) -> int:
        if argument is None:
            return number
        if _is(argument, PIPE):
            read, write = os.pipe2(os.O_CLOEXEC)
            child_end, self._caller_ends[number] = (read, write) if number == 0 else (write, read)
            self._opened.append(child_end)
            return self._given(number, child_end)
        if _is(argument, DEVNULL):
            self._opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return self._given(number, self._opened[-1])
        if not isinstance(argument, int) and not hasattr(argument, "fileno"):
            reason = f"must be None, PIPE, DEVNULL, a descriptor or a file, not {type(argument).__name__}"
            raise TypeError(f"{NAMES[number]}: {reason}")
        fd = argument if isinstance(argument, int) else int(argument.fileno())
        if fd < 0:
            raise ValueError(f"{NAMES[number]}: {fd} is no descriptor")
        return self._given(number, fd)

    def _given(self, number: int, fd: int) -> int:
        """The descriptor, or a copy where its number is that of an inherited stream."""
        if fd > 2:
            return fd
        try:
            self._opened.append(_above(fd))
        except OSError as error:  # the caller has closed it
            raise StepError(error.errno or 0, f"{NAMES[number]}: descriptor {fd}") from None
        return self._opened[-1]

    def assign(self, owner: Owner, encoding: str | None, errors: str | None) -> None:
        """Sets ``owner.stdin`` ... to the caller's ends as files, of text with an encoding. The owner closes them."""
        if self._caller_ends == [-1, -1, -1]:
            return
        for number, name in enumerate(NAMES):
            fd = self._caller_ends[number]
            if fd < 0:
                continue
            self._caller_ends[number] = -1
            mode, buffers = "wb" if number == 0 else "rb", owner.buffers or encoding is not None
            stream: Any = open(fd, mode) if buffers else io.FileIO(fd, mode)  # noqa: SIM115 - the owner closes it
            if encoding is not None:
                stream = io.TextIOWrapper(stream, encoding=encoding, errors=errors, write_through=number == 0)
            setattr(owner, name, stream)

    def close(self) -> None:
        """Closes the child's ends, and the caller's ends that were not assigned."""
        for fd in (*self._opened, *self._caller_ends):
            if fd >= 0:
                os.close(fd)
        self._opened, self._caller_ends = [], [-1, -1, -1]


def _is(argument: Any, constant: int) -> bool:
    return isinstance(argument, int) and argument == constant


def for_helper(spec: Spec, stdio: tuple[int, int, int], opened: list[int]) -> dict[str, int]:
    """The streams by name, for a helper program, with numbers above 2. (Who clones the child itself leaves this to C:
    copy_stream in csrc/plan/spawn.c does the same.) Descriptors that the caller has to close are added to ``opened``.
    """
    inputs = {}
    for name, fd in zip(NAMES, stdio, strict=True):
        if fd < 3 and not spec.tty:
            fd = _above(fd if _is_inheritable(fd) else _null(opened))
            opened.append(fd)
        inputs[name] = fd
    return inputs


def _above(fd: int) -> int:
    """A copy with a number above 2."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _is_inheritable(fd: int) -> bool:
    """Whether the stream is open, and for children. If the caller closed it, its number may have been reused for an
    internal descriptor (of a cgroup, say), which is close-on-exec and not for the container."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _null(opened: list[int]) -> int:
    opened.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    return opened[-1]
