"""Where a container's cgroup goes, who owns it, and what a dead owner left behind.

Theory of operation. All containers of one base share a home, so that one directory has to be looked at:

    BASE/minicontainer/<id>-<pid>-<starttime>      one container, named after the process that made it
                                                   (minicontainer-<mark>: of another state directory)
    BASE/minicontainer/monitors                    the monitors of detached containers
    BASE/minicontainer.caller                      who lived in BASE itself, when that had to be empty

BASE is the root of the hierarchy for who may write there (root), else the caller's own cgroup if that was delegated
(cgroups(7) "Delegation"), else there is none: a container without limits runs anyway, one with limits cannot.
Controllers are enabled from BASE down when a limit first needs them. A cgroup with member processes cannot give
controllers to its children ("no internal processes"), so these go to the leaf beside the home; CLONE_INTO_CGROUP
needs no more than that cgroup.procs of BASE, the common ancestor, is writable.

The owner also holds a flock(2) on the directory: a pid tells nothing to a process of another pid namespace.

The home is kept open, and looked for anew when it turns out to be gone or to be no longer ours.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from minicontainer import runtime
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup, hierarchy
from minicontainer.linux.process import stat

MONITORS = "monitors"
CALLER = "minicontainer.caller"
NAME = re.compile(r"[0-9a-f]{12}-(\d+)-(\d+)")

# Enabled in the home where its base has them: they cost a container nothing that it would notice, and tell its peaks.
ACCOUNTING = frozenset({"memory", "pids", "io"})

# What mkdirat says when the home was removed, its descriptor closed behind our back, or privileges were given up.
GONE = (errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ENOTDIR, errno.EACCES, errno.EPERM)

SCOPE_HINT = "run it under: systemd-run --user --scope -p Delegate=yes"
SERVICE_HINT = "systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids"

Needs = Mapping[str, tuple[str, object]]  # controller -> the option that needs it, and its value

_home: Cgroup | None = None
_homeless = False
_owner = (0, "")


def place(ident: str, needed: Needs) -> Cgroup | None:
    """Makes the cgroup of container ``ident`` (12 hex digits), with the controllers ``needed``.

    None where this host gives the caller no place and nothing is needed; UnsupportedError where something is.
    """
    name = f"{ident}-{owner()}"
    if _home is None:
        if _homeless and not needed:
            return None
    elif _home.name == home_name():
        try:
            if _home.enabled.issuperset(needed):
                return _claimed(Cgroup.create(name, _home))
        except StepError as error:
            if error.errno not in GONE:
                raise
    home = _settle(needed)
    return None if home is None else _claimed(Cgroup.create(name, home))


def monitors() -> Cgroup | None:
    """Where the monitors of detached containers are, beside these: not in the caller's, which may end before them."""
    if _home is None:
        return None
    try:
        return Cgroup.create(MONITORS, _home, exist_ok=True)
    except StepError as error:
        if error.errno not in GONE:
            raise
        return None


def home_name() -> str:
    """That of the containers of this state directory."""
    return "minicontainer" + runtime.suffix()


def _claimed(group: Cgroup) -> Cgroup:
    fcntl.flock(group.fd, fcntl.LOCK_SH)
    return group


def discard(ident: str) -> None:
    """Removes what a ``place`` that was interrupted may have made."""
    if _home is not None:
        try:
            os.rmdir(f"{ident}-{owner()}", dir_fd=_home.fd)
        except OSError:
            pass  # it was not made


# ---- the home


def _settle(needed: Needs) -> Cgroup | None:
    """Finds the base, makes the home in it, and enables controllers on the way down."""
    global _home, _homeless  # noqa: PLW0603
    try:
        check(needed)
        below = base()
    except UnsupportedError as error:
        if needed:
            _refuse(next(iter(needed)), needed, error.reason, error.hint)
        _homeless = True
        return None
    home = Cgroup.create(home_name(), below, exist_ok=True)
    _enable(below, needed)
    _enable(home, needed)
    _account(home)
    _home = home
    return home


def check(needed: Needs) -> None:
    """UnsupportedError saying why, where this host has not all controllers on version 2."""
    for controller in set(needed) - hierarchy().controllers if needed else ():
        _refuse(controller, needed, *cgroupfs.absence(controller))


def provide(group: Cgroup, needed: Needs) -> None:
    """Gives a container's cgroup, as ``place`` made it, controllers that no limit has needed so far."""
    if set(needed) <= group.controllers:
        return
    check(needed)
    home = os.path.dirname(group.path)
    for path in (os.path.dirname(home), home):
        _enable(Cgroup.open(path), needed)


def base() -> Cgroup:
    """The cgroup below which this caller's containers go. UnsupportedError saying why there is none."""
    top = hierarchy()
    if _writable(top):
        return top
    path = cgroupfs.membership()
    own = Cgroup.open(path.removesuffix("/" + CALLER))
    if _writable(own):
        return own
    if os.fstatvfs(own.fd).f_flag & os.ST_RDONLY:
        raise UnsupportedError("cgroup", own.path, "cgroup2 is mounted read-only here", "mount it writable")
    raise UnsupportedError("cgroup", own.path, f"{own.path} is not delegated to user {os.geteuid()}", SCOPE_HINT)


def _writable(group: Cgroup) -> bool:
    return all(
        os.access(name, os.W_OK, dir_fd=group.fd, effective_ids=True)
        for name in (".", "cgroup.procs", "cgroup.subtree_control")
    )


def _enable(group: Cgroup, needed: Needs) -> None:
    missing = sorted(set(needed) - group.enabled)
    if not missing:
        return
    for controller in set(missing) - group.controllers:
        _refuse(controller, needed, f"the {controller} controller is not delegated to {group.path}", SERVICE_HINT)
    try:
        group.enable(*missing)
    except StepError as error:
        if error.errno != errno.EBUSY:
            raise
        _vacate(group)
        group.enable(*missing)


def _vacate(group: Cgroup) -> None:
    """Moves the member processes to a leaf. Again and again, for they fork meanwhile."""
    leaf = Cgroup.create(CALLER, group, exist_ok=True)
    for _ in range(100):
        members = [pid for pid in group.procs if pid]  # 0: of a pid namespace that we do not see
        if not members:
            return
        for pid in members:
            try:
                leaf.add(pid)
            except StepError as error:
                if error.errno != errno.ESRCH:
                    raise


def _account(home: Cgroup) -> None:
    extra = (home.controllers & ACCOUNTING) - home.enabled
    if extra:
        try:
            home.enable(*sorted(extra))
        except StepError as error:  # nobody asked for them: usage then says None
            if error.errno not in (errno.EBUSY, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP):
                raise


def _refuse(controller: str, needed: Needs, reason: str, hint: str) -> NoReturn:
    option, value = needed[controller]
    raise UnsupportedError(option, value, reason, hint)


# ---- owners


def owner() -> str:
    """``<pid>-<starttime>`` of this process: together they name it for as long as the host is up."""
    global _owner  # noqa: PLW0603
    pid, text = _owner
    if pid != os.getpid():  # the first time, or forked since
        own = stat("self")
        text = f"{own.pid}-{own.start}"
        _owner = (os.getpid(), text)
    return text


def alive(name: str) -> bool:
    """Whether the owner of a container's cgroup lives, by the cgroup's name; a zombie does not."""
    match = NAME.fullmatch(name)
    try:
        found = stat(match[1]) if match else None
    except ProcessLookupError:
        return False
    return match is not None and found is not None and found.state not in "ZX" and found.start == int(match[2])


def stale() -> list[str]:
    """The containers' cgroups (paths) that the caller could remove and whose owner is dead."""
    found = [path for home in _homes() for path in _members(home)]
    return [path for path in found if not alive(path.rpartition("/")[2]) and not _is_claimed(path)]


def clean() -> list[str]:
    """Removes what ``stale`` lists, with the processes in it; returns what was removed."""
    removed = []
    for path in stale():
        try:
            Cgroup.open(path).remove(kill=True)
        except StepError as error:
            if error.errno != errno.ENOENT:  # somebody else cleans too
                raise
            continue
        removed.append(path)
    return removed


def _is_claimed(path: str) -> bool:
    try:
        group = Cgroup.open(path)
    except StepError:
        return True  # it has gone: nothing to clean
    try:
        fcntl.flock(group.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        group.close()
    return False


def _homes() -> Iterator[str]:
    try:
        top, own = hierarchy().path, cgroupfs.membership().removesuffix("/" + CALLER)
    except UnsupportedError:
        return
    for base in dict.fromkeys((top, own)):
        home = f"{base}/{home_name()}"
        if os.access(home, os.W_OK, effective_ids=True):
            yield home


def _members(home: str) -> list[str]:
    return sorted(entry.path for entry in os.scandir(home) if NAME.fullmatch(entry.name))
