"""Writes one pipe and reads two without a deadlock, as ``subprocess.Popen.communicate`` does."""

from __future__ import annotations

import os
from select import POLLIN, POLLOUT, poll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST = 2**31 - 1  # milliseconds: the longest time-out of one poll(2)
CHUNK = 65536


class Captured:
    """Retains the first ``limit`` bytes of an output (None: all); counts the other bytes in ``lost[name]``."""

    def __init__(self, name: str, lost: dict[str, int], limit: int | None) -> None:
        self._name, self._lost, self._room = name, lost, limit
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> None:
        """Adds bytes that were read."""
        if self._room is not None:
            self._lost[self._name] += max(0, len(data) - self._room)
            data = data[: self._room]
            self._room -= len(data)
        self._parts.append(data)

    def data(self) -> bytes:
        """The retained bytes."""
        return b"".join(self._parts)


class Exchange:
    """The input that remains to be written, and the output that was read. After a timeout, the next ``communicate``
    continues with the same Exchange.

    ``outputs``: the pipes by name, ``stdout`` and ``stderr``; ``lost``, ``limit``: as in Captured."""

    def __init__(
        self, stdin: Any, outputs: Mapping[str, Any], input: Any, *, lost: dict[str, int], limit: int | None
    ) -> None:
        self._stdin, self._outputs, self._lost = stdin, outputs, lost
        self._input = memoryview(_encode(stdin, input))
        self._captured = {name: Captured(name, lost, limit) for name in outputs}

    def run(self, deadline: float | None) -> bool:
        """Writes and reads until both outputs have ended, then closes the pipes; False at the deadline (monotonic
        seconds)."""
        poller = poll()
        names = self._register(poller)
        while names:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            for fd, _ in poller.poll(None if left is None else min(left * 1000 + 0.999, LONGEST)):
                name = names[fd]
                if self._write(fd) if name == "stdin" else self._read(fd, name):
                    poller.unregister(fd)
                    del names[fd]
                    if name == "stdin":
                        _close_input(self._stdin)
        for stream in self._outputs.values():
            stream.close()
        return True

    def result(self, *, text: bool = False) -> tuple[Any, Any]:
        """The captured stdout and stderr, as str where ``text``; None where there is no pipe."""
        out, err = (self._decode(name, text) if name in self._outputs else None for name in ("stdout", "stderr"))
        return out, err

    def _decode(self, name: str, text: bool) -> Any:
        data, stream = self._captured[name].data(), self._outputs[name]
        if not text:
            return data
        if self._lost[name]:  # the last character may be incomplete
            import codecs

            decoded = codecs.getincrementaldecoder(stream.encoding)(stream.errors).decode(data)
        else:
            decoded = data.decode(stream.encoding, stream.errors)
        return decoded.replace("\r\n", "\n").replace("\r", "\n")

    def _register(self, poller: poll) -> dict[int, str]:
        """Registers the open pipes; returns their names by descriptor."""
        names = {}
        if self._stdin is not None and not self._stdin.closed:
            _flush(self._stdin)
            if self._input:
                os.set_blocking(self._stdin.fileno(), False)
                names[self._stdin.fileno()] = "stdin"
                poller.register(self._stdin, POLLOUT)
            else:
                _close_input(self._stdin)
        for name, stream in self._outputs.items():
            if not stream.closed:
                names[stream.fileno()] = name
                poller.register(stream, POLLIN)
        return names

    def _write(self, fd: int) -> bool:
        """Writes as much as the pipe takes; True when all is written, or the pipe has no reader."""
        try:
            self._input = self._input[os.write(fd, self._input[:CHUNK]) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        return not self._input

    def _read(self, fd: int, name: str) -> bool:
        """Reads once; True at end of file."""
        data = os.read(fd, CHUNK)
        self._captured[name].add(data)
        return not data


def _encode(stream: Any, value: Any) -> bytes:
    """The input as bytes; text only where the stream is text, as in subprocess."""
    if stream is None or value is None:
        return b""
    encoding: str | None = getattr(stream, "encoding", None)
    if (encoding is None) == isinstance(value, str):
        wanted = "bytes-like" if encoding is None else "str"
        raise TypeError(f"input: a {wanted} object is required, not {type(value).__name__!r}")
    return bytes(value) if encoding is None else bytes(value.encode(encoding, stream.errors))


def _flush(stream: Any) -> None:
    """Writes the caller's buffered data, which precedes the input."""
    try:
        stream.flush()
    except BrokenPipeError:
        pass


def _close_input(stream: Any) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass
