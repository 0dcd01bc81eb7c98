"""What an earlier, killed process of ours left behind, and its removal; nothing that a live one owns.

Theory of operation. Whatever is made for a while is marked by its owner so that death takes the mark away: a container
with its cgroup is claimed (container/registry/ownership.py), a name is a locked file, an address on a network is a
locked file, a directory in the making is a locked directory called ``.XXXXXXXX.part`` beside its place. These locks are
on files of our state directory, so they hold in every pid namespace, and no container can have them. Here such things
are looked for, and taken where nobody has them. Directories are looked for only where asked, and only the caller's own
ones that have rested for a while.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from minicontainer.container.cgroup import placement
from minicontainer.container.registry import names
from minicontainer.detached import store
from minicontainer.detached.container import Container
from minicontainer.doctor.findings import Finding, Verdict, failure, note, ok
from minicontainer.network import members, networks, release
from minicontainer.rootfs.removal import remove

PART = re.compile(r"\.[0-9a-f]{8}\.part")
REST = 10.0  # seconds: longer than from mkdir(2) to flock(2)
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REMEDY = "minicontainer doctor --clean"


class Kind(NamedTuple):
    """One kind of thing: its name, how to list the stale ones, how to remove one (False: it was not stale)."""

    name: str
    stale: Callable[[], list[str]]
    remove: Callable[[str], bool]


def kinds(directory: str) -> list[Kind]:
    """All kinds; directories in the making are looked for in ``directory``, above it, and where the doctor's own go."""
    here = os.path.abspath(directory)
    places = list(dict.fromkeys(map(os.path.realpath, (here, os.path.dirname(here), temporary_place()))))
    return [
        Kind("container", lambda: [entry.path for entry in store.left_behind()], _remove_container),
        Kind("address", members.dead, release.end_dead),
        Kind("network", networks.left_behind, networks.end_left_behind),
        Kind("cgroup", placement.stale, placement.remove_stale),
        Kind("name", names.stale, _remove_name),
        Kind("unfinished directory", lambda: stale_parts(places), _remove_part),
    ]


def findings(directory: str) -> list[Finding]:
    """What was left behind: a note each, or one ``ok`` for a kind of which there is nothing."""
    found = []
    for kind in kinds(directory):
        try:
            verdicts = [note(path, REMEDY) for path in kind.stale()] or [ok("none")]
        except Exception as error:
            verdicts = [failure(error)]
        found += [Finding(kind.name, verdict) for verdict in verdicts]
    return found


def clean(directory: str) -> list[Finding]:
    """Removes all that is stale: an ``ok`` for each thing that was removed, a ``no`` for each that cannot be."""
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
    """Of a killed monitor, or of a killed maker: with all that is left of it."""
    return Container(os.path.basename(path)).remove_left_behind()


def _remove_name(path: str) -> bool:
    with _locked(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC) as fd:
        if fd is None:
            return False
        os.unlink(path)
        return True


# ---- directories in the making


def stale_parts(places: Sequence[str]) -> list[str]:
    """The caller's ``.XXXXXXXX.part`` directories that have rested for REST seconds and that nobody has locked."""
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
    """The file, locked and still at its path; None where somebody else has it, or it is not ours to open."""
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


# ---- the doctor's own


def temporary_place() -> str:
    """Where ``temporary`` makes directories."""
    import tempfile

    return tempfile.gettempdir()


@contextmanager
def temporary() -> Iterator[str]:
    """A directory for a trial, marked as the others are, and removed at the end with all that is in it."""
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
