"""The state directory of containers: one directory each.

    containers/<id>/        64 hexadecimal digits
        config.json         the configuration, written by the creator (``Config``)
        state               the state, written by the monitor (``State``, csrc/monitor/state.c), or by the creator of a
                            container that was not started yet; missing while the container is being created
        .state              the spare file, which the monitor writes next
        log, log.1 ...      the output (csrc/monitor/log.c)
        control             the monitor's socket (csrc/monitor/control.c)
        vsock               the socket of a machine (vsock.py)
        seccomp             the seccomp filter, if it came from a file
        cgroup              a link to the cgroup, while the container runs
        lease               a link to the file of the network lease, while the container has one (network/leases.py)
    names/NAME              the id of the container that has this name (container/registry/names.py)

A foreground container (registered.py) has config.json and ``state``, written by its creator, while it runs.

Theory of operation. A file is written under another name, synced and renamed: a reader sees the old or the new one. A
process that changes a container holds a flock(2) on its directory; a reader needs no lock. A pid is valid only with its
start time and boot id, which are compared. Whether the monitor lives is seen by the ownership lock
(container/registry/ownership.py), which works across pid namespaces.
"""

from __future__ import annotations

import fcntl
import os
import time

from minicontainer import runtime
from minicontainer.container.registry import names, orphans, ownership
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.errors import EXHAUSTED, Error, SpecError, StepError, as_step_error
from minicontainer.failpoint import failpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import contextmanager
    from dataclasses import replace
else:
    from minicontainer.light import contextmanager
    from minicontainer.records import replace

RECORDS = ("config.json", "state")  # the files that ``ps`` reads; removed last
STATE_SIZE = 1024  # bytes of a state file, padded with blanks (csrc/monitor/state.c)


class NotFoundError(SpecError, LookupError):
    """There is no such container."""


class Entry:
    """The directory of one container."""

    __slots__ = ("_holds", "id", "path")

    def __init__(self, identifier: str) -> None:
        self.id, self.path = identifier, names.detached(identifier)
        self._holds = False  # the lock

    @classmethod
    def create(cls) -> tuple[Entry, int]:
        """Creates a directory; returns the Entry and the lock (a descriptor)."""
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
        """An exclusive flock(2) on the directory: a descriptor, whose close releases it. BlockingIOError if another
        process holds the lock and ``wait`` is false."""
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
    def locked(self, *, wait: bool = True) -> Iterator[int]:
        """Holds ``lock`` within the ``with`` block."""
        fd = self.lock(wait=wait)
        try:
            self._holds = True
            yield fd
        finally:
            self._holds = False
            os.close(fd)

    def config(self) -> Config:
        """The configuration. CorruptError if it cannot be read."""
        return Config.from_json(self._read("config.json"))

    def write_config(self, config: Config) -> None:
        """Replaces config.json."""
        self._replace("config.json", config.to_json())

    def write_created(self) -> None:
        """Writes the state ``created``: creation is complete, so the directory does not count as left behind."""
        self._replace("state", State("created").to_json())

    def reserve_state(self) -> None:
        """Creates the spare state file of a container without a monitor."""
        runtime.write(f"{self.path}/.state", " " * STATE_SIZE)

    def write_state(self, text: str) -> None:
        """Writes the state to the blocks that ``reserve_state`` allocated: so it cannot fail on a full disk."""
        self._overwrite(".state", text)
        os.rename(f"{self.path}/.state", f"{self.path}/state")

    def overwrite_state(self, text: str) -> None:
        """Overwrites the state file in place, for processes that have it open."""
        self._overwrite("state", text)

    def _overwrite(self, name: str, text: str) -> None:
        with open(f"{self.path}/{name}", "r+b", buffering=0) as f:
            f.write(text.encode().ljust(STATE_SIZE))
            os.fsync(f.fileno())

    def _replace(self, name: str, text: str) -> None:
        part = f"{self.path}/.{name.partition('.')[0]}"
        runtime.write(part, text)
        os.rename(part, f"{self.path}/{name}")

    def add_file(self, name: str, data: bytes) -> str:
        """Writes a further file of the directory; returns its path."""
        path = f"{self.path}/{name}"
        runtime.write(path, data)
        return path

    def link(self, name: str, path: str) -> None:
        """Makes the symbolic link ``name`` to ``path``, or replaces it."""
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
        """The path of the lease file; "" without a lease."""
        return orphans.link(self.id, "lease")

    def state(self) -> State:
        """The current state. CorruptError."""
        try:
            state = self._read_state()
            if state.status == "dead":  # unless the monitor wrote the final state and exited after is_owner_alive()
                state = self._read_state()
        except CorruptError:
            if os.path.exists(f"{self.path}/state") or not os.path.isdir(self.path):
                raise
            if not self.is_locked():
                return self._unstarted()
            if (config := self.config()).foreground and config.spec.isolation == "container":
                os.close(self.lock())  # its creator is starting it: wait for that, as it is done at once
                return self.state()
            return State("created")
        if state.status == "running" and self.is_frozen():
            return replace(state, status="paused")
        return state

    def _unstarted(self) -> State:
        """The state of a container without a state file that nobody starts any more: its creator was killed, without
        whom one in the foreground is of no use."""
        try:
            return self._read_state()  # its creator has just written it
        except CorruptError:
            has_config = os.path.exists(f"{self.path}/config.json")
            return State("dead" if has_config and self.config().foreground else "created")

    def _read_state(self) -> State:
        """The state file, and whether the owner lived before it was read. A slow reader may see the monitor's next
        write to the same file: then it reads ``state`` again, which is the newer file by then."""
        for _ in range(3):
            alive, text = self.is_owner_alive(), self._read("state")
            if text and not text.strip():  # blanks: reserved, not written yet
                return State("created")
            try:
                return State.from_json(text, owner_alive=alive)
            except CorruptError as e:
                error = e
        raise error

    def is_owner_alive(self) -> bool:
        """Whether the monitor lives, or the creator of a foreground container: it holds the ownership lock."""
        return ownership.is_owned(self.id[:12])

    def cgroup(self) -> str:
        """The path of the cgroup; "" without one."""
        return orphans.link(self.id, "cgroup")

    def is_frozen(self) -> bool:
        """Whether the container is paused."""
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
            if e.errno in EXHAUSTED:  # such an error says nothing about the file
                raise as_step_error(e, name) from None
            raise CorruptError(f"{name}: {e.strerror}") from None
        except ValueError as e:
            raise CorruptError(f"{name}: {e}") from None

    def is_locked(self) -> bool:
        """Whether somebody else holds the lock: he creates or changes the container."""
        if self._holds:
            return False
        try:
            os.close(self.lock(wait=False))
        except BlockingIOError:
            return True
        except NotFoundError:
            pass  # it is gone
        return False

    def remove(self) -> None:
        """Removes the directory, and releases the name and the volumes."""
        name, was_created = "", os.path.exists(f"{self.path}/config.json")
        volume_names: tuple[str, ...] = ()
        try:
            config = self.config()
            name, candidates, volume_names = config.name, [config.name, config.renaming], config.spec.volumes
        except (CorruptError, NotFoundError):
            candidates = names.all_names()
        failpoint("about to remove")
        self._remove_files()
        failpoint("directory removed")
        for candidate in filter(None, candidates):
            forget_name(candidate, self.id)
        if volume_names:
            from minicontainer import volumes

            volumes.forget(volume_names, self.id)
        if was_created:
            from minicontainer import events

            events.emit("container", "destroy", self.id, name=name)

    def check_removable(self) -> None:
        """Error where a file of its state directory is immutable, append-only (chattr(1)) or a mount point."""
        from minicontainer.linux import attributes

        try:
            attributes.check_removable(self.path)
        except FileNotFoundError:
            pass
        except StepError as e:
            raise Error(f"container {self.id[:12]}: {e}") from None

    def _remove_files(self) -> None:
        """Removes the state directory. Removes nothing if ``check_removable`` finds an obstacle. The records are
        removed last: after any other failure the container still has its state."""
        from minicontainer.linux import attributes

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
    """Removes the file of a name, if the name belongs to this container."""
    try:
        path = f"{names.directory()}/{name}"
        if runtime.read(path).split()[1:2] == [identifier]:
            os.unlink(path)
    except (OSError, ValueError):
        pass  # it is gone, or not valid


# ---- all containers


def find(text: str) -> Entry:
    """The container of an id, a name, or an unambiguous beginning of an id; in this order, as in docker.
    NotFoundError if there is none, SpecError if there are several."""
    matches = names.find(text)
    if len(matches) > 1:
        raise SpecError("container", text, f"could be any of {len(matches)}", "give more of its id")
    if not matches:
        raise NotFoundError("container", text, "there is no such container", "minicontainer ps -a lists them")
    return Entry(matches[0])


def left(text: str) -> str:
    """The id of the foreground container of this name whose creator was killed; "" if there is none."""
    from minicontainer.spec import is_name

    return names.left_in_foreground(text) if is_name(text) else ""


LOCK_GRACE = 10.0  # seconds that may pass between mkdir(2) and the lock


def left_behind() -> list[Entry]:
    """Directories that a killed process left behind: no process holds the lock, and the container neither runs, nor has
    ended, nor waits for its start."""
    return [entry for entry in map(Entry, names.ids()) if is_left_behind(entry) and not entry.is_locked()]


def is_left_behind(entry: Entry) -> bool:
    """Whether the monitor or the creator was killed, according to the files."""
    try:
        entry.config()
        status = entry.state().status
        return status == "dead" or (status == "created" and not os.path.exists(f"{entry.path}/state"))
    except NotFoundError:
        return False
    except CorruptError:
        try:
            return time.time() - os.stat(entry.path).st_mtime >= LOCK_GRACE
        except FileNotFoundError:
            return False
