"""The modules that a machine's kernel needs, in the order in which they are loaded.

Dependencies are those of modules.dep (depmod(8)). A kernel whose package was unpacked and not installed has none: then
they are what each module says of itself, in its section .modinfo. Of the soft dependencies (modules.softdep) those of
SOFT are followed.
"""

from __future__ import annotations

import os

from minicontainer.errors import UnsupportedError, as_step_error
from minicontainer.microvm import build, features, modulefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minicontainer.microvm.kernelfile import LinuxKernel

# What these ask the kernel's crypto API for by the name of an algorithm; Linux 6.14 has it in a library.
SOFT = {"libcrc32c": "crc32c_generic", "ext4": "crc32c_generic"}
LIST_MAX = 16 << 20  # bytes of modules.dep or modules.builtin


def load_order(kernel: LinuxKernel, wanted: Iterable[str], *, optional: Iterable[str] = ()) -> list[str]:
    """The files of the modules ``wanted`` and of those that they depend on, in the order in which they are loaded;
    nothing for what is built in. ``optional``: modules that are loaded too, where the kernel has them.

    UnsupportedError names a module that the kernel lacks."""
    wanted = list(wanted)
    tree = None if kernel.modules is None else Tree(kernel.modules)
    _check_built_in(kernel, [name for name in wanted if tree is None or not tree.has(name)])
    if tree is None:
        return []
    files: dict[str, None] = {}
    for name in wanted:
        tree.add(name, files)
    for name in optional:
        if tree.has(name):
            tree.add(name, files)
    return [f"{kernel.modules}/{path}" for path in files]


def missing(kernel: LinuxKernel, feature: features.Feature) -> UnsupportedError:
    """The error that a kernel lacks a feature."""
    release = "" if kernel.release in kernel.path else f" ({kernel.release})"
    reason = f"has no {features.described(feature)}{release}, which a machine needs"
    return UnsupportedError("kernel", kernel.path, reason, features.REMEDY)


def _check_built_in(kernel: LinuxKernel, absent: list[str]) -> None:
    """UnsupportedError: one of the modules that are no files is known not to be built in either."""
    if not absent:
        return
    with build.Build(kernel) as built:
        for feature in map(features.of_module, absent):
            state = built.state(feature)
            if kernel.modules is not None and state != build.BUILT_IN:
                raise missing(kernel, feature)
            if state in (build.MODULE, build.MISSING):
                reason = f"has no {features.described(feature)} built in, and its modules are nowhere"
                hint = f"put them into lib/modules/{kernel.release} beside its directory"
                raise UnsupportedError("kernel", kernel.path, reason, f"{hint}, or {features.REMEDY}")


class Tree:
    """A directory of modules."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.built_in = {modulefile.name_of(line.strip()) for line in self._lines("modules.builtin")}
        self._depends = self._read_dep()
        self._files = self._names(self._depends if self._depends else self._walk())

    def has(self, name: str) -> bool:
        """Whether a module is there or built in."""
        return self._key(name) in self.built_in or self._key(name) in self._files

    def file(self, name: str) -> str | None:
        """The path of a module, from the directory; None for one that is built in, or missing."""
        return None if self._key(name) in self.built_in else self._files.get(self._key(name))

    def add(self, name: str, files: dict[str, None]) -> None:
        """Adds the file of a module behind those of what it depends on. A circle, which Linux cannot load, is cut."""
        path = self.file(name)
        if path is None:
            return
        begun, waiting = {path}, [(path, self._needs(path))]
        while waiting:
            path, needs = waiting[-1]
            below = next(needs, None)
            if below is None:
                files[path] = None
                waiting.pop()
            elif below not in begun and below not in files:
                begun.add(below)
                waiting.append((below, self._needs(below)))

    @staticmethod
    def _key(name: str) -> str:
        return name.replace("-", "_")

    def _needs(self, path: str) -> Iterator[str]:
        """The files of the modules that this one depends on."""
        soft = self.file(SOFT.get(modulefile.name_of(path) or "", ""))
        if soft is not None:
            yield soft
        if self._depends:
            if path not in self._depends:
                raise self._damaged("modules.dep", f"names {path}, and has no line of it")
            yield from self._depends[path]
            return
        for name in modulefile.imports(modulefile.read(f"{self.directory}/{path}")):
            if not self.has(name):
                raise self._damaged(path, f"needs {name}, which is neither there nor built in")
            if (below := self.file(name)) is not None:
                yield below

    def _read_dep(self) -> dict[str, list[str]]:
        found = {}
        for line in self._lines("modules.dep"):
            path, colon, rest = line.partition(":")
            paths = [path, *rest.split()]
            if not colon or not all(map(_is_below, paths)):
                raise self._damaged("modules.dep", f"has the line {line[:80]!r}")
            found[path] = paths[1:]
        return found

    def _lines(self, name: str) -> list[str]:
        try:
            with open(f"{self.directory}/{name}", "rb", buffering=0) as file:
                raw = file.read(LIST_MAX)
        except FileNotFoundError:
            return []
        except OSError as e:
            raise as_step_error(e, f"read({name!r})") from None
        return [line for line in os.fsdecode(raw).split("\n") if line and not line.startswith("#")]

    def _walk(self) -> list[str]:
        """All modules; those that take the place of a kernel's own (depmod.d(5), "search") first."""
        found = []
        for place, _, names in os.walk(self.directory):
            at = os.path.relpath(place, self.directory)
            found += [os.path.normpath(f"{at}/{name}") for name in names if modulefile.name_of(name)]
        return sorted(found, key=lambda path: (not path.startswith("updates/"), path))

    @staticmethod
    def _names(paths: Iterable[str]) -> dict[str, str]:
        files: dict[str, str] = {}
        for path in paths:
            files.setdefault(modulefile.name_of(path) or "", path)
        return files

    def _damaged(self, name: str, reason: str) -> UnsupportedError:
        return UnsupportedError("modules", f"{self.directory}/{name}", reason, "depmod, or the kernel's package again")


def _is_below(path: str) -> bool:
    """Whether the path of a module stays in its directory."""
    return modulefile.name_of(path) is not None and not path.startswith("/") and ".." not in path.split("/")
