"""``-e`` and ``--env-file``: from what was typed to the variables that a container gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minicontainer import spec as s
from minicontainer.errors import SpecError, quote
from minicontainer.linux.files import read_whole

BOM = b"\xef\xbb\xbf"
MOST = 16 << 20  # bytes of a file: an exec takes 6 MiB of variables and arguments (execve(2), "Limits on size")


def environment(words: dict[str, Any]) -> dict[str, str]:
    """Those of the files, in their order, and over them those of the options."""
    env: dict[str, str] = {}
    for path in words["env_file"]:
        for number, line in _lines(path):
            env |= _variable(f"{path}:{number}", line)
    return env | s.parse_env(words["env"])


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that says something, by docker's rules (docker/cli, pkg/kvfile): a byte order
    mark and blanks before a name count for nothing, blanks at the end and quotes are parts of a value."""
    data = read_whole("env-file", path, MOST)
    for number, line in enumerate(data.removeprefix(BOM).split(b"\n"), 1):
        line = line.removesuffix(b"\r").lstrip()
        if line and not line.startswith(b"#"):
            yield number, line


def _variable(place: str, line: bytes) -> dict[str, str]:
    try:
        return s.parse_env([line.decode("utf-8")])
    except UnicodeDecodeError:
        raise SpecError("env-file", place, "is not UTF-8", "iconv -t UTF-8") from None
    except SpecError as e:
        raise SpecError("env-file", place, f"{quote(str(e.value))} {e.reason}", e.hint) from None
