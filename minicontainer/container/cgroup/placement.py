"""Creates a container's cgroup below a parent that all containers share.

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

The parent's descriptor stays open; the parent is looked up again when it was removed or is no longer writable.
"""

from __future__ import annotations

import errno
import os

from minicontainer import runtime
from minicontainer.container.registry import ownership
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup, hierarchy
from minicontainer.linux.cgrouphints import mkdir_hint
from minicontainer.linux.cgroupusage import files_of
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Needs = Mapping[str, tuple[str, object]]  # controller -> the option that needs it, and its value

MONITORS = "monitors"
CALLER = "minicontainer.caller"

# Enabled in the parent where BASE has them: they cost a container next to nothing, and measure its peaks.
ACCOUNTING = frozenset({"memory", "pids", "io"})

# The errors of mkdirat where the parent was removed, its descriptor was closed, or the caller gave up privileges.
GONE = (errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ENOTDIR, errno.EACCES, errno.EPERM)

SCOPE_HINT = "run it under: systemd-run --user --scope -p Delegate=yes"
SERVICE_HINT = "systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids"

PLACE = ffi.typeof("struct mc_place *")

_unavailable = False
_home: Home | None = None
_process: object = object()  # another one after a fork: getpid(2) would be one call more


def _forked() -> None:
    global _process  # noqa: PLW0603
    _process = object()


os.register_at_fork(after_in_child=_forked)


class Home:
    """What the cgroups of all containers of one state directory and user share."""

    __slots__ = ("_owners", "files", "like", "mark", "parent", "whose")

    def __init__(self, parent: Cgroup, whose: tuple[bytes | None, int]) -> None:
        self.parent, self.whose, self.mark = parent, whose, runtime.mark()
        self.files = files_of(parent.enabled, pressure=True)  # ``Cgroup.usage_files`` of a container's cgroup
        self._owners = ffi.new("char[]", os.fsencode(ownership.directory()))
        self.like: Any = ffi.new("struct mc_place *")  # struct mc_place of a container, without its id
        self.like.owners, self.like.parent, self.like.name = self._owners, parent.fd, f"-{self.mark}".encode()


class Place:
    """A container's ownership lock and cgroup.

    struct  struct mc_place: C closes both descriptors when it has removed the cgroup (mc_finish); ``struct.lock`` is -1
            where another object holds the lock
    home    what it shares with others
    maker   ``_process`` of the process that removes the cgroup when it drops this object unclosed, as where a signal
            handler raised before anybody had it; None: another owns the cgroup"""

    __slots__ = ("home", "maker", "struct")

    def __init__(self, home: Home, ident: str) -> None:
        struct = ffi.new(PLACE)  # its descriptors are 0 until the next line; __del__ would close them
        lib.mc_place_like(struct, home.like, ident.encode())
        self.home, self.maker, self.struct = home, _process, struct

    @property
    def name(self) -> str:
        """The name of the cgroup."""
        name: bytes = ffi.string(self.struct.name)
        return name.decode()

    @property
    def path(self) -> str:
        """The path of the cgroup."""
        return f"{self.home.parent.path}/{self.name}"

    @property
    def group(self) -> ContainerCgroup:
        """A new object for the cgroup, which keeps this one alive."""
        return ContainerCgroup(self)

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Closes both descriptors, each once, also where a signal handler raises meanwhile; the cgroup stays."""
        struct = self.struct
        for name in ("cgroup", "lock"):
            fd = getattr(struct, name)
            setattr(struct, name, -1)
            if fd >= 0:
                close(fd)

    def drop(self, close: Callable[[int], None] = os.close, rmdir: Callable[[str], None] = os.rmdir) -> None:
        """Removes the cgroup, if it is this process's and no process is in it, and closes the descriptors."""
        if self.struct.cgroup >= 0 and self.maker is _process:
            try:
                rmdir(self.path)
            except Exception:  # EBUSY; at the end of the interpreter this module's names may be gone
                pass
        self.close(close)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        try:
            struct = self.struct
        except AttributeError:
            return  # a signal handler raised before it was whole
        if struct.cgroup >= 0 or struct.lock >= 0:
            self.drop(close)


class ContainerCgroup(Cgroup):
    """The cgroup of a container, whose descriptor is that of its place."""

    __slots__ = ("place",)

    def __init__(self, place: Place) -> None:
        self.place = place
        super().__init__(place.struct.cgroup, place.path, place.name, place.home.parent, True)

    @property
    def fd(self) -> int:
        """Descriptor of the directory; -1: closed."""
        fd: int = self.place.struct.cgroup
        return fd

    @fd.setter
    def fd(self, fd: int) -> None:
        self.place.struct.cgroup = fd

    def close(self) -> None:
        """Closes the descriptors, and so releases the ownership lock; the cgroup stays."""
        self.place.close()

    def __del__(self, _: Callable[[int], None] = os.close) -> None:
        """Does nothing: the place closes the descriptors."""


def place(ident: str, needed: Needs, *, owned: bool = False, pids: Any = ffi.NULL, devices: int = -1) -> Place | None:
    """Creates the cgroup of container ``ident`` (12 hex digits), with the controllers ``needed``.

    None where the caller can create no cgroup and no controller is needed; UnsupportedError where a controller is.
    With ``owned`` the caller holds the ownership lock already. ``pids`` (char *) is written to pids.max, where that
    exists; ``devices`` is a BPF program to attach, or -1: the results are in ``struct.records``.
    """
    whose = (runtime.chosen(), os.geteuid())
    home = _home
    if home is None:
        if _unavailable and not needed:
            return None
    elif home.whose == whose:
        try:
            if not needed or home.parent.enabled.issuperset(needed):
                return _create(ident, home, owned, pids, devices)
        except StepError as error:
            if error.errno not in GONE:
                raise
    home = _create_home(needed, whose)
    return None if home is None else _create(ident, home, owned, pids, devices)


def _create(ident: str, home: Home, owned: bool, pids: Any, devices: int) -> Place:
    """Takes the ownership lock before the cgroup is visible."""
    place = Place(home, ident)
    struct = place.struct
    struct.devices, struct.pids = devices, pids
    if owned:
        struct.owners = ffi.NULL
    try:
        result = lib.mc_place(struct)
        if result < 0 and struct.records[lib.MC_PLACE_LOCK].result < 0:  # waits for the lock, or makes its directory
            lock, struct.owners = ownership.acquire(ident), ffi.NULL
            try:
                result = lib.mc_place(struct)
            finally:
                struct.lock = lock
        if result < 0:
            what = "mkdir" if struct.records[lib.MC_PLACE_MKDIR].result < 0 else "open"
            hint = mkdir_hint(OSError(-result, "")) if what == "mkdir" else ""
            raise StepError(-result, f"{what}({place.path!r})", hint=hint)
    except BaseException:
        place.drop()
        raise
    return place


def monitors() -> Cgroup | None:
    """The cgroup of the monitors of detached containers: the caller's own may be removed before they end."""
    if _home is None:
        return None
    try:
        return Cgroup.create(MONITORS, _home.parent, exist_ok=True)
    except StepError as error:
        if error.errno not in GONE:
            raise
        return None


def parent_name() -> str:
    """The name of the parent cgroup for this state directory."""
    return "minicontainer" + runtime.suffix()


# ---- the parent cgroup


def _create_home(needed: Needs, whose: tuple[bytes | None, int]) -> Home | None:
    """Finds the base, creates the parent in it, and enables controllers in both."""
    global _home, _unavailable  # noqa: PLW0603
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
    _home = Home(parent, whose)
    return _home


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
