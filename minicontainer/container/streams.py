"""The three streams of a container: the descriptors that the child gets, and the ends that stay here."""

from __future__ import annotations

import fcntl
import io
import os
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from minicontainer.spec import Spec

PIPE, STDOUT, DEVNULL = -1, -2, -3  # subprocess's values

NAMES = ("stdin", "stdout", "stderr")
NOTHING = -1  # a stream of the caller's that is closed: /dev/null inside


class Owner(Protocol):
    """Who holds our ends of the pipes as files."""

    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None


class Streams:
    """What was asked for, opened. ``child`` are the descriptors for the child, NOTHING where there is none."""

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self._opened: list[int] = []
        self._ours = [-1, -1, -1]
        try:
            first, second = self._end(0, stdin), self._end(1, stdout)
            third = second if _is(stderr, STDOUT) else self._end(2, stderr)
        except BaseException:
            self.close()
            raise
        self.child = (first, second, third)

    def _end(self, number: int, wish: Any) -> int:
        if wish is None:
            return _inherited(number)
        if _is(wish, PIPE):
            read, write = os.pipe2(os.O_CLOEXEC)
            theirs, self._ours[number] = (read, write) if number == 0 else (write, read)
            self._opened.append(theirs)
            return theirs
        if _is(wish, DEVNULL):
            self._opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return self._opened[-1]
        if not isinstance(wish, int) and not hasattr(wish, "fileno"):
            what = f"not {type(wish).__name__}"
            raise TypeError(f"{NAMES[number]}: must be None, PIPE, DEVNULL, a descriptor or a file, {what}")
        fd = wish if isinstance(wish, int) else int(wish.fileno())
        if fd < 0:
            raise ValueError(f"{NAMES[number]}: {fd} is no descriptor")
        return fd

    def give(self, owner: Owner, encoding: str | None, errors: str | None) -> None:
        """Makes our ends the owner's files: of text where there is an encoding."""
        for number, name in enumerate(NAMES):
            fd = self._ours[number]
            if fd < 0:
                continue
            self._ours[number] = -1
            stream: Any = open(fd, "wb" if number == 0 else "rb")  # noqa: SIM115 - the owner closes it
            if encoding is not None:
                stream = io.TextIOWrapper(stream, encoding=encoding, errors=errors, write_through=number == 0)
            setattr(owner, name, stream)

    def close(self) -> None:
        """The child's ends, and ours where nobody took them."""
        for fd in self._opened + [fd for fd in self._ours if fd >= 0]:
            os.close(fd)
        self._opened, self._ours = [], [-1, -1, -1]


def _is(wish: Any, constant: int) -> bool:
    return isinstance(wish, int) and wish == constant


def _inherited(number: int) -> int:
    """The caller's own stream, as exec would leave it: where it is closed, its number may by now be any descriptor of
    this process's (of a cgroup, say), which is close-on-exec and not for the container."""
    try:
        return number if os.get_inheritable(number) else NOTHING
    except OSError:
        return NOTHING


def for_child(spec: Spec, stdio: tuple[int, int, int], opened: list[int]) -> dict[str, int]:
    """Above 2, so that putting one in its place never covers another; close-on-exec does not matter there.
    A negative one is /dev/null inside. ``opened`` gets what has to be closed."""
    found = {}
    for name, fd in zip(("stdin", "stdout", "stderr"), stdio, strict=True):
        if fd < 3 and not spec.tty:
            fd = fcntl.fcntl(fd if fd >= 0 else _null(opened), fcntl.F_DUPFD_CLOEXEC, 3)
            opened.append(fd)
        found[name] = fd
    return found


def _null(opened: list[int]) -> int:
    opened.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    return opened[-1]
