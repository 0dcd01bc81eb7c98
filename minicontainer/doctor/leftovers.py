"""Finds and removes what killed minicontainer processes left behind, and nothing that a live process owns.

Theory of operation. Every temporary resource is locked by its owner process, and the kernel drops the lock when that
process dies: a container with its cgroup has an ownership lock (container/registry/ownership.py), a name and an address
on a network are locked files, and an unfinished directory is a locked directory ``.XXXXXXXX.part`` beside its final
path. The locks are on files of the state directory, so they work across pid namespaces, and no container can take them.
A resource whose lock is free is a leftover. Directories are searched only in the given places, and only the caller's
own ones that have not changed for a while.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from minicontainer.container.cgroup import orphans
from minicontainer.container.registry import names
from minicontainer.detached import store
from minicontainer.detached.container import Container
from minicontainer.doctor.findings import Finding, Verdict, failure, note, ok
from minicontainer.network import members, networks, release
from minicontainer.rootfs.removal import remove

PART = re.compile(r"\.[0-9a-f]{8}\.part")
REST = 10.0  # seconds, longer than from mkdir(2) to flock(2)
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REMEDY = "minicontainer doctor --clean"


class Kind(NamedTuple):
    """One kind of resource: its name, a function that lists stale ones, one that removes one (False: not stale)."""

    name: str
    stale: Callable[[], list[str]]
    remove: Callable[[str], bool]


def kinds(directory: str) -> list[Kind]:
    """All kinds; unfinished directories are searched in ``directory``, its parent, and the doctor's temporary place."""
    here = os.path.abspath(directory)
    places = list(dict.fromkeys(map(os.path.realpath, (here, os.path.dirname(here), temporary_place()))))
    return [
        Kind("container", lambda: [entry.path for entry in store.left_behind()], _remove_container),
        Kind("address", members.dead, release.release_dead),
        Kind("network", networks.left_behind, networks.end_left_behind),
        Kind("cgroup", orphans.find, orphans.remove),
        Kind("name", names.stale, _remove_name),
        Kind("unfinished directory", lambda: stale_parts(places), _remove_part),
    ]


def findings(directory: str) -> list[Finding]:
    """The leftovers: a note for each, or one ``ok`` for a kind without any."""
    found = []
    for kind in kinds(directory):
        try:
            verdicts = [note(path, REMEDY) for path in kind.stale()] or [ok("none")]
        except Exception as error:
            verdicts = [failure(error)]
        found += [Finding(kind.name, verdict) for verdict in verdicts]
    return found


def clean(directory: str) -> list[Finding]:
    """Remove the leftovers: an ``ok`` for each removed one, a ``no`` for each that cannot be removed."""
    found = []
    for kind in kinds(directory):
        for path in kind.stale():
            verdict = _cleaned(kind, path)
            if verdict is not None:
                found.append(Finding(kind.name, verdict))
    return found


def _cleaned(kind: Kind, path: str) -> Verdict | None:
    try:
        return ok(f"removed {path}") if kind.remove(path) else None
    except Exception as error:
        return Verdict("no", f"{path}: {failure(error).detail}", failure(error).remedy)


def _remove_container(path: str) -> bool:
    """Remove a container whose monitor or owner process was killed."""
    return Container(os.path.basename(path)).remove_left_behind()


def _remove_name(path: str) -> bool:
    with _locked(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC) as fd:
        if fd is None:
            return False
        os.unlink(path)
        return True


# ---- unfinished directories


def stale_parts(places: Sequence[str]) -> list[str]:
    """The caller's unlocked ``.XXXXXXXX.part`` directories that have not changed for REST seconds."""
    found = []
    for place in places:
        try:
            candidates = [entry.name for entry in os.scandir(place) if PART.fullmatch(entry.name)]
        except OSError:
            continue
        found += [path for name in sorted(candidates) if _is_stale_part(path := f"{place.rstrip('/')}/{name}")]
    return found


def _is_stale_part(path: str) -> bool:
    with _locked(path, DIRECTORY) as fd:
        if fd is None:
            return False
        info = os.fstat(fd)
        return info.st_uid == os.geteuid() and time.time() - max(info.st_mtime, info.st_ctime) >= REST


def _remove_part(path: str) -> bool:
    with _locked(path, DIRECTORY) as fd:
        if fd is None or os.fstat(fd).st_uid != os.geteuid():
            return False
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove(parent, os.path.basename(path))
        finally:
            os.close(parent)
        return True


@contextmanager
def _locked(path: str, flags: int) -> Iterator[int | None]:
    """The file, locked and still at its path; None if another process holds the lock, or it cannot be opened."""
    try:
        fd = os.open(path, flags)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
        except OSError:
            is_ours = False
        yield fd if is_ours else None
    finally:
        os.close(fd)


# ---- temporary directories of probes


def temporary_place() -> str:
    """The directory in which ``temporary`` creates directories."""
    import tempfile

    return tempfile.gettempdir()


@contextmanager
def temporary() -> Iterator[str]:
    """A locked ``.part`` directory for a probe, removed at the end with its contents."""
    name = f".{os.urandom(4).hex()}.part"
    place = os.open(temporary_place(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(name, 0o700, dir_fd=place)
        fd = os.open(name, DIRECTORY, dir_fd=place)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield f"{temporary_place()}/{name}"
        finally:
            os.close(fd)
            remove(place, name)
    finally:
        os.close(place)
