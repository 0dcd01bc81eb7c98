"""The modules that a command imports, in one file: reading it takes half as long as to find and read each module's.

The first run of a command writes the file beside the .pyc files, whose form (marshal) and conditions it shares: the
version of Python, time and size of each source, PYTHONDONTWRITEBYTECODE, PYTHONPYCACHEPREFIX; and the directory of the
package, since a copy is a program of its own. Where anything differs, or the file is damaged, the modules are imported
as ever, and the file is written again. None is written where .pyc files are checked by a hash of the source, or never.
"""

from __future__ import annotations

import _signal  # signal imports enum
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery imports more
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, cache_from_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

PACKAGE = __name__.partition(".")[0]
DIRECTORY = os.path.dirname(__file__)

version = b""  # of the modules of the bundle in use, which are unchanged on disk; another one has another version


def path(command: str) -> str:
    """The file of a command."""
    return cache_from_source(f"{DIRECTORY}/{command}.py").removesuffix(".pyc") + ".bundle"


class Finder:
    """Finds the modules of a bundle, for sys.meta_path, and loads them."""

    def __init__(self, modules: dict[str, tuple[str, CodeType]]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module; None if the bundle does not have it."""
        found = self._modules.pop(name, None)  # a second import, after a removal from sys.modules, is an ordinary one
        if found is None:
            return None
        file, code = found
        spec = ModuleSpec(name, self, origin=file, loader_state=code)  # type: ignore[arg-type]
        spec.has_location = True
        if file.endswith("/__init__.py"):
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """As by default."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module."""
        spec: Any = module.__spec__
        code, spec.loader_state = spec.loader_state, None
        exec(code, module.__dict__)


def use(command: str) -> bool:
    """Import modules from the command's bundle from now on; False if there is none that is up to date."""
    global version  # noqa: PLW0603
    try:
        with open(path(command), "rb", buffering=0) as f:
            modules, info = _load(f.read()), os.fstat(f.fileno())
    except Exception:  # there is none; or it is damaged, by which marshal may raise anything
        return False
    if modules:
        version = b"%d.%d.%d" % (info.st_mtime_ns, info.st_size, info.st_ino)
        sys.meta_path.insert(0, Finder(modules))
    return bool(modules)


def _load(data: bytes) -> dict[str, tuple[str, CodeType]]:
    """(file, code) of each module, by name; none if the bundle is not up to date."""
    if not data.startswith(MAGIC_NUMBER):
        return {}
    directory, entries = marshal.loads(memoryview(data)[len(MAGIC_NUMBER) :])
    if directory != DIRECTORY:
        return {}
    modules = {}
    kind = type(use.__code__)  # types is an import more
    for name, within, version, code in entries:
        file = f"{DIRECTORY}/{within}"
        if _version(file) != version or type(code) is not kind:
            return {}
        modules[name] = file, code
    return modules


def store(command: str) -> None:
    """Write the command's bundle, of the modules that are imported now. The command has ended, so nothing that happens
    here is told, and Ctrl-C does not leave half a file."""
    if sys.dont_write_bytecode:
        return
    try:
        previous = _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    except (ValueError, KeyboardInterrupt):  # not the main thread; or Ctrl-C came just before
        return
    try:
        entries = _entries()
        if entries:
            _write(path(command), MAGIC_NUMBER + marshal.dumps((DIRECTORY, entries)))
    except Exception:  # a directory that is not ours, a full disk, a source that is being changed
        pass
    finally:
        _signal.signal(_signal.SIGINT, previous)


def _entries() -> list[tuple[str, str, tuple[int, int], CodeType | None]]:
    """Name, file within the package, version and code of each module; nothing where a .pyc file is missing, or is not
    checked by time and size."""
    entries = []
    for name, module in list(sys.modules.items()):
        loader = getattr(module, "__loader__", None)
        if not (name.startswith(f"{PACKAGE}.") and isinstance(loader, SourceFileLoader)):
            continue
        file = loader.path
        with open(cache_from_source(file), "rb") as f:
            flags = f.read(8)[4:]
        if any(flags) or not file.startswith(f"{DIRECTORY}/"):  # PEP 552
            return []
        entries.append((name, file[len(DIRECTORY) + 1 :], _version(file), loader.get_code(name)))
    return entries


def _write(file: str, data: bytes) -> None:
    part = f"{file}.{os.getpid()}"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as f:
            f.write(data)
        os.rename(part, file)
    except BaseException:
        os.unlink(part)
        raise


def _version(file: str) -> tuple[int, int]:
    info = os.stat(file)
    return info.st_mtime_ns, info.st_size
