"""Shared by commands: errors that name options, values of options, output files."""

from __future__ import annotations

import os

from minicontainer.cli.outputs import to_write
from minicontainer.errors import SpecError, UnsupportedError, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any

# Field of Spec or Limits -> its option, where the names differ.
OPTIONS = {
    "cwd": "workdir",
    "mounts": "volume",
    "devices": "device",
    "ulimits": "ulimit",
    "sysctls": "sysctl",
    "ports": "publish",
    "add_hosts": "add-host",
    "pids": "pids-limit",
    "labels": "label",
    "log": "log-opt",
}


class named_options:
    """Turns an error about a field of Spec into one with the option and the value as they were typed.

    ``names``: the parameter of each option; ``spelled``: how a parameter's option was typed; ``values``: those of
    parameters."""

    def __init__(self, names: Mapping[str, str], spelled: Mapping[str, str], values: Mapping[str, Any]) -> None:
        self.names, self.spelled, self.values = names, spelled, values

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, e: object, _trace: object) -> None:
        if not isinstance(e, (SpecError, UnsupportedError)):
            return
        first, _, rest = e.what.partition(" ")
        field = first.partition("[")[0]
        name = f"--{OPTIONS.get(field, field.replace('_', '-'))}"
        if name == "--seccomp" and "--security-opt" in self.names and e.value is not None:
            raise type(e)("--security-opt", f"seccomp={e.value}", e.reason, e.hint) from None
        if name in self.names:
            parameter = self.names[name]
            what = self.spelled.get(parameter, name)
            raise type(e)(what, *_as_typed(self.values.get(parameter), rest, e), e.hint) from None


def _as_typed(typed: Any, rest: str, e: SpecError | UnsupportedError) -> tuple[object, str]:
    """The value as typed, and the reason with the wrong part of the value (``rest`` names that part)."""
    wrong = "" if e.value is None else str(e.value)
    import re

    word = re.compile(rf"(?<![\w.]){re.escape(wrong)}(?![\w.])")
    if isinstance(typed, tuple):
        ranks = {text: (text == wrong, bool(word.search(text)), wrong in text) for text in typed if wrong}
        best = max(ranks, key=ranks.__getitem__, default=None)
        value: object = best if best is not None and wrong in best else e.value
    elif isinstance(typed, str):
        value = wrong if typed and typed in wrong else typed  # 64M instead of a number of bytes
    else:
        value = e.value
    part = quote(wrong) if wrong and wrong != str(value) and wrong in str(value) else ""
    if part and e.reason[:1].isupper():  # a sentence of strerror(3), of which the part is not the subject
        part += ":"
    return value, " ".join(filter(None, (rest, part, e.reason)))


def pairs(what: str, items: Sequence[str]) -> dict[str, str]:
    """The NAME=VALUE (or NAME) pairs of an option that may be repeated."""
    values = {}
    for item in items:
        key, _, value = item.partition("=")
        if not key:
            raise SpecError(what, item, "must be NAME=VALUE")
        values[key] = value
    return values


class cidfile:
    """A function that writes the container's id into the file of --cidfile. The file must be new; it is created before
    the container, and removed if the start fails."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Callable[[str], object]:
        path = self._path
        if path is None:
            return lambda _: None
        if not path:
            raise SpecError("cidfile", path, "is empty", "the path of a new file")
        try:
            file = self._file = to_write(path, "x")
        except FileExistsError:
            raise SpecError("cidfile", path, "already exists", "remove it, or give another") from None
        except OSError as e:
            raise SpecError("cidfile", path, (e.strerror or str(e)).lower()) from None
        return lambda identifier: print(identifier, end="", file=file, flush=True)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._path is None or self._file is None:
            return
        try:
            if kind is not None:
                os.unlink(self._path)
        finally:
            self._file.close()


def yes_or_no(what: str, flag: bool | None, value: str | None) -> bool | None:
    """The value of a flag, as in docker: ``--oom-group`` or ``--oom-group=false``."""
    if value is None:
        return flag
    if value.lower() not in ("true", "false", "1", "0"):
        raise SpecError(what, value, "must be true or false")
    return value.lower() in ("true", "1")


def json_destination(what: str, value: str | None) -> str:
    """FILE of ``--explain=json:FILE``, checked to be writable; "" (stderr) of ``--explain`` alone."""
    if value is None:
        return ""
    if not value.startswith("json:") or value == "json:":
        raise SpecError(what, value, "must be json:FILE")
    path = writable(what, value[5:])
    assert path is not None
    return path


def writable(what: str, path: str | None) -> str | None:
    """``path``, checked before the start to be writable: the file is written after the container's end."""
    if path is None:
        return None
    if os.path.isdir(path) or not path:
        raise SpecError(what, path, "is a directory" if path else "is empty")
    place = path if os.path.exists(path) else os.path.dirname(path) or "."
    if not os.path.exists(place):
        raise SpecError(what, path, f"there is no directory {place}")
    if not os.access(place, os.W_OK):
        raise SpecError(what, path, "cannot be written")
    return path


def write_json(path: str, data: object) -> None:
    """Write a report as JSON."""
    import json

    with to_write(path) as f:
        json.dump(data, f, indent=2)
        f.write("\n")
