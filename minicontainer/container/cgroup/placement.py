"""Where a container's cgroup goes, who owns it, and what a dead owner left behind.

Theory of operation. All containers of one base share a home, so that one directory has to be looked at:

    BASE/minicontainer/<id>-<mark>                 one container, with the mark of its state directory
                                                   (minicontainer-<mark>/: where that is not the default one)
    BASE/minicontainer/monitors                    the monitors of detached containers
    BASE/minicontainer.caller                      who lived in BASE itself, when that had to be empty

BASE is the root of the hierarchy for who may write there (root), else the caller's own cgroup if that was delegated
(cgroups(7) "Delegation"), else there is none: a container without limits runs anyway, one with limits cannot.
Controllers are enabled from BASE down when a limit first needs them. A cgroup with member processes cannot give
controllers to its children ("no internal processes"), so these go to the leaf beside the home; CLONE_INTO_CGROUP
needs no more than that cgroup.procs of BASE, the common ancestor, is writable.

Who made a container, or its monitor, has a claim on it (``owners``) for as long as it lives. Only what bears the mark
of our own state directory is ever taken for left behind: of the others nobody here can know.

The home is kept open, and looked for anew when it turns out to be gone or to be no longer ours.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping

from minicontainer import runtime
from minicontainer.container.registry import ownership
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup, hierarchy

MONITORS = "monitors"
CALLER = "minicontainer.caller"
NAME = re.compile(r"([0-9a-f]{12})-([0-9a-f]{8})")

# Enabled in the home where its base has them: they cost a container nothing that it would notice, and tell its peaks.
ACCOUNTING = frozenset({"memory", "pids", "io"})

# What mkdirat says when the home was removed, its descriptor closed behind our back, or privileges were given up.
GONE = (errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ENOTDIR, errno.EACCES, errno.EPERM)

SCOPE_HINT = "run it under: systemd-run --user --scope -p Delegate=yes"
SERVICE_HINT = "systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids"

Needs = Mapping[str, tuple[str, object]]  # controller -> the option that needs it, and its value

_home: Cgroup | None = None
_homeless = False


class Place(Cgroup):
    """The cgroup of a container, with the claim on it; -1 where somebody else holds that."""

    __slots__ = ("ownership",)
    ownership: int

    def close(self) -> None:
        """Closes the descriptors; the cgroup stays, and the claim is given up."""
        super().close()
        lock, self.ownership = self.ownership, -1
        if lock >= 0:
            os.close(lock)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        super().__del__(close)
        if getattr(self, "ownership", -1) >= 0:
            close(self.ownership)


def place(ident: str, needed: Needs, *, owned: bool = False) -> Place | None:
    """Makes the cgroup of container ``ident`` (12 hex digits), with the controllers ``needed``.

    None where this host gives the caller no place and nothing is needed; UnsupportedError where something is.
    With ``claimed`` the caller has the claim on it (``owners``) already.
    """
    if _home is None:
        if _homeless and not needed:
            return None
    elif _home.name == home_name():
        try:
            if _home.enabled.issuperset(needed):
                return _make(ident, _home, owned)
        except StepError as error:
            if error.errno not in GONE:
                raise
    home = _settle(needed)
    return None if home is None else _make(ident, home, owned)


def _make(ident: str, home: Cgroup, owned: bool) -> Place:
    """Claimed before anybody can see it."""
    lock = -1 if owned else ownership.acquire(ident)
    try:
        group = Place.create(name_of(ident), home)
    except BaseException:
        if lock >= 0:
            os.close(lock)
        raise
    group.ownership = lock
    return group


def name_of(ident: str) -> str:
    """What the cgroup of a container is called."""
    return f"{ident}-{runtime.mark()}"


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


def discard(ident: str) -> None:
    """Removes what a ``place`` that was interrupted may have made."""
    if _home is not None:
        try:
            os.rmdir(name_of(ident), dir_fd=_home.fd)
        except OSError:
            pass  # it was not made


# ---- the home


def _settle(needed: Needs) -> Cgroup | None:
    """Finds the base, makes the home in it, and enables controllers on the way down."""
    global _home, _homeless  # noqa: PLW0603
    try:
        below = check(needed)
    except UnsupportedError:
        if needed:
            raise
        _homeless = True
        return None
    home = Cgroup.create(home_name(), below, exist_ok=True)
    _enable(below, needed)
    _enable(home, needed)
    _account(home)
    _home = home
    return home


def check(needed: Needs) -> Cgroup:
    """The base of containers that need so much. UnsupportedError saying of an option why it cannot be kept, or, where
    nothing is needed, why there is none."""
    try:
        absent = _absent(needed)
        if not absent:
            return base()
    except UnsupportedError as error:  # there is no version 2, or no place in it: no controller can be had
        if not needed:
            raise
        raise _refusal(next(iter(needed)), needed, error.reason, error.hint) from None
    raise _refusal(absent[0], needed, *cgroupfs.absence(absent[0]))


def _absent(needed: Needs) -> list[str]:
    """The controllers that version 2 has not got."""
    return sorted(set(needed) - hierarchy().controllers) if needed else []


def provide(group: Cgroup, needed: Needs) -> None:
    """Gives a container's cgroup, as ``place`` made it, controllers that no limit has needed so far."""
    if set(needed) <= group.controllers:
        return
    for controller in _absent(needed):
        raise _refusal(controller, needed, *cgroupfs.absence(controller))
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
        raise _refusal(
            controller, needed, f"the {controller} controller is not delegated to {group.path}", SERVICE_HINT
        )
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


def _refusal(controller: str, needed: Needs, reason: str, hint: str) -> UnsupportedError:
    option, value = needed[controller]
    return UnsupportedError(option, value, reason, hint)


# ---- what is left behind


def stale() -> list[str]:
    """The cgroups (paths) of this state directory's containers that nobody looks after."""
    found = [path for home in _homes() for path in _members(home)]
    return [path for path in found if not ownership.is_owned(_ident(path))]


def remove_stale(path: str) -> bool:
    """Removes one of ``stale``, with the processes in it; False where somebody looks after it by now, or it is gone."""
    lock = ownership.try_acquire(_ident(path))
    if lock < 0:
        return False
    try:
        Cgroup.open(path).remove(kill=True)
    except StepError as error:
        if error.errno != errno.ENOENT:  # else somebody else has cleaned too
            raise
        return False
    finally:
        os.close(lock)
    return True


def clean() -> list[str]:
    """Removes what ``stale`` lists; returns what was removed."""
    return [path for path in stale() if remove_stale(path)]


def _ident(path: str) -> str:
    return path.rpartition("/")[2][:12]


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
    """The cgroups in it that bear our mark."""
    named = ((entry.path, NAME.fullmatch(entry.name)) for entry in os.scandir(home))
    return sorted(path for path, match in named if match is not None and match[2] == runtime.mark())
