"""Files that commands write, stdout among them: what goes wrong names them."""

from __future__ import annotations

import io
import sys
from typing import IO, Any


class Output(io.FileIO):
    """A file whose errors of writing have its name, as those of opening have: Python's own have none (a full disk)."""

    def __init__(self, file: str | int, mode: str = "w", *, called: str = "") -> None:
        super().__init__(file, mode, closefd=isinstance(file, str))
        self.name: Any = called or file

    def write(self, data: Any, /) -> Any:
        """As FileIO's."""
        try:
            return super().write(data)
        except OSError as e:
            raise OSError(e.errno, e.strerror, self.name) from None


def to_write(path: str, mode: str = "w") -> IO[str]:
    """A file of text, made anew, or as ``mode`` (of FileIO) says."""
    return io.TextIOWrapper(io.BufferedWriter(Output(path, mode)), encoding="utf-8")


def name_stdout() -> None:
    """From now on an error of stdout says so."""
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper):
        return  # somebody else's, who calls us
    raw = Output(before.fileno(), called="stdout")
    is_buffered = isinstance(before.buffer, io.BufferedWriter)  # not with PYTHONUNBUFFERED
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )
