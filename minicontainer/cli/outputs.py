"""Output files, stdout included, whose write errors name the file."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


class Output(io.FileIO):
    """A file whose write errors (a full disk) contain its name; those of io.FileIO do not."""

    def __init__(self, file: str | int, mode: str = "w", *, called: str = "") -> None:
        super().__init__(file, mode, closefd=isinstance(file, str))
        self.name: Any = called or file

    def write(self, data: Any, /) -> Any:
        """As FileIO.write, with the file's name in an OSError."""
        try:
            return super().write(data)
        except OSError as e:
            raise OSError(e.errno, e.strerror, self.name) from None


def to_write(path: str, mode: str = "w") -> IO[str]:
    """Open a text file for writing; ``mode`` is FileIO's."""
    return io.TextIOWrapper(io.BufferedWriter(Output(path, mode)), encoding="utf-8")


def name_stdout() -> None:
    """Replace sys.stdout by a file whose write errors name stdout."""
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper):
        return  # replaced by the caller
    raw = Output(before.fileno(), called="stdout")
    is_buffered = isinstance(before.buffer, io.BufferedWriter)  # not with PYTHONUNBUFFERED
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def show(text: str) -> None:
    """Print a line on stdout, with the bytes of names that are not UTF-8."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(f"{text}\n"))
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line on stderr, after the name of this program."""
    print(f"minicontainer: {text}", file=sys.stderr, flush=True)
