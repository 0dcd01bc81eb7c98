"""``-e`` and ``--env-file``: the environment of a container from these options."""

from __future__ import annotations

import os

from minicontainer import spec as s
from minicontainer.errors import SpecError, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

BOM = b"\xef\xbb\xbf"
FILE_MAX = 16 << 20  # bytes: an exec takes at most 6 MiB of variables and arguments (execve(2), "Limits on size")


def environment(options: dict[str, Any]) -> dict[str, str]:
    """The variables of the files in their order, overridden by those of ``-e``."""
    env: dict[str, str] = {}
    for path in options["env_file"]:
        for number, line in _lines(path):
            env |= _variable(f"{path}:{number}", line)
    return env | s.parse_env(options["env"])


def split(options: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The variables with values, and the names of those that are to be copied from the caller later."""
    env: dict[str, str] = {}
    later: dict[str, None] = {}
    items = [(f"{path}:{number}", line) for path in options["env_file"] for number, line in _lines(path)]
    for place, item in [*items, *((None, item) for item in options["env"])]:
        copied = _AnyVariable()
        name, value = next(iter((_variable(place, item, copied) if place else s.parse_env([item], copied)).items()))
        later.pop(name, None)
        if copied.names:
            later[name] = None
            env.pop(name, None)
        else:
            env[name] = value
    return env, list(later)


class _AnyVariable(dict[str, str]):
    """Stands for the caller's environment: it has every variable, and remembers which were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        self.names.append(name)
        return ""


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that sets a variable, by docker's rules (docker/cli, pkg/kvfile): a byte order
    mark and blanks before a name are ignored; trailing blanks and quotes belong to the value."""
    from minicontainer.linux.files import read_whole

    data = read_whole("env-file", path, FILE_MAX)
    for number, line in enumerate(data.removeprefix(BOM).split(b"\n"), 1):
        line = line.removesuffix(b"\r").lstrip()
        if line and not line.startswith(b"#"):
            yield number, line


def _variable(place: str, line: bytes, caller: Mapping[str, str] = os.environ) -> dict[str, str]:
    try:
        return s.parse_env([line.decode("utf-8")], caller)
    except UnicodeDecodeError:
        raise SpecError("env-file", place, "is not UTF-8", "iconv -t UTF-8") from None
    except SpecError as e:
        raise SpecError("env-file", place, f"{quote(str(e.value))} {e.reason}", e.hint) from None
