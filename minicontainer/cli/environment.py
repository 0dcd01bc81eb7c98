"""``-e`` and ``--env-file``: the environment of a container from these options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minicontainer import spec as s
from minicontainer.errors import SpecError, quote
from minicontainer.linux.files import read_whole

BOM = b"\xef\xbb\xbf"
FILE_MAX = 16 << 20  # bytes: an exec takes at most 6 MiB of variables and arguments (execve(2), "Limits on size")


def environment(options: dict[str, Any]) -> dict[str, str]:
    """The variables of the files in their order, overridden by those of ``-e``."""
    env: dict[str, str] = {}
    for path in options["env_file"]:
        for number, line in _lines(path):
            env |= _variable(f"{path}:{number}", line)
    return env | s.parse_env(options["env"])


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that sets a variable, by docker's rules (docker/cli, pkg/kvfile): a byte order
    mark and blanks before a name are ignored; trailing blanks and quotes belong to the value."""
    data = read_whole("env-file", path, FILE_MAX)
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
