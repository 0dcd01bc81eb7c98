"""``Cgroup``: a control group of version 2, held by a descriptor of its directory (cgroups(7), cgroup-v2.rst).

    with Cgroup.create("experiment") as group:      # below the mount; needs no controller
        group.add(pid)
        group.freeze()
        print(group.usage(), group.pressure("cpu")["some"].total)
    # the end of the block kills its processes and removes the directory

A primitive without policy: ``container.cgroup`` decides where containers' cgroups are, and which files enforce a limit.
Each failure is an OSError that names the call and the file. Units are bytes and seconds; ``None`` stands for "max".

Creation and removal are part of a container's start and must be fast: paths are relative to the parent's descriptor,
files are read only when needed, and files that cannot exist are not tried (a failed open in cgroupfs costs 5 us, the
first read of a file 10).
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer.errors import Error, StepError, sentence
from minicontainer.linux import cgroupfiles as formats
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroupfs import ignore_removed
from minicontainer.linux.cgrouphints import file_hint, mkdir_hint

# Here, and not where they are called: a signal handler that kills may interrupt the import in another kill.
from minicontainer.linux.cgroupkill import describe_processes, kill_all, kill_listed
from minicontainer.linux.cgroupusage import FILES, as_usage, files_of
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, NoReturn, TypeVar, overload

    from minicontainer.linux.cgroupfiles import Pressure
    from minicontainer.linux.cgroupusage import Usage

    T = TypeVar("T")
    C = TypeVar("C", bound="Cgroup")
else:
    from minicontainer.records import Generic, T, overload

AGAIN = 0.1  # seconds between two kills
ROOM = 16384  # bytes for one file: memory.stat has about 2000, io.stat 100 for each device

_CHARS = ffi.typeof("char[]")
_new_buffer = ffi.new_allocator(should_clear_after_alloc=False)


class Setting(Generic[T]):
    """A file of the cgroup as an attribute: ``parse`` converts its content to a value, ``show`` a value to lines."""

    def __init__(self, file: str, parse: Callable[[str], T], show: Callable[[T], str]) -> None:
        self.file, self.parse, self.show = file, parse, show

    @overload
    def __get__(self, cgroup: None, owner: Any = None) -> Setting[T]: ...
    @overload
    def __get__(self, cgroup: Cgroup, owner: Any = None) -> T: ...
    def __get__(self, cgroup: Cgroup | None, owner: Any = None) -> Setting[T] | T:
        return self if cgroup is None else self.parse(cgroup.read(self.file))

    def __set__(self, cgroup: Cgroup, value: T) -> None:
        for line in self.show(value).split("\n"):
            cgroup.write(self.file, line)


class Cgroup:
    """A cgroup v2 directory. ``create`` or ``open`` one; ``fd`` is a descriptor of it, as CLONE_INTO_CGROUP takes it.

    As a context manager: at the end, a created one is killed and removed with all its children; an opened one is
    only closed. Limits are attributes; reading or writing one whose controller is not enabled is ENOENT.
    """

    __slots__ = ("_enabled", "_parent", "created", "fd", "name", "path", "was_killed")

    memory_max = Setting("memory.max", formats.parse_number, formats.show_number)
    memory_high = Setting("memory.high", formats.parse_number, formats.show_number)
    memory_low = Setting("memory.low", formats.parse_number, formats.show_number)
    memory_min = Setting("memory.min", formats.parse_number, formats.show_number)
    memory_swap_max = Setting("memory.swap.max", formats.parse_number, formats.show_number)
    memory_oom_group = Setting("memory.oom.group", int, str)
    pids_max = Setting("pids.max", formats.parse_number, formats.show_number)
    cpu_max = Setting("cpu.max", formats.parse_cpu_max, formats.show_cpu_max)
    cpu_weight = Setting("cpu.weight", int, str)
    cpuset_cpus = Setting("cpuset.cpus", str.strip, str)
    cpuset_mems = Setting("cpuset.mems", str.strip, str)
    io_max = Setting("io.max", formats.parse_nested, formats.show_nested)
    io_weight = Setting("io.weight", formats.parse_default_weight, "default {}".format)

    def __init__(self, fd: int, path: str, name: str, parent: Cgroup | None, created: bool) -> None:
        self.fd, self.path, self.name, self.created = fd, path, name, created
        self._parent = parent
        self.was_killed = False  # by ``kill`` of this object
        self._enabled: frozenset[str] | None = None

    @classmethod
    def create(cls: type[C], name: str, parent: Cgroup | None = None, *, exist_ok: bool = False) -> C:
        """mkdirat(2) of ``name`` in ``parent`` (default: the root of the hierarchy), and its descriptor."""
        if parent is None:
            parent = hierarchy()
        created = True
        try:
            os.mkdir(name, 0o755, dir_fd=parent.fd)
        except OSError as error:
            if error.errno != errno.EEXIST or not exist_ok:
                path = f"{parent.path}/{name}"
                raise StepError(error.errno or 0, f"mkdir({path!r})", hint=mkdir_hint(error)) from None
            created = False
        path = parent.path + "/" + name
        try:
            return cls(_open_directory(name, parent.fd, path), path, name, parent, created)
        except StepError:
            if created:
                os.rmdir(name, dir_fd=parent.fd)
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Cgroup:
        """The cgroup at ``path``, an absolute path of the file system."""
        path = os.fspath(path)
        return cls(_open_directory(path, None, path), path, path.rpartition("/")[2], None, False)

    @classmethod
    def own(cls) -> Cgroup:
        """The cgroup that the calling process is in."""
        return cls.open(cgroupfs.membership())

    @property
    def parent_fd(self) -> int:
        """Descriptor of the parent directory; -1 for a cgroup that was opened by path."""
        return -1 if self._parent is None else self._parent.fd

    def __repr__(self) -> str:
        return f"<Cgroup {self.path}{'' if self.fd >= 0 else ' (closed)'}>"

    def __enter__(self) -> Cgroup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.created:
            self.remove(kill=True)
        self.close()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if getattr(self, "fd", -1) >= 0:
            close(self.fd)

    def close(self) -> None:
        """Close the descriptor; the cgroup stays."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # ---- files

    def read(self, name: str) -> str:
        """The whole content of a file of the cgroup."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            self._fail(error.errno or 0, "open", name)
        try:
            parts = []
            while part := os.read(fd, ROOM):  # the kernel returns a list of processes in parts
                parts.append(part)
        except OSError as error:
            self._fail(error.errno or 0, "read", name)
        finally:
            os.close(fd)
        return b"".join(parts).decode()

    def write(self, name: str, data: str) -> None:
        """Write to a file of the cgroup, by one write(2)."""
        line = data.encode() + b"\n"
        result: int = lib.mc_write_at(self.fd, name.encode(), line, len(line))
        if result < 0:
            self._fail(-result, "write", name, data)

    def _fail(self, number: int, call: str, name: str, *what: str) -> NoReturn:
        shown = ", ".join([repr(f"{self.path}/{name}"), *map(repr, what)])
        raise StepError(number, f"{call}({shown})", hint=file_hint(number, name, *what)) from None

    # ---- controllers

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers available in this cgroup (cgroup.controllers): its parent's ``enabled``."""
        return frozenset(self.read("cgroup.controllers").split())

    @property
    def enabled(self) -> frozenset[str]:
        """The controllers enabled for its children (cgroup.subtree_control); cached until ``enable``."""
        enabled = self._enabled
        if enabled is None:
            enabled = self._enabled = frozenset(self.read("cgroup.subtree_control").split())
        return enabled

    def enable(self, *names: str) -> None:
        """Enable controllers for the children. ENOENT if the cgroup itself lacks one, EBUSY if it has member processes
        and is not the root."""
        self.write("cgroup.subtree_control", " ".join(f"+{name}" for name in names))
        self._enabled = None

    # ---- processes

    @property
    def procs(self) -> list[int]:
        """The pids in this cgroup, without its children; 0 for a process of another pid namespace."""
        return [int(pid) for pid in self.read("cgroup.procs").split()]

    def add(self, pid: int) -> None:
        """Move a process with all its threads into this cgroup; 0 is the caller."""
        self.write("cgroup.procs", str(pid))

    def freeze(self, timeout: float = 10.0) -> None:
        """Freeze all processes in the subtree, and wait until they are frozen. ETIMEDOUT: they are thawed again."""
        from minicontainer.linux import cgroupfreeze

        self.write("cgroup.freeze", "1")
        if not cgroupfreeze.wait(self.fd, timeout):
            self.write("cgroup.freeze", "0")
            raise StepError(errno.ETIMEDOUT, f"freeze({self.path!r})", hint="a process is in an uninterruptible call")

    def thaw(self, timeout: float = 10.0) -> None:
        """Undo ``freeze``. ETIMEDOUT: a cgroup above is still frozen."""
        self.write("cgroup.freeze", "0")
        if not self.wait("frozen", 0, timeout):
            raise StepError(errno.ETIMEDOUT, f"thaw({self.path!r})", hint="is a cgroup above it frozen?")

    def kill(self) -> None:
        """Send SIGKILL to all processes in the subtree, including those that fork meanwhile. Does not wait.

        Use it only before removing the cgroup. After a cgroup.kill, Linux 6.18 kills every process that
        CLONE_INTO_CGROUP starts there: it compares the cgroup's kill_seq with that of the parent's cgroup (commit
        b69bb476dee9, 6.14, and the stable kernels that have it). So ``birth_fd`` refuses the cgroup from then on."""
        self.was_killed = True
        with ignore_removed():
            self._kill()

    def _kill(self) -> None:
        try:
            if not kill_all(self.fd):
                self._kill_frozen()
                return
        except OSError as error:
            self._fail(error.errno or 0, "write", "cgroup.kill", "1")
        if self.populated:
            kill_listed(self.fd)

    def _kill_frozen(self) -> None:
        """``kill`` without cgroup.kill: frozen processes cannot fork, and SIGKILL reaches them."""
        try:
            self.freeze()
        except StepError:
            pass  # a process is in an uninterruptible call
        try:
            kill_listed(self.fd)
        finally:
            self.write("cgroup.freeze", "0")

    def birth_fd(self) -> int:
        """``fd``, for CLONE_INTO_CGROUP. Error after ``kill``, which can kill later processes too."""
        if self.was_killed:
            raise Error(
                sentence("cgroup", self.path, "was killed, so new processes in it may be killed too", "create another")
            )
        return self.fd

    # ---- state and usage

    @property
    def populated(self) -> bool:
        """Whether the subtree has a process."""
        return formats.parse_flat(self.read("cgroup.events"))["populated"] == 1

    @property
    def events(self) -> dict[str, int]:
        """``populated`` and ``frozen``; with the memory controller also ``max``, ``oom``, ``oom_kill`` ..."""
        return self._flat("cgroup.events") | self._flat("memory.events")

    @property
    def stat(self) -> dict[str, int]:
        """cpu.stat (``usage_usec``, ``nr_throttled`` ...) and memory.stat (``anon``, ``file`` ... in bytes)."""
        return self._flat("cpu.stat") | self._flat("memory.stat")

    def _flat(self, name: str) -> dict[str, int]:
        buffer = _new_buffer(_CHARS, ROOM)
        size: int = lib.mc_read_at(self.fd, name.encode(), buffer, ROOM)
        if size < 0 and -size not in (errno.ENOENT, errno.EOPNOTSUPP):
            self._fail(-size, "read", name)
        return formats.parse_flat(ffi.unpack(buffer, size).decode()) if size > 0 else {}

    def pressure(self, resource: str) -> dict[str, Pressure]:
        """``some`` and ``full`` of ``cpu``, ``memory``, ``io`` or ``irq`` (the kernel's psi)."""
        return formats.parse_pressure(self.read(f"{resource}.pressure"))

    def usage(self, *, pressure: bool = True) -> Usage:
        """The usage so far, read from as few files as possible: the first read of each costs about 10 us."""
        used = ffi.new("struct mc_usage *")
        lib.mc_measure(self.fd, self.usage_files(pressure=pressure), used)
        return self.as_usage(used)

    def usage_files(self, *, pressure: bool = True) -> int:
        """The files for ``usage``, as bits. Which of memory.peak, pids.peak and io.stat exist is known from the
        parent's ``enabled``, read once."""
        parent = self._parent
        return files_of(self.controllers if parent is None or parent.fd < 0 else parent.enabled, pressure=pressure)

    def as_usage(self, used: Any) -> Usage:
        """The usage that C has read (struct mc_usage). StepError where a read failed."""
        if used.failed:
            number, name, _ = FILES[used.failed - 1]
            self._fail(-used.records[number].result, "read", name)
        return as_usage(used)

    # ---- waiting and removal

    def wait(self, event: str, value: int, timeout: float) -> bool:
        """Wait until a line of cgroup.events has that value; False after ``timeout`` seconds."""
        return cgroupfs.wait(self.fd, f"{event} {value}\n".encode(), timeout)

    def remove(self, *, kill: bool = False, timeout: float = 10.0) -> None:
        """rmdir(2) of the cgroup and its children, and close it. ``kill``: kill its processes first.

        Waits up to ``timeout`` seconds for its processes to end, then raises EBUSY. A removed cgroup is no error.
        """
        if self.fd < 0:
            return
        number = self._rmdir()
        if number == errno.EBUSY:
            with ignore_removed():
                self._empty(kill, timeout)
            number = self._rmdir()
        if number not in (0, errno.ENOENT):
            raise StepError(number, f"rmdir({self.path!r})", hint=file_hint(number, "")) from None
        self.close()

    def _rmdir(self) -> int:
        try:
            if self._parent is None or self._parent.fd < 0:
                os.rmdir(self.path)
            else:
                os.rmdir(self.name, dir_fd=self._parent.fd)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _empty(self, kill: bool, timeout: float) -> None:
        """Wait until no process is left, and remove the children: then rmdir is possible. A cgroup is populated until
        the last of its processes has exited."""
        end = time.monotonic() + timeout
        while True:
            if kill:
                self.kill()  # repeated: a process that survived one kill may have forked
            left = end - time.monotonic()
            if self.wait("populated", 0, min(left, AGAIN) if kill else left):
                break
            if time.monotonic() >= end:
                raise StepError(errno.EBUSY, f"rmdir({self.path!r})", hint=describe_processes(self.fd))
        cgroupfs.remove_children(self.fd)


_cache: dict[str, Cgroup] = {}  # the root cgroup (methods of a dict are atomic)


def hierarchy() -> Cgroup:
    """The root of the mounted cgroup v2 hierarchy; stays open. UnsupportedError if none is mounted."""
    root = _cache.get("root")
    if root is None or root.fd < 0:
        _cache.pop("root", None)
        root = _cache.setdefault("root", Cgroup.open(cgroupfs.unified().path.rstrip("/")))
    return root


def _open_directory(name: str, at: int | None, path: str) -> int:
    try:
        return os.open(name, cgroupfs.DIRECTORY, dir_fd=at)
    except OSError as error:
        raise StepError(error.errno or 0, f"open({path!r})") from None
