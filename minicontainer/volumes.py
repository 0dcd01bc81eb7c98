"""Named volumes: directories that outlive containers, and the shutdown of the host.

    v = volumes.create("data", labels={"kind": "db"})
    v.name, v.path, v.created, v.labels
    volumes.find("data"), volumes.volumes(), volumes.users("data"), volumes.remove("data"), volumes.prune()

    NAME/_data         what is mounted; nothing is copied into it
    NAME/volume.json   when it was made, and its labels
    NAME/users/ID      one for each container that has it

Theory of operation. All are in one directory that only its owner may enter (mode 0700): what a container leaves in a
volume, set-uid files too, no ordinary user of the host can reach. A volume appears whole, by rename(2). Who makes one,
takes one into use or removes one holds the lock on that directory. The mark of a detached container counts as long as
the container's own directory is there; that of another as long as it is locked by who waits for the container.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from minicontainer import events, runtime
from minicontainer.errors import Error, SpecError, StepError, sentence
from minicontainer.linux.attributes import check_removable
from minicontainer.rootfs import removal
from minicontainer.spec.values import NAME, text

DATA, ABOUT, USERS = "_data", "volume.json", "users"
ANONYMOUS = re.compile(r"[0-9a-f]{64}")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SHOWN = 3  # users that an error names


class NoVolumeError(SpecError, LookupError):
    """There is no such volume."""


class Volume(NamedTuple):
    """One of them. ``path``: its directory on the host; ``created``: seconds since 1970."""

    name: str
    path: str
    created: float
    labels: Mapping[str, str]

    @property
    def is_anonymous(self) -> bool:
        """Whether it was made without a name."""
        return ANONYMOUS.fullmatch(self.name) is not None


def directory() -> str:
    """Where all of them are."""
    return f"{runtime.lasting()}/volumes"


def path_of(name: str) -> str:
    """What is mounted of a volume, be it there or not. SpecError where that can be no name."""
    return f"{directory()}/{check_name(name)}/{DATA}"


def owns(path: str) -> bool:
    """Whether a path is that of a volume, be it there or not."""
    return os.path.basename(path) == DATA and os.path.dirname(os.path.dirname(path)) == directory()


def check_name(name: str) -> str:
    """SpecError where it can be no name."""
    if not NAME.fullmatch(text("volume", name, empty=True)):
        raise SpecError("volume", name, f"must match {NAME.pattern}")
    return name


def create(name: str | None = None, *, labels: Mapping[str, str] | None = None) -> Volume:
    """A new volume, of that name or of 64 hexadecimal digits; one that is there already is given as it is."""
    chosen = os.urandom(32).hex() if name is None else check_name(name)
    with _locked() as place:
        return _ready(place, chosen, labels or {})


def find(name: str) -> Volume:
    """The volume of this name. NoVolumeError."""
    try:
        return _read(check_name(name))
    except FileNotFoundError:
        raise NoVolumeError("volume", name, "there is no such volume", "minicontainer volume ls lists them") from None


def volumes() -> list[Volume]:
    """All of them, by name."""
    found = []
    for name in _names():
        try:
            found.append(_read(name))
        except FileNotFoundError:
            pass  # it has just been removed
    return found


def users(name: str) -> list[str]:
    """The ids of the containers that have it, also of those that do not run."""
    try:
        place = os.open(f"{directory()}/{check_name(name)}/{USERS}", DIRECTORY)
    except FileNotFoundError:
        return []
    try:
        return sorted(user for user in os.listdir(place) if _is_used(place, user))
    finally:
        os.close(place)


def use(name: str, identifier: str) -> int:
    """Takes a volume into use for a container, and makes it where it is missing: a descriptor that is locked. For a
    detached container (64 digits) it stays in use when that is closed."""
    with _locked() as place:
        _ready(place, check_name(name), {})
        mark = f"{directory()}/{name}/{USERS}/{identifier}"
        try:
            fd = runtime.opened(mark, os.O_RDWR | os.O_CREAT)
        except ValueError as e:
            raise Error(sentence("volume", name, f"{mark} {e}", "remove it")) from None
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd


def release(fd: int) -> None:
    """Gives back what ``use`` gave: the mark goes, and the lock on it."""
    try:
        os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
    except FileNotFoundError:
        pass
    os.close(fd)


def forget(names: Iterable[str], identifier: str) -> None:
    """Removes the marks of a detached container that is gone: from now on they would not count anyway."""
    for name in names:
        with suppress(OSError):
            os.unlink(f"{directory()}/{check_name(name)}/{USERS}/{identifier}")


def remove(name: str) -> None:
    """Removes a volume with all that it holds. Error where a container has it. NoVolumeError."""
    with _locked() as place:
        find(name)
        if having := users(name):
            others = f" and {len(having) - SHOWN} more" if len(having) > SHOWN else ""
            names = ", ".join(user[:12] for user in having[:SHOWN])
            raise Error(f"volume {name}: is in use by {names}{others} (minicontainer rm removes containers)")
        _remove(place, name)


def prune(*, everything: bool = False) -> list[str]:
    """Removes those that no container has, and that have no name of somebody's choice; with ``everything`` these too.
    Their names."""
    removed = []
    with _locked() as place:
        for volume in volumes():
            if (everything or volume.is_anonymous) and not users(volume.name):
                _remove(place, volume.name)
                removed.append(volume.name)
    return removed


# ---- under the lock


@contextmanager
def _locked() -> Iterator[int]:
    """The directory of all, which is made where it is missing, as long as nobody else changes it."""
    runtime.make_directory(directory())
    place = os.open(directory(), DIRECTORY)
    try:
        if os.fstat(place).st_mode & 0o077:
            os.fchmod(place, 0o700)
        fcntl.flock(place, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(place)


def _ready(place: int, name: str, labels: Mapping[str, str]) -> Volume:
    try:
        return _read(name)
    except FileNotFoundError:
        pass
    for left in os.listdir(place):
        if left.startswith("."):
            removal.remove(place, left)  # of who was killed while it made one, or removed one
    part = f".{name}"
    os.mkdir(part, 0o700, dir_fd=place)
    for below, mode in ((DATA, 0o755), (USERS, 0o700)):
        os.mkdir(f"{part}/{below}", dir_fd=place)
        os.chmod(f"{part}/{below}", mode, dir_fd=place)  # whatever the umask is
    runtime.write(f"{directory()}/{part}/{ABOUT}", json.dumps({"created": time.time(), "labels": dict(labels)}))
    os.rename(part, name, src_dir_fd=place, dst_dir_fd=place)
    events.emit("volume", "create", name)
    return _read(name)


def _remove(place: int, name: str) -> None:
    """What it holds first: where that cannot be removed, the volume is there as before."""
    try:
        check_removable(f"{directory()}/{name}", leave=DATA)
        data = removal.open_directory(place, f"{name}/{DATA}")
        try:
            removal.empty(data)
        finally:
            os.close(data)
    except FileNotFoundError:
        pass
    except OSError as e:
        if isinstance(e, StepError) and e.hint:
            raise Error(f"volume {name}: {e}") from None
        if not isinstance(e, PermissionError):
            raise
        hint = f"from inside: minicontainer run -v {name}:/v ROOTFS rm -r /v"
        raise Error(
            f"volume {name}: holds what belongs to other ids of its containers: {e.strerror} ({hint})"
        ) from None
    os.rename(name, f".{name}", src_dir_fd=place, dst_dir_fd=place)
    removal.remove(place, f".{name}")
    events.emit("volume", "destroy", name)


def _names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory()) if NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def _read(name: str) -> Volume:
    path = f"{directory()}/{name}"
    os.stat(path)
    created, labels = 0.0, {}
    try:
        about = runtime.parsed(runtime.read(f"{path}/{ABOUT}"))
        created, labels = float(about["created"]), {str(key): str(value) for key, value in about["labels"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # what it holds is what counts
    return Volume(name, f"{path}/{DATA}", created, labels)


def _is_used(place: int, user: str) -> bool:
    """Whether a mark counts; one that does not is removed."""
    if ANONYMOUS.fullmatch(user) and os.path.isdir(f"{runtime.directory()}/containers/{user}"):
        return True
    try:
        fd = runtime.opened(user, at=place)
    except (FileNotFoundError, ValueError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(user, dir_fd=place)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)
    return False
