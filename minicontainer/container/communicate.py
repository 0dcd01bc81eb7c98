"""``Popen.communicate``: feeds one pipe and drains two without a deadlock, as subprocess does."""

from __future__ import annotations

import os
import selectors
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicontainer.container.process import Popen

CHUNK = 65536


class Kept:
    """What is kept of a stream: the first ``max_output`` bytes. The rest is counted, in the Popen."""

    def __init__(self, popen: Popen[Any], name: str) -> None:
        self._popen, self._name, self._parts = popen, name, list[bytes]()
        self._room = popen.max_output

    def add(self, data: bytes) -> None:
        """What came."""
        if self._room is not None:
            lost = max(0, len(data) - self._room)
            data = data[: self._room]
            self._room -= len(data)
            self._popen.lost[self._name] += lost
        self._parts.append(data)

    def data(self) -> bytes:
        """What is kept."""
        return b"".join(self._parts)


class _Talk:
    """The state of a conversation, kept on the Popen so that a call after a timeout goes on where the last stopped."""

    def __init__(self, popen: Popen[Any], given: bytes) -> None:
        self.given = memoryview(given)
        self.read: dict[str, Kept] = {
            name: Kept(popen, name) for name in ("stdout", "stderr") if getattr(popen, name) is not None
        }


def communicate(popen: Popen[Any], given: Any, timeout: float | None, *, text: bool) -> tuple[Any, Any]:
    """(stdout, stderr), None where there is no pipe. TimeoutExpired carries what came until then."""
    deadline = None if timeout is None else monotonic() + timeout
    talk: _Talk | None = popen.__dict__.get("_talk")
    if talk is None:
        talk = popen.__dict__["_talk"] = _Talk(popen, _encode(popen, given))
    elif given:
        raise ValueError("Cannot send input after starting communication")
    if not _pump(popen, talk, deadline):
        raise _expired(popen, talk, timeout)
    for name in talk.read:
        getattr(popen, name).close()
    left = None if deadline is None else max(0.0, deadline - monotonic())
    if not popen._wait(left):
        raise _expired(popen, talk, timeout)
    popen.wait()
    return tuple(_decode(popen, talk, name, text) for name in ("stdout", "stderr"))


def _encode(popen: Popen[Any], given: Any) -> bytes:
    """The input as bytes; text only where the stream is text, as in subprocess."""
    stream: Any = popen.stdin
    if stream is None or given is None:
        return b""
    encoding: str | None = getattr(stream, "encoding", None)
    if (encoding is None) == isinstance(given, str):
        wanted = "bytes-like" if encoding is None else "str"
        raise TypeError(f"input: a {wanted} object is required, not {type(given).__name__!r}")
    return bytes(given) if encoding is None else bytes(given.encode(encoding, stream.errors))


def _decode(popen: Popen[Any], talk: _Talk, name: str, text: bool) -> Any:
    if name not in talk.read:
        return None
    data = talk.read[name].data()
    stream = getattr(popen, name)
    if not text:
        return data
    if popen.lost[name]:  # the last character may be cut
        import codecs

        decoded = codecs.getincrementaldecoder(stream.encoding)(stream.errors).decode(data)
    else:
        decoded = data.decode(stream.encoding, stream.errors)
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def _expired(popen: Popen[Any], talk: _Talk, timeout: float | None) -> Exception:
    import subprocess

    both = [talk.read[name].data() or None if name in talk.read else None for name in ("stdout", "stderr")]
    return subprocess.TimeoutExpired(popen.args, timeout or 0, output=both[0], stderr=both[1])


def _pump(popen: Popen[Any], talk: _Talk, deadline: float | None) -> bool:
    """Moves bytes until both outputs have ended; False at the deadline."""
    with selectors.PollSelector() as selector:
        _register(popen, talk, selector)
        while selector.get_map():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            for key, _ in selector.select(left):
                ended = _feed(key.fd, talk) if key.data == "stdin" else _drain(key.fd, talk.read[key.data])
                if ended:
                    selector.unregister(key.fileobj)
                    if key.data == "stdin":
                        _close_input(key.fileobj)
    return True


def _register(popen: Popen[Any], talk: _Talk, selector: selectors.BaseSelector) -> None:
    if popen.stdin is not None and not popen.stdin.closed:
        _flush(popen.stdin)
        if talk.given:
            os.set_blocking(popen.stdin.fileno(), False)
            selector.register(popen.stdin, selectors.EVENT_WRITE, "stdin")
        else:
            _close_input(popen.stdin)
    for name in talk.read:
        stream = getattr(popen, name)
        if not stream.closed:
            selector.register(stream, selectors.EVENT_READ, name)


def _flush(stream: Any) -> None:
    """What was written before goes first."""
    try:
        stream.flush()
    except BrokenPipeError:
        pass


def _close_input(stream: Any) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass


def _feed(fd: int, talk: _Talk) -> bool:
    """Writes what the pipe takes; True when all is written or nobody reads."""
    try:
        talk.given = talk.given[os.write(fd, talk.given[:CHUNK]) :]
    except BlockingIOError:
        return False
    except BrokenPipeError:
        return True
    return not talk.given


def _drain(fd: int, into: Kept) -> bool:
    """Reads what is there; True at end of file."""
    data = os.read(fd, CHUNK)
    into.add(data)
    return not data
