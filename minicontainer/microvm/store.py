"""Registered kernels.

    entry = adding.add("bzImage", modules="lib/modules/6.1.0", name="mine", default=True)
    store.registered(), store.default(), store.find("mine"), store.remove("mine")

    NAME/kernel        a bzImage or an ELF file
    NAME/modules/      its modules, as in /lib/modules/RELEASE
    NAME/config        its configuration
    NAME/kernel.json   what is known of it
    _default           the name of the default

Theory of operation. All kernels are in one directory of mode 0700, of root or of the user. A kernel is made below
another name and renamed, so it is always complete and never changes. Whoever makes one holds a lock on its directory
meanwhile: one without a lock was left by a killed process, and the next to make one removes it. Names, removal and the
default change below a lock on the directory of all.
"""

from __future__ import annotations

import fcntl
import os

from minicontainer import runtime
from minicontainer.errors import Error, SpecError, sentence
from minicontainer.microvm.kernelfile import ACPI, COMMAND_LINE, LIBKRUNFW, LINUX, LinuxKernel
from minicontainer.spec.values import NAME_PATTERN, is_name, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import contextmanager
    from typing import Any, NamedTuple
else:
    from minicontainer.light import contextmanager
    from minicontainer.records import NamedTuple

KERNEL, MODULES, CONFIG, METADATA = "kernel", "modules", "config", "kernel.json"
DEFAULT = "_default"  # no name begins so
FORMAT = 1  # of METADATA


class NoKernelError(SpecError, LookupError):
    """There is no such registered kernel."""


class Registered(NamedTuple):
    """A registered kernel. ``created``: seconds since 1970; ``size``: bytes of all its files; ``source``: the file or
    packages it came from; ``damage``: why it cannot be used, or ""."""

    name: str
    kernel: LinuxKernel
    created: float = 0.0
    size: int = 0
    source: str = ""
    is_default: bool = False
    damage: str = ""


def directory() -> str:
    """The directory of all registered kernels."""
    return f"{runtime.persistent()}/kernels"


def check_name(name: str) -> str:
    """Returns the name; SpecError if it is invalid."""
    if not is_name(text("name", name, empty=True)):
        raise SpecError("name", name, f"must match {NAME_PATTERN}")
    return name


def registered() -> list[Registered]:
    """All registered kernels, by name; damaged ones too."""
    default = _default_name()
    return [entry for name in _names() if (entry := _entry(name, default)) is not None]


def find(name: str) -> Registered:
    """The registered kernel of this name. NoKernelError; Error if it is damaged."""
    entry = _entry(name, _default_name()) if is_name(name) else None
    if entry is None:
        raise NoKernelError(
            "kernel", name, "there is no such file or registered kernel", "minicontainer kernel ls lists them"
        )
    return _sound(entry)


def default() -> Registered | None:
    """The default, if there is one. Error if it is damaged."""
    name = _default_name()
    entry = _entry(name, name) if name else None
    return None if entry is None else _sound(entry)


def _sound(entry: Registered) -> Registered:
    if entry.damage:
        raise Error(sentence("kernel", entry.name, entry.damage, f"minicontainer kernel rm {entry.name}"))
    return entry


def remove(name: str) -> None:
    """Removes a registered kernel, damaged or not. NoKernelError."""
    with runtime.locked_directory(directory()) as parent:
        if not is_name(name) or name not in os.listdir(parent):
            raise NoKernelError(
                "kernel", name, "there is no such registered kernel", "minicontainer kernel ls lists them"
            )
        if _default_name() == name:
            os.unlink(DEFAULT, dir_fd=parent)
        hidden = f".{name}.{os.urandom(4).hex()}"
        os.rename(name, hidden, src_dir_fd=parent, dst_dir_fd=parent)
        _delete(f"{directory()}/{hidden}")


def make_default(name: str) -> None:
    """Makes a registered kernel the default. NoKernelError."""
    with runtime.locked_directory(directory()) as parent:
        find(name)
        part = f".{DEFAULT}.{os.urandom(4).hex()}"
        runtime.write(f"{directory()}/{part}", name)
        os.rename(part, DEFAULT, src_dir_fd=parent, dst_dir_fd=parent)


# ---- making one


@contextmanager
def part() -> Iterator[str]:
    """A new directory below another name, to make a kernel in; removed at the end of the context unless ``publish``
    has given it its name."""
    with runtime.locked_directory(directory()):
        _remove_left()
        path = f"{directory()}/.{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        lock = os.open(path, runtime.DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        try:
            if os.path.isdir(path):
                _delete(path)
        finally:
            os.close(lock)


def publish(path: str, name: str, metadata: Mapping[str, Any]) -> Registered:
    """Gives what was made in a ``part`` its name. SpecError: the name is taken."""
    import json

    whole = {"format": FORMAT, "size": _size(path), **metadata}
    runtime.write(f"{path}/{METADATA}", json.dumps(whole))
    with runtime.locked_directory(directory()) as parent:
        check_free(name)
        os.rename(path, f"{directory()}/{name}")
        os.fsync(parent)
    return find(name)


def check_free(name: str) -> None:
    """SpecError: the name is taken."""
    if os.path.lexists(f"{directory()}/{name}"):
        raise SpecError("name", name, "is taken by a registered kernel", f"another, or minicontainer kernel rm {name}")


def _remove_left() -> None:
    """Removes what killed processes have left; under the lock."""
    for name in os.listdir(directory()):
        path = f"{directory()}/{name}"
        if not name.startswith("."):
            continue
        if not os.path.isdir(path):
            os.unlink(path)
        elif runtime.is_unlocked(os.open(path, runtime.DIRECTORY)):
            _delete(path)


def _delete(path: str) -> None:
    import shutil

    shutil.rmtree(path)


def _size(path: str) -> int:
    return sum(os.lstat(f"{place}/{name}").st_size for place, _, names in os.walk(path) for name in names)


# ---- reading


def _names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory()) if is_name(name))
    except FileNotFoundError:
        return []


def _default_name() -> str:
    """The name of the default; "": there is none."""
    try:
        name = runtime.read(f"{directory()}/{DEFAULT}")
    except (FileNotFoundError, ValueError):
        return ""
    return name if is_name(name) else ""


def _entry(name: str, default: str) -> Registered | None:
    """A registered kernel, damaged or not; None: there is none of this name."""
    path = f"{directory()}/{name}"
    if not os.path.isdir(path):
        return None
    try:
        return _parsed(name, path, runtime.parse_object(runtime.read(f"{path}/{METADATA}")), name == default)
    except FileNotFoundError:
        if not os.path.isdir(path):  # it has just been removed
            return None
        damage = f"has no {METADATA}"
    except (ValueError, KeyError) as e:
        damage = f"its {METADATA} is damaged: {e}"
    return Registered(name, LinuxKernel(f"{path}/{KERNEL}", "", name=name), is_default=name == default, damage=damage)


def _parsed(name: str, path: str, data: Mapping[str, Any], is_default: bool) -> Registered:
    typed = runtime.typed
    if data["format"] != FORMAT:
        raise ValueError(f"it is of format {data['format']!r:.20}, not {FORMAT}")
    mode = data["mode"] if data["mode"] is None else typed(str, data["mode"])
    kind, announce = _one_of(data["kind"], LINUX, LIBKRUNFW), _one_of(data["announce"], ACPI, COMMAND_LINE)
    lacks = tuple(typed(str, word) for word in typed(list, data["lacks"]))
    modules, config = (f"{path}/{part}" if os.path.exists(f"{path}/{part}") else None for part in (MODULES, CONFIG))
    release = typed(str, data["release"])
    kernel = LinuxKernel(f"{path}/{KERNEL}", release, modules, config, mode, name, kind, announce, lacks)
    damage = "" if os.path.isfile(kernel.path) else f"has no {KERNEL}"
    created = float(data["created"]) if isinstance(data["created"], (int, float)) else 0.0
    size, source = runtime.integer(data["size"]), typed(str, data["source"])
    return Registered(name, kernel, created, size, source, is_default, damage)


def _one_of(value: object, *known: str) -> str:
    if value not in known:
        raise ValueError(f"{value!r:.40} is none of {', '.join(known)}")
    return str(value)
