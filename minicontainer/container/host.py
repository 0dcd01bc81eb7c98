"""What the compiler has to know of the host and of ROOTFS, gathered before it: facts in, so that it stays pure."""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from minicontainer.container.ids.ranges import chosen
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux import namespaces
from minicontainer.native import LIBEXEC
from minicontainer.plan import Plan, Slot, dup3, execve, unshare
from minicontainer.plan.spawn import Spawn
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.container.filesystem.etc import EtcFile
    from minicontainer.container.network.veth import Wire

# Hidden from the container, as docker hides them: files by /dev/null, directories by an empty tmpfs.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

NOT_OURS = (errno.EACCES, errno.EPERM)  # to be better off than the caller needs a right

NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))


class Identity(NamedTuple):
    """Who the program runs as, as numbers inside the container."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


class Host(NamedTuple):
    """The facts of one start; equal facts give the same plan.

    userns        ``host``, ``range`` (of ids of its own), ``private``, ``keep-id`` or ``join``
    maps          the ``uid_map`` and ``gid_map`` that the child writes itself; None: the parent-side plan does
    files         of spec.mounts: which sources are no directories
    masked        (path, is a directory) of MASKED that exist here
    read_only     of READ_ONLY that exist here
    device_nodes  (major, minor, mode) of spec.devices
    cgroup2       a cgroup2 file system can be mounted inside
    seccomp       the filter, as seccomp(2) takes it
    suid          that of ``no_new_suid``
    window        rows and columns of the caller's terminal
    shm           /dev/shm is the host's (with its IPC namespace)
    permitted     capabilities that ALL can mean (-1: every one, in a user namespace of its own)
    chrooted      the caller's root is not that of its mount namespace
    lasting       nothing of it can change but who asks
    timens        a time namespace of its own
    exposed       the container's root could write to the executable that this process runs
    shown         ROOTFS and volumes come from the parent, shown with the ids of the user namespace
    kept          who starts it keeps what the child sends: its upper layer too, where it is ephemeral
    nested        the caller is in a user namespace himself: root or not, he is not root of the host
    groups        setgroups(2) is permitted
    tty_group     the group of terminals, 5, is mapped
    wire          of the network that it is on
    etc           its own files of /etc
    ping          the groups that may send echo requests, as the sysctl has them; "" where that stays as it is
    layered       ROOTFS is read-only, and has not all that is mounted on: that is made in a layer above it
    """

    userns: str
    uid: int
    gid: int
    maps: tuple[str, str] | None
    identity: Identity
    files: tuple[bool, ...]
    device_nodes: tuple[tuple[int, int, int], ...]
    masked: tuple[tuple[str, bool], ...]
    read_only: tuple[str, ...]
    cgroup2: bool
    seccomp: bytes = b""
    window: tuple[int, int] | None = None
    shm: bool = False
    permitted: int = -1
    chrooted: bool = False
    lasting: bool = False
    timens: bool = False
    exposed: bool = False
    shown: bool = False
    kept: bool = False
    wire: Wire | None = None
    etc: tuple[EtcFile, ...] = ()
    ping: str = ""
    layered: bool = False
    nested: bool = False
    groups: bool = True
    tty_group: bool = True
    suid: bytes = b""

    @property
    def of_host(self) -> bool:
        """Whether it has no user namespace but the host's: what is done for it is done by root of the host."""
        return self.userns == "host" and not self.nested

    @property
    def makes_nodes(self) -> bool:
        """Whether somebody can make device nodes for it: mknod(2) is not for root of a user namespace."""
        return self.of_host or self.userns == "range"

    def is_settled(self) -> bool:
        """Whether all of it must still be so."""
        same = self.uid == os.geteuid() and self.gid == os.getegid() and self.chrooted == chrooted(self.userns)
        return self.lasting and same and self.nested != namespaces.is_first_user_namespace()


def is_lasting(spec: Spec, userns: str) -> bool:
    """Whether the facts come of the spec and of who asks alone; else files, or a terminal, have to be looked at."""
    from_file = spec.seccomp not in (None, "unconfined")
    named = spec.network != "none" or spec.dns or spec.add_hosts
    looked_at = named or spec.user or spec.group_add or spec.mounts or spec.devices or from_file or spec.tty
    looked_at = looked_at or spec.read_only
    return userns in ("host", "range") and spec.ipc != "host" and not looked_at and not spec.wants_all


def check_rootfs(path: str) -> None:
    """ROOTFS must be a directory that we may enter, and not the host's own root."""
    try:
        info = os.stat(path)
    except OSError as e:
        reason = "no such directory" if e.errno == errno.ENOENT else (e.strerror or str(e)).lower()
        hint = "make one: minicontainer rootfs busybox DIR" if e.errno == errno.ENOENT else ""
        raise SpecError("rootfs", path, reason, hint) from None
    if not stat.S_ISDIR(info.st_mode):
        raise SpecError("rootfs", path, "is not a directory", "unpack an archive: minicontainer rootfs tar FILE DIR")
    root = os.stat("/")
    if (info.st_dev, info.st_ino) == (root.st_dev, root.st_ino):
        raise SpecError("rootfs", path, "is the host's own root", "give a directory of its own")
    open_to_all = info.st_mode & 0o555 == 0o555
    if not open_to_all and not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        raise SpecError("rootfs", path, f"cannot be read by user id {os.geteuid()}", "chmod or chown it")


def check_sources(spec: Spec) -> tuple[bool, ...]:
    """Each bind source must be there; says which are no directories."""
    files = []
    for mount in spec.mounts:
        if mount.type != "bind":
            files.append(False)
            continue
        try:
            files.append(not stat.S_ISDIR(os.stat(mount.source or "").st_mode))
        except OSError as e:
            from minicontainer import volumes

            if isinstance(e, FileNotFoundError) and volumes.owns(mount.source or ""):
                files.append(False)  # a volume that a start would make, of which a plan is shown
                continue
            reason = (e.strerror or str(e)).lower()
            raise SpecError("bind source", mount.source, reason, f"to be mounted on {mount.target}") from None
    return tuple(files)


def check_devices(spec: Spec) -> tuple[tuple[int, int, int], ...]:
    """Each device must be a device node here."""
    nodes = []
    for device in spec.devices:
        try:
            info = os.stat(device.source)
        except OSError as e:
            raise SpecError("devices", device.source, (e.strerror or str(e)).lower()) from None
        if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
            raise SpecError("devices", device.source, "is not a device node")
        nodes.append((os.major(info.st_rdev), os.minor(info.st_rdev), info.st_mode))
    return tuple(nodes)


@lru_cache(maxsize=1)
def kernel_paths() -> tuple[tuple[tuple[str, bool], ...], tuple[str, ...]]:
    """Which of MASKED (and whether directories) and of READ_ONLY this kernel has; what hides files must be null(4)."""
    info = os.stat("/dev/null")
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        raise UnsupportedError(
            "/dev/null", None, "is not the null device", "rm /dev/null; mknod -m 666 /dev/null c 1 3"
        )
    masked = tuple((path, os.path.isdir(path)) for path in MASKED if os.path.exists(path))
    return masked, tuple(path for path in READ_ONLY if os.path.exists(path))


@lru_cache(maxsize=1)
def has_cgroup2() -> bool:
    """Whether the kernel offers the cgroup2 file system."""
    with open("/proc/filesystems", "rb") as f:
        return any(line.split()[-1] == b"cgroup2" for line in f)


def chrooted(userns: str) -> bool:
    """Whether the caller is in a chroot. With a new user namespace it is not asked: the kernel gives none there."""
    if userns in ("private", "keep-id", "range"):
        return False
    root = os.stat("/")
    return _is_chrooted(root.st_dev, root.st_ino)


@lru_cache(maxsize=1)
def _is_chrooted(device: int, inode: int) -> bool:
    """For as long as the root is this directory."""
    return namespaces.is_chrooted()


def permitted(spec: Spec, userns: str) -> int:
    """The caller's capabilities where all are asked for and no user namespace gives them."""
    if userns != "host" or not spec.wants_all:
        return -1
    from minicontainer.linux import caps

    return caps.capabilities().permitted


def exposed(spec: Spec, userns: str, maker: str = "/proc/self/exe") -> bool:
    """Whether who is root in the container may write to ``maker``, the executable that this process runs.

    Until its exec the child is this process for /proc/self/exe: a program of ROOTFS that is a link there, or a script
    that has it as its interpreter, would be that executable, with libraries of ROOTFS's, and could then be written to
    (CVE-2019-5736)."""
    if userns in ("host", "join"):
        return True
    info = os.stat(maker)
    if info.st_mode & 0o022:
        return True
    if userns != "range":
        return info.st_uid == os.geteuid()
    ids = chosen(spec.userns)
    return ids is not None and ids.uid <= info.st_uid < ids.uid + ids.width


def window() -> tuple[int, int] | None:
    """Rows and columns of the terminal that the caller's streams are, if one is."""
    for fd in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        return rows, columns
    return None


# ---- user namespaces


def userns_mode(spec: Spec) -> str:
    """``host``, ``range``, ``private``, ``keep-id`` or ``join`` of the spec's wish and of who asks."""
    if spec.joined("userns"):
        return "join"
    is_root = namespaces.is_root()
    wish = spec.userns or "auto"
    if wish == "host" and os.geteuid() != 0:
        raise UnsupportedError("userns", "host", "an ordinary user needs a user namespace", "--userns private")
    if ":" in wish and not is_root:
        raise UnsupportedError("userns", wish, "only root of the host gives ids away", "--userns private")
    if wish in ("host", "keep-id"):
        return wish
    if os.geteuid() == 0 and wish == "auto" and _needs_the_hosts(spec):
        return "host"
    return "range" if is_root else "private"


def _needs_the_hosts(spec: Spec) -> bool:
    """What root may only in his own user namespace: all of his rights, and to join namespaces that belong to it."""
    return spec.privileged or any(spec.joined(kind) for kind in ("network", "pid", "ipc", "uts", "cgroupns"))


def check_userns_allowed() -> None:
    """Why this host would refuse a new user namespace, in words that name the sysctl."""
    for name, refusing, remedy in (
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        try:
            with open(f"/proc/sys/{name}", encoding="ascii") as f:
                value = f.read().strip()
        except OSError:
            continue
        root_is_exempt = name.startswith("kernel/") and namespaces.is_root()
        if value == refusing and not root_is_exempt:
            sysctl = name.replace("/", ".")
            raise UnsupportedError("userns", None, f"disabled by sysctl {sysctl}={value}", f"as root: {remedy}")


@lru_cache(maxsize=1)
def enters_time_namespace() -> bool:
    """Whether a child that shares its creator's memory enters its new time namespace at exec (Linux 6.3, commit
    2b5f9dad32ed): tried, with a child that waits to be looked at."""
    pause = f"{LIBEXEC}/pause"
    plan = Plan([unshare("CLONE_NEWTIME"), dup3(Slot("stdin"), 0), execve([pause], ["pause"], [])], ["stdin"])
    flags = "0" if os.geteuid() == 0 else "CLONE_NEWUSER"
    read, write = os.pipe2(os.O_CLOEXEC)
    with Spawn(plan) as child:
        try:
            pid = child.start(flags, {"stdin": read})
            return os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
        finally:
            os.close(read)
            os.close(write)
            if child.pid > 0 and child.pidfd >= 0:
                child.wait()


def own_time(spec: Spec) -> bool:
    """A time namespace of its own is only to be had where the kernel enters it at exec. By default the kernel's release
    is believed: to try it takes a child, as long as a container."""
    if spec.timens == "auto":
        return _is_of_linux_6_3()
    if spec.timens == "private" and not enters_time_namespace():
        raise UnsupportedError("timens", "private", "this kernel does not enter it at exec", "Linux 6.3 or later")
    return spec.timens == "private"


@lru_cache(maxsize=1)
def _is_of_linux_6_3() -> bool:
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return (int(major), int(minor)) >= (6, 3) and os.path.exists("/proc/self/ns/time")
