"""Named volumes: directories that outlive containers and reboots.

    v = volumes.create("data", labels={"kind": "db"})
    v.name, v.path, v.created, v.labels
    volumes.find("data"), volumes.volumes(), volumes.users("data"), volumes.remove("data"), volumes.prune()

    NAME/_data         the directory that is mounted; nothing is copied into it
    NAME/volume.json   creation time and labels
    NAME/users/ID      the use file of each container that uses the volume

Theory of operation. All volumes are in one directory of mode 0700: no ordinary user of the host can reach files in a
volume, such as set-uid files of a container. A volume is created under another name and renamed, so it is always
complete. A process that creates, uses or removes a volume holds a lock on that directory. The use file of a detached
container is valid while the container's directory exists; that of another container while its creator has the file
locked.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from minicontainer import events, runtime
from minicontainer.errors import Error, SpecError, StepError, sentence
from minicontainer.linux.attributes import check_removable
from minicontainer.rootfs import removal
from minicontainer.spec.values import NAME_PATTERN, is_name, text

DATA, METADATA, USERS = "_data", "volume.json", "users"
ANONYMOUS = re.compile(r"[0-9a-f]{64}")
NAMED_USERS = 3  # containers that an error names


class NoVolumeError(SpecError, LookupError):
    """There is no such volume."""


class Volume(NamedTuple):
    """One volume. ``path``: its directory on the host; ``created``: seconds since 1970."""

    name: str
    path: str
    created: float
    labels: Mapping[str, str]

    @property
    def is_anonymous(self) -> bool:
        """Whether it was created without a name."""
        return ANONYMOUS.fullmatch(self.name) is not None


def directory() -> str:
    """The directory of all volumes."""
    return f"{runtime.persistent()}/volumes"


def path_of(name: str) -> str:
    """The directory of a volume that is mounted, existing or not. SpecError if the name is invalid."""
    return f"{directory()}/{check_name(name)}/{DATA}"


def owns(path: str) -> bool:
    """Whether a path is the mounted directory of a volume, existing or not."""
    return os.path.basename(path) == DATA and os.path.dirname(os.path.dirname(path)) == directory()


def check_name(name: str) -> str:
    """Returns the name; SpecError if it is invalid."""
    if not is_name(text("volume", name, empty=True)):
        raise SpecError("volume", name, f"must match {NAME_PATTERN}")
    return name


def create(name: str | None = None, *, labels: Mapping[str, str] | None = None) -> Volume:
    """Creates a volume of that name, or of 64 random hexadecimal digits; returns an existing one as it is."""
    chosen = os.urandom(32).hex() if name is None else check_name(name)
    with runtime.locked_directory(directory()) as parent:
        return _ensure(parent, chosen, labels or {})


def find(name: str) -> Volume:
    """The volume of this name. NoVolumeError."""
    try:
        return _read(check_name(name))
    except FileNotFoundError:
        raise NoVolumeError("volume", name, "there is no such volume", "minicontainer volume ls lists them") from None


def volumes() -> list[Volume]:
    """All volumes, by name."""
    readable = []
    for name in _names():
        try:
            readable.append(_read(name))
        except FileNotFoundError:
            pass  # it has just been removed
    return readable


def users(name: str) -> list[str]:
    """The ids of the containers that use the volume, running or not."""
    try:
        parent = os.open(f"{directory()}/{check_name(name)}/{USERS}", runtime.DIRECTORY)
    except FileNotFoundError:
        return []
    try:
        return sorted(user for user in os.listdir(parent) if _is_used(parent, user))
    finally:
        os.close(parent)


def use(name: str, identifier: str) -> int:
    """Marks a volume as used by a container, creating it if it is missing; returns the locked use file (a descriptor).
    A detached container (64 digits) uses the volume until it is removed, whether or not the descriptor is open."""
    with runtime.locked_directory(directory()) as parent:
        _ensure(parent, check_name(name), {})
        use_file = f"{directory()}/{name}/{USERS}/{identifier}"
        try:
            fd = runtime.open_regular(use_file, os.O_RDWR | os.O_CREAT)
        except ValueError as e:
            raise Error(sentence("volume", name, f"{use_file} {e}", "remove it")) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd


def release(fd: int) -> None:
    """Removes and closes a use file that ``use`` returned."""
    try:
        os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
    except FileNotFoundError:
        pass
    os.close(fd)


def forget(names: Iterable[str], identifier: str) -> None:
    """Removes the use files of a detached container that was removed; they are not valid any more."""
    for name in names:
        with suppress(OSError):
            os.unlink(f"{directory()}/{check_name(name)}/{USERS}/{identifier}")


def remove(name: str) -> None:
    """Removes a volume with its files. Error if a container uses it. NoVolumeError."""
    with runtime.locked_directory(directory()) as parent:
        find(name)
        if ids := users(name):
            others = f" and {len(ids) - NAMED_USERS} more" if len(ids) > NAMED_USERS else ""
            names = ", ".join(user[:12] for user in ids[:NAMED_USERS])
            raise Error(f"volume {name}: is in use by {names}{others} (minicontainer rm removes containers)")
        _remove(parent, name)


def prune(*, everything: bool = False) -> list[str]:
    """Removes anonymous volumes that no container uses; with ``everything`` named ones too. Returns their names."""
    removed = []
    with runtime.locked_directory(directory()) as parent:
        for volume in volumes():
            if (everything or volume.is_anonymous) and not users(volume.name):
                _remove(parent, volume.name)
                removed.append(volume.name)
    return removed


# ---- under the lock


def _ensure(parent: int, name: str, labels: Mapping[str, str]) -> Volume:
    try:
        return _read(name)
    except FileNotFoundError:
        pass
    for entry in os.listdir(parent):
        if entry.startswith("."):
            removal.remove(parent, entry)  # of a process that was killed in ``create`` or ``remove``
    part = f".{name}"
    os.mkdir(part, 0o700, dir_fd=parent)
    for below, mode in ((DATA, 0o755), (USERS, 0o700)):
        os.mkdir(f"{part}/{below}", dir_fd=parent)
        os.chmod(f"{part}/{below}", mode, dir_fd=parent)  # whatever the umask is
    runtime.write(f"{directory()}/{part}/{METADATA}", json.dumps({"created": time.time(), "labels": dict(labels)}))
    os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
    events.emit("volume", "create", name)
    return _read(name)


def _remove(parent: int, name: str) -> None:
    """Removes the contents first: if that fails, the volume still exists."""
    try:
        check_removable(f"{directory()}/{name}", leave=DATA)
        data = removal.open_directory(parent, f"{name}/{DATA}")
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
    os.rename(name, f".{name}", src_dir_fd=parent, dst_dir_fd=parent)
    removal.remove(parent, f".{name}")
    events.emit("volume", "destroy", name)


def _names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory()) if is_name(name))
    except FileNotFoundError:
        return []


def _read(name: str) -> Volume:
    path = f"{directory()}/{name}"
    os.stat(path)
    created, labels = 0.0, {}
    try:
        metadata = runtime.parse_object(runtime.read(f"{path}/{METADATA}"))
        created, labels = (
            float(metadata["created"]),
            {str(key): str(value) for key, value in metadata["labels"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # the data is usable without the metadata
    return Volume(name, f"{path}/{DATA}", created, labels)


def _is_used(parent: int, user: str) -> bool:
    """Whether a use file is valid; an invalid one is removed."""
    if ANONYMOUS.fullmatch(user) and os.path.isdir(f"{runtime.directory()}/containers/{user}"):
        return True
    try:
        fd = runtime.open_regular(user, at=parent)
    except (FileNotFoundError, ValueError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(user, dir_fd=parent)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)
    return False
