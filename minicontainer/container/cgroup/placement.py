"""Creates a container's cgroup below a parent that all containers share; finds and removes cgroups without an owner.

Theory of operation. All containers of one base share a parent cgroup:

    BASE/minicontainer/<id>-<mark>                 one container, with the mark of its state directory
                                                   (minicontainer-<mark>/: where that is not the default one)
    BASE/minicontainer/monitors                    the monitors of detached containers
    BASE/minicontainer.caller                      processes that were in BASE itself, when BASE had to be empty

BASE is the root of the hierarchy for a caller that may write there (root), else the caller's own cgroup where that is
delegated (cgroups(7) "Delegation"). Without a BASE, a container without limits runs in the caller's cgroup, and one
with limits is refused. Controllers are enabled from BASE down when a limit first needs them. A cgroup with member
processes cannot enable controllers for its children ("no internal processes"), so these processes move to the leaf
beside the parent. CLONE_INTO_CGROUP needs write access to cgroup.procs of BASE, the common ancestor, only.

The process that started a container, or its monitor, holds the container's ownership lock (registry/ownership.py).
A cgroup is removed as left behind only if its name has the mark of this state directory: the locks of other state
directories are not visible here.

The parent's descriptor stays open; the parent is looked up again when it was removed or is no longer writable.
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

# Enabled in the parent where BASE has them: they cost a container next to nothing, and measure its peaks.
ACCOUNTING = frozenset({"memory", "pids", "io"})

# The errors of mkdirat where the parent was removed, its descriptor was closed, or the caller gave up privileges.
GONE = (errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ENOTDIR, errno.EACCES, errno.EPERM)

SCOPE_HINT = "run it under: systemd-run --user --scope -p Delegate=yes"
SERVICE_HINT = "systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids"

Needs = Mapping[str, tuple[str, object]]  # controller -> the option that needs it, and its value

_parent: Cgroup | None = None
_unavailable = False


class ContainerCgroup(Cgroup):
    """The cgroup of a container, with its ownership lock (a descriptor); -1 where another object holds the lock."""

    __slots__ = ("ownership",)
    ownership: int

    def close(self) -> None:
        """Closes the descriptors, and so releases the ownership lock; the cgroup stays."""
        super().close()
        lock, self.ownership = self.ownership, -1
        if lock >= 0:
            os.close(lock)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        super().__del__(close)
        if getattr(self, "ownership", -1) >= 0:
            close(self.ownership)


def place(ident: str, needed: Needs, *, owned: bool = False) -> ContainerCgroup | None:
    """Creates the cgroup of container ``ident`` (12 hex digits), with the controllers ``needed``.

    None where the caller can create no cgroup and no controller is needed; UnsupportedError where a controller is.
    With ``owned`` the caller holds the ownership lock already.
    """
    if _parent is None:
        if _unavailable and not needed:
            return None
    elif _parent.name == parent_name():
        try:
            if _parent.enabled.issuperset(needed):
                return _create(ident, _parent, owned)
        except StepError as error:
            if error.errno not in GONE:
                raise
    parent = _create_parent(needed)
    return None if parent is None else _create(ident, parent, owned)


def _create(ident: str, parent: Cgroup, owned: bool) -> ContainerCgroup:
    """Takes the ownership lock before the cgroup is visible."""
    lock = -1 if owned else ownership.acquire(ident)
    try:
        group = ContainerCgroup.create(name_of(ident), parent)
    except BaseException:
        if lock >= 0:
            os.close(lock)
        raise
    group.ownership = lock
    return group


def name_of(ident: str) -> str:
    """The name of a container's cgroup."""
    return f"{ident}-{runtime.mark()}"


def monitors() -> Cgroup | None:
    """The cgroup of the monitors of detached containers: the caller's own may be removed before they end."""
    if _parent is None:
        return None
    try:
        return Cgroup.create(MONITORS, _parent, exist_ok=True)
    except StepError as error:
        if error.errno not in GONE:
            raise
        return None


def parent_name() -> str:
    """The name of the parent cgroup for this state directory."""
    return "minicontainer" + runtime.suffix()


def discard(ident: str) -> None:
    """Removes the cgroup that an interrupted ``place`` may have created."""
    if _parent is not None:
        try:
            os.rmdir(name_of(ident), dir_fd=_parent.fd)
        except OSError:
            pass  # not created


# ---- the parent cgroup


def _create_parent(needed: Needs) -> Cgroup | None:
    """Finds the base, creates the parent in it, and enables controllers in both."""
    global _parent, _unavailable  # noqa: PLW0603
    try:
        base_cgroup = check(needed)
    except UnsupportedError:
        if needed:
            raise
        _unavailable = True
        return None
    parent = Cgroup.create(parent_name(), base_cgroup, exist_ok=True)
    _enable(base_cgroup, needed)
    _enable(parent, needed)
    _account(parent)
    _parent = parent
    return parent


def check(needed: Needs) -> Cgroup:
    """The base of containers that need these controllers. UnsupportedError naming the option that cannot be enforced;
    where no controller is needed, the reason why there is no base."""
    try:
        absent = _absent(needed)
        if not absent:
            return base()
    except UnsupportedError as error:  # no cgroup v2, or no writable base: no controller is available
        if not needed:
            raise
        raise _refusal(next(iter(needed)), needed, error.reason, error.hint) from None
    raise _refusal(absent[0], needed, *cgroupfs.absence(absent[0]))


def _absent(needed: Needs) -> list[str]:
    """The needed controllers that cgroup v2 does not have on this host."""
    return sorted(set(needed) - hierarchy().controllers) if needed else []


def provide(group: Cgroup, needed: Needs) -> None:
    """Enables further controllers for a container's existing cgroup."""
    if set(needed) <= group.controllers:
        return
    for controller in _absent(needed):
        raise _refusal(controller, needed, *cgroupfs.absence(controller))
    parent = os.path.dirname(group.path)
    for path in (os.path.dirname(parent), parent):
        _enable(Cgroup.open(path), needed)


def base() -> Cgroup:
    """The cgroup below which the caller may create the parent. UnsupportedError with the reason where there is none."""
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
        _move_to_leaf(group)
        group.enable(*missing)


def _move_to_leaf(group: Cgroup) -> None:
    """Moves the member processes to a leaf cgroup; repeats this, since they may fork meanwhile."""
    leaf = Cgroup.create(CALLER, group, exist_ok=True)
    for _ in range(100):
        members = [pid for pid in group.procs if pid]  # 0: a process outside the caller's pid namespace
        if not members:
            return
        for pid in members:
            try:
                leaf.add(pid)
            except StepError as error:
                if error.errno != errno.ESRCH:
                    raise


def _account(parent: Cgroup) -> None:
    """Enables the ACCOUNTING controllers where that is possible."""
    extra = (parent.controllers & ACCOUNTING) - parent.enabled
    if extra:
        try:
            parent.enable(*sorted(extra))
        except StepError as error:  # optional: Usage has None then
            if error.errno not in (errno.EBUSY, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP):
                raise


def _refusal(controller: str, needed: Needs, reason: str, hint: str) -> UnsupportedError:
    option, value = needed[controller]
    return UnsupportedError(option, value, reason, hint)


# ---- cgroups that are left behind


def stale() -> list[str]:
    """The paths of the cgroups of this state directory's containers that have no owner."""
    paths = [path for parent in _parents() for path in _members(parent)]
    return [path for path in paths if not ownership.is_owned(_ident(path))]


def remove_stale(path: str) -> bool:
    """Removes a cgroup of ``stale`` with the processes in it; False where it has an owner by now, or is gone."""
    lock = ownership.try_acquire(_ident(path))
    if lock < 0:
        return False
    try:
        Cgroup.open(path).remove(kill=True)
    except StepError as error:
        if error.errno != errno.ENOENT:  # another process has removed it
            raise
        return False
    finally:
        os.close(lock)
    return True


def clean() -> list[str]:
    """Removes all of ``stale``; returns the paths that were removed."""
    return [path for path in stale() if remove_stale(path)]


def _ident(path: str) -> str:
    return path.rpartition("/")[2][:12]


def _parents() -> Iterator[str]:
    try:
        top, own = hierarchy().path, cgroupfs.membership().removesuffix("/" + CALLER)
    except UnsupportedError:
        return
    for base in dict.fromkeys((top, own)):
        parent = f"{base}/{parent_name()}"
        if os.access(parent, os.W_OK, effective_ids=True):
            yield parent


def _members(parent: str) -> list[str]:
    """The cgroups in a parent whose names have the mark of this state directory."""
    named = ((entry.path, NAME.fullmatch(entry.name)) for entry in os.scandir(parent))
    return sorted(path for path, match in named if match is not None and match[2] == runtime.mark())
