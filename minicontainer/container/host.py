"""The facts about the host and ROOTFS that the compiler needs. They are gathered first, so that the compiler makes no
system call."""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.container.ids.ranges import parse_range
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux.userns import is_root
from minicontainer.native import LIBEXEC
from minicontainer.plan import Plan, Slot, dup3, execve, unshare
from minicontainer.plan.spawn import Spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from functools import lru_cache
    from typing import NamedTuple

    from minicontainer.container.filesystem.etc import EtcFile
    from minicontainer.container.network.veth import Endpoint
    from minicontainer.spec import Spec
else:
    from minicontainer.light import lru_cache
    from minicontainer.records import NamedTuple

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

NOT_PERMITTED = (errno.EACCES, errno.EPERM)  # errors of setpriority(2) without CAP_SYS_NICE

NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))


class Identity(NamedTuple):
    """The user and groups that the program runs as: ids inside the container, and the home directory."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


class Host(NamedTuple):
    """The facts for one start. Equal facts give the same plan.

    userns        ``host``, ``range`` (a range of ids from root), ``private``, ``keep-id`` or ``join``
    maps          the ``uid_map`` and ``gid_map`` that the child writes itself; None: the parent-side plan writes them
    outer_maps    what the parent-side plan maps ids by, where it does (ids/mappings.py)
    files         for each of spec.mounts, whether its source is no directory
    masked        (path, is a directory) for each of MASKED that exists on this host
    read_only     the paths of READ_ONLY that exist on this host
    device_nodes  (major, minor, mode) of spec.devices
    cgroup2       a cgroup2 file system can be mounted inside
    seccomp       the filter, as seccomp(2) takes it
    suid          the filter of ``no_new_suid``, as seccomp(2) takes it
    window        rows and columns of the caller's terminal
    shm           /dev/shm is the host's (with its IPC namespace)
    permitted     the capabilities that ALL stands for, as a mask (-1: all, in a user namespace of the container's own)
    chrooted      the caller's root directory is not the root of its mount namespace
    cacheable     the facts depend on the spec and the caller's ids alone
    timens        the container gets a time namespace of its own
    exe_reachable  the container's root could write to the caller's executable through /proc/PID/exe (CVE-2019-5736)
    idmapped      ROOTFS and volumes are ID-mapped mounts (mount_setattr(2)), which the parent hands to the child
    waits         the child executes csrc/helpers/ready.c, which waits for the program (a pool)
    sends_upper   the child of an ephemeral container sends the upper layer of its overlay to the monitor
    nested        the caller is in a user namespace other than the first: its root is not root of the host
    groups        setgroups(2) is permitted
    tty_group     group 5, of terminals, is mapped
    endpoint      the container's connection to a network
    etc           the files of /etc that the container gets
    ping          the group ids for the sysctl ping_group_range; "" where the sysctl stays as it is
    lacks_mount_points  ROOTFS is read-only and a mount point is missing in it: an overlay's upper layer gets it
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
    cacheable: bool = False
    timens: bool = False
    exe_reachable: bool = False
    idmapped: bool = False
    waits: bool = False
    sends_upper: bool = False
    endpoint: Endpoint | None = None
    etc: tuple[EtcFile, ...] = ()
    ping: str = ""
    lacks_mount_points: bool = False
    nested: bool = False
    groups: bool = True
    tty_group: bool = True
    suid: bytes = b""
    outer_maps: tuple[tuple[str, ...], ...] = ()

    @property
    def in_host_userns(self) -> bool:
        """Whether the container runs in the host's first user namespace, where its root is root of the host."""
        return self.userns == "host" and not self.nested

    @property
    def can_mknod(self) -> bool:
        """Whether the child, or the parent for it, can make device nodes: mknod(2) is refused in a user namespace."""
        return self.in_host_userns or self.userns == "range"


def is_cacheable(spec: Spec, userns: str) -> bool:
    """Whether the facts depend on the spec and the caller's ids alone, and on no file or terminal."""
    from_file = spec.seccomp not in (None, "unconfined")
    with_network = spec.network != "none" or spec.dns or spec.add_hosts
    reads_files = with_network or spec.user or spec.group_add or spec.mounts or spec.devices or from_file or spec.tty
    reads_files = reads_files or spec.read_only
    return userns in ("host", "range") and spec.ipc != "host" and not reads_files and not spec.wants_all


def check_rootfs(path: str) -> None:
    """SpecError unless ROOTFS is a directory that the caller may enter, and not the host's own root."""
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
    """For each mount of the spec, whether its source is no directory. SpecError for a bind source that is missing."""
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
                files.append(False)  # --dry-run: a start would create this volume
                continue
            reason = (e.strerror or str(e)).lower()
            raise SpecError("bind source", mount.source, reason, f"to be mounted on {mount.target}") from None
    return tuple(files)


def check_devices(spec: Spec) -> tuple[tuple[int, int, int], ...]:
    """(major, minor, mode) of each device of the spec. SpecError where the path is no device node."""
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
    """The paths of MASKED (with whether each is a directory) and of READ_ONLY that this kernel has.

    UnsupportedError where /dev/null, which is mounted over masked files, is not null(4)."""
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
    """Whether the caller is in a chroot. False for a new user namespace, which the kernel refuses in a chroot."""
    if userns in ("private", "keep-id", "range"):
        return False
    root = os.stat("/")
    return _is_chrooted(root.st_dev, root.st_ino)


@lru_cache(maxsize=1)
def _is_chrooted(device: int, inode: int) -> bool:
    """Cached for each root directory."""
    from minicontainer.linux.namespaces import is_chrooted

    return is_chrooted()


def permitted(spec: Spec, userns: str) -> int:
    """The capabilities that ALL stands for, as a mask: the caller's in the host's user namespace, else -1 (all)."""
    if userns != "host" or not spec.wants_all:
        return -1
    from minicontainer.linux import caps

    return caps.capabilities().permitted


def exe_reachable(spec: Spec, userns: str, exe: str = "/proc/self/exe") -> bool:
    """Whether the container's root may write to ``exe``, the executable that the child runs until its exec.

    Until then /proc/self/exe of the child leads to that executable. A program of ROOTFS that is a link to
    /proc/self/exe, or a script with that as its interpreter, would execute it with libraries of ROOTFS, and could then
    write to it (CVE-2019-5736)."""
    if userns in ("host", "join"):
        return True
    info = os.stat(exe)
    if info.st_mode & 0o022:
        return True
    if userns != "range":
        return info.st_uid == os.geteuid()
    ids = parse_range(spec.userns)
    return ids is not None and ids.uid <= info.st_uid < ids.uid + ids.width


def window() -> tuple[int, int] | None:
    """Rows and columns of the first of the caller's streams that is a terminal; None where none is."""
    for fd in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        return rows, columns
    return None


# ---- user namespaces


def userns_mode(spec: Spec) -> str:
    """``host``, ``range``, ``private``, ``keep-id`` or ``join``, from the spec and the caller's rights."""
    if spec.joined("userns"):
        return "join"
    as_root = is_root()
    mode = spec.userns or "auto"
    if mode == "host" and os.geteuid() != 0:
        raise UnsupportedError("userns", "host", "an ordinary user needs a user namespace", "--userns private")
    if ":" in mode and not as_root:
        raise UnsupportedError("userns", mode, "only root of the host gives ids away", "--userns private")
    if mode in ("host", "keep-id"):
        return mode
    if os.geteuid() == 0 and mode == "auto" and _needs_host_userns(spec):
        return "host"
    return "range" if as_root else "private"


def _needs_host_userns(spec: Spec) -> bool:
    """Whether the spec needs rights that root has only in the host's user namespace: all capabilities, or joining
    namespaces that it owns."""
    return spec.privileged or any(spec.joined(kind) for kind in ("network", "pid", "ipc", "uts", "cgroupns"))


def check_userns_allowed() -> None:
    """UnsupportedError, naming the sysctl, where a sysctl of this host forbids new user namespaces."""
    for name, refusing, remedy in (
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        try:
            with open(f"/proc/sys/{name}", encoding="utf-8") as f:
                value = f.read().strip()
        except OSError:
            continue
        root_is_exempt = name.startswith("kernel/") and is_root()
        if value == refusing and not root_is_exempt:
            sysctl = name.replace("/", ".")
            raise UnsupportedError("userns", None, f"disabled by sysctl {sysctl}={value}", f"as root: {remedy}")


@lru_cache(maxsize=1)
def enters_time_namespace() -> bool:
    """Whether a CLONE_VM child enters its new time namespace at exec (Linux 6.3, commit 2b5f9dad32ed). Starts
    such a child to test it."""
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


def has_time_namespace(spec: Spec) -> bool:
    """Whether the container gets a time namespace of its own, which needs a kernel that enters it at exec. For ``auto``
    the kernel's release decides: starting a child to find out would take as long as starting a container."""
    if spec.timens == "auto":
        return _is_linux_6_3()
    if spec.timens == "private" and not enters_time_namespace():
        raise UnsupportedError("timens", "private", "this kernel does not enter it at exec", "Linux 6.3 or later")
    return spec.timens == "private"


@lru_cache(maxsize=1)
def _is_linux_6_3() -> bool:
    numbers = "".join(c if c.isdigit() else " " for c in os.uname().release).split()
    return tuple(map(int, numbers[:2])) >= (6, 3) and os.path.exists("/proc/self/ns/time")
