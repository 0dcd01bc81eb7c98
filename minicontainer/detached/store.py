"""What is known of detached containers, as files: one directory each, in the runtime directory.

    containers/<id>/        64 hexadecimal digits
        config.json         what was asked for, by who made it (``Config``)
        state               what became of it, by its monitor (``State``, csrc/monitor/state.c); of one that waits to be
                            started, by who made it; none of one that is in the making
        .state              where its monitor writes next
        log, log.1 ...      what it wrote (csrc/monitor/log.c)
        control             the monitor's socket (csrc/monitor/control.c)
        seccomp             the filter of system calls, where that came of a file
        cgroup              a link to its cgroup, while it runs
        lease               a link to the file of its address, while it is on a network (network/leases.py)
    names/NAME              the id of who has that name (container/registry/names.py)

One in the foreground (registered.py) has the first of these as long as it runs, and ``state``, by who made it.

Theory of operation. Files are written beside their place, synced and renamed: a reader sees the one or the other. Who
changes a container holds a flock(2) on its directory; who reads needs none. Nothing here is believed across a reboot or
after a death: a process is a number, its start time and the boot id, which are compared; that its monitor lives is
told by a lock (container/registry/ownership.py), which holds in every pid namespace.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from minicontainer import events, runtime
from minicontainer.container.registry import names, orphans, ownership
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.errors import EXHAUSTED, Error, SpecError, StepError, as_step_error
from minicontainer.failpoint import failpoint
from minicontainer.linux import attributes

RECORDS = ("config.json", "state")  # ``ps`` reads them
ROOM = 1024  # bytes of a state, with blanks (csrc/monitor/state.c)


class NotFoundError(SpecError, LookupError):
    """There is no such container."""


class Entry:
    """The directory of one container."""

    __slots__ = ("id", "path")

    def __init__(self, identifier: str) -> None:
        self.id, self.path = identifier, names.detached(identifier)

    @classmethod
    def create(cls) -> tuple[Entry, int]:
        """A new directory, and its lock (a descriptor)."""
        entry = cls(os.urandom(32).hex())
        try:
            os.mkdir(entry.path, 0o700)
        except FileNotFoundError:
            runtime.make_directory(os.path.dirname(entry.path))
            os.mkdir(entry.path, 0o700)
        try:
            return entry, entry.lock()
        except BaseException:
            os.rmdir(entry.path)
            raise

    def open(self) -> int:
        """A descriptor of the directory."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError("container", self.id[:12], "is gone") from None

    def lock(self, *, wait: bool = True) -> int:
        """The exclusive right to change it, as long as the descriptor is open. BlockingIOError where another has it and
        ``wait`` is false."""
        fd = self.open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(fd).st_nlink == 0:
                raise NotFoundError("container", self.id[:12], "is gone")
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextmanager
    def locked(self) -> Iterator[int]:
        """``lock``, for a while."""
        fd = self.lock()
        try:
            yield fd
        finally:
            os.close(fd)

    def config(self) -> Config:
        """What was asked for. CorruptError where that cannot be read."""
        return Config.from_json(self._read("config.json"))

    def write_config(self, config: Config) -> None:
        """Replaces config.json."""
        self._replace("config.json", config.to_json())

    def write_created(self) -> None:
        """Says that it is whole, and was not started yet: it is nothing that was left behind."""
        self._replace("state", State("created").to_json())

    def reserve_state(self) -> None:
        """Room for the state of one that has no monitor to write it."""
        runtime.write(f"{self.path}/.state", " " * ROOM)

    def write_state(self, text: str) -> None:
        """That state, in its room: no full disk keeps it from being told."""
        self._overwrite(".state", text)
        os.rename(f"{self.path}/.state", f"{self.path}/state")

    def overwrite_state(self, text: str) -> None:
        """The same in the file that is there, for who has it open."""
        self._overwrite("state", text)

    def _overwrite(self, name: str, text: str) -> None:
        with open(f"{self.path}/{name}", "r+b", buffering=0) as f:
            f.write(text.encode().ljust(ROOM))
            os.fsync(f.fileno())

    def _replace(self, name: str, text: str) -> None:
        part = f"{self.path}/.{name.partition('.')[0]}"
        runtime.write(part, text)
        os.rename(part, f"{self.path}/{name}")

    def keep(self, name: str, data: bytes) -> str:
        """A file of its directory, which goes with that; its path."""
        path = f"{self.path}/{name}"
        runtime.write(path, data)
        return path

    def link(self, name: str, path: str) -> None:
        """Its link of that name leads to ``path``."""
        link = f"{self.path}/{name}"
        try:
            os.unlink(link)
        except FileNotFoundError:
            pass
        try:
            os.symlink(path, link)
        except OSError as e:
            raise StepError(e.errno or 0, f"symlink({link!r})") from None

    def lease(self) -> str:
        """The path of the file of its address; "" where it has none."""
        return orphans.link(self.id, "lease")

    def state(self) -> State:
        """What became of it."""
        try:
            state = self._told()
            if state.status == "dead":  # or its monitor wrote its end, and ended, between two looks
                state = self._told()
        except CorruptError:
            if os.path.exists(f"{self.path}/state") or not os.path.isdir(self.path):
                raise
            if self.is_in_the_making() and self.config().foreground:  # its program may run by now
                os.close(self.lock())
                return self.state()
            return State("created")
        if state.status == "running" and self.is_frozen():
            return replace(state, status="paused")
        return state

    def _told(self) -> State:
        """As its file says; whether its monitor lives is looked at before. Who reads slowly may find it writing there
        again: then the other file is the newer one."""
        for _ in range(3):
            watched, text = self.is_watched(), self._read("state")
            if text and not text.strip():  # room for it
                return State("created")
            try:
                return State.from_json(text, watched=watched)
            except CorruptError as e:
                error = e
        raise error

    def is_watched(self) -> bool:
        """Whether its monitor lives, or its maker."""
        return ownership.is_owned(self.id[:12])

    def cgroup(self) -> str:
        """The path of its cgroup; "" where it has none."""
        return orphans.link(self.id, "cgroup")

    def is_frozen(self) -> bool:
        """Whether it is paused."""
        try:
            return runtime.read(f"{self.path}/cgroup/cgroup.freeze")[:1] == "1"
        except (OSError, ValueError):
            return False

    def _read(self, name: str) -> str:
        try:
            return runtime.read(f"{self.path}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(self.path):
                raise NotFoundError("container", self.id[:12], "is gone") from None
            raise CorruptError(f"{name}: is missing") from None
        except OSError as e:
            if e.errno in EXHAUSTED:  # that says nothing of the file
                raise as_step_error(e, name) from None
            raise CorruptError(f"{name}: {e.strerror}") from None
        except ValueError as e:
            raise CorruptError(f"{name}: {e}") from None

    def is_in_the_making(self) -> bool:
        """Whether somebody holds its lock."""
        try:
            os.close(self.lock(wait=False))
        except BlockingIOError:
            return True
        except NotFoundError:
            pass  # it is gone
        return False

    def remove(self) -> None:
        """The directory with all that is in it; its name is free then."""
        name, was_made = "", os.path.exists(f"{self.path}/config.json")
        had: tuple[str, ...] = ()
        try:
            config = self.config()
            name, known, had = config.name, [config.name, config.renaming], config.spec.volumes
        except (CorruptError, NotFoundError):
            known = names.all_names()
        failpoint("about to remove")
        self._remove_files()
        failpoint("directory removed")
        for taken in filter(None, known):
            forget_name(taken, self.id)
        if had:
            from minicontainer import volumes

            volumes.forget(had, self.id)
        if was_made:
            events.tell("container", "destroy", self.id, name=name)

    def check_removable(self) -> None:
        """Error where a file of its state directory is immutable, append-only (chattr(1)) or a mount point."""
        try:
            attributes.check_removable(self.path)
        except FileNotFoundError:
            pass
        except StepError as e:
            raise Error(f"container {self.id[:12]}: {e}") from None

    def _remove_files(self) -> None:
        """Removes the state directory; all or nothing where a file has such an obstacle. The records go last: after any
        other failure the container keeps its state."""
        self.check_removable()
        try:
            for name in sorted(os.listdir(self.path), key=lambda name: RECORDS.index(name) if name in RECORDS else -1):
                attributes.remove_tree(f"{self.path}/{name}")
            attributes.remove_tree(self.path)
        except FileNotFoundError:
            pass
        except StepError as e:
            raise Error(f"container {self.id[:12]}: {e}") from None


def forget_name(name: str, identifier: str) -> None:
    """Removes the file of a name that is this container's."""
    try:
        path = f"{names.directory()}/{name}"
        if runtime.read(path).split()[1:2] == [identifier]:
            os.unlink(path)
    except (OSError, ValueError):
        pass  # it is gone, or nobody's


# ---- all of them


def find(text: str) -> Entry:
    """The container of an id, a name, or an unambiguous beginning of an id; in this order, as docker's.
    NotFoundError where there is none, SpecError where there are several."""
    found = names.find(text)
    if len(found) > 1:
        raise SpecError("container", text, f"could be any of {len(found)}", "give more of its id")
    if not found:
        raise NotFoundError("container", text, "there is no such container", "minicontainer ps -a lists them")
    return Entry(found[0])


def left(text: str) -> str:
    """The id of the container of this name that was in the foreground of who was killed; "" where there is none."""
    from minicontainer.spec import NAME

    return names.left_in_foreground(text) if NAME.fullmatch(text) else ""


REST = 10.0  # seconds that may pass from mkdir(2) to the lock


def left_behind() -> list[Entry]:
    """What a killed process left: nobody has its lock, and it neither runs, nor has ended, nor waits to be started."""
    return [entry for entry in map(Entry, names.ids()) if is_left_behind(entry) and not entry.is_in_the_making()]


def is_left_behind(entry: Entry) -> bool:
    """Whether its monitor was killed, or its maker, as far as its files say."""
    try:
        entry.config()
        status = entry.state().status
        return status == "dead" or (status == "created" and not os.path.exists(f"{entry.path}/state"))
    except NotFoundError:
        return False
    except CorruptError:
        try:
            return time.time() - os.stat(entry.path).st_mtime >= REST
        except FileNotFoundError:
            return False
