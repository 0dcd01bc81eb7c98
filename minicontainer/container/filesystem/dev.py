"""The container's /dev: a tmpfs with device nodes, pts, shm and mqueue; and a terminal of its own."""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it
import os
import stat

from minicontainer import plan as p
from minicontainer.container.filesystem.mounting import CLONE, DEV, EXISTING, NODE, create_dev, create_fs
from minicontainer.container.host import NODES
from minicontainer.plan import FDCWD, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minicontainer.container.host import Host
    from minicontainer.plan import Builder
    from minicontainer.spec import Spec


def prepare(b: Builder, spec: Spec, host: Host) -> None:
    """Creates the file systems of /dev as detached mounts, before pivot_root."""
    sources = {device.target: device.source for device in spec.devices}
    if not host.can_mknod:  # bind mounts of the host's nodes
        for path, name in _trees(spec).items():
            b.add(p.open_tree(sources.get(path, path), CLONE, name), p.mount_setattr(Slot(name), "", NODE))
    safe = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC"
    _take_dev(b, host)
    prepare_pts(b, host)
    if host.shm:
        b.add(p.open_tree("/dev/shm", f"{CLONE}|AT_RECURSIVE", "shm"))
        b.add(p.mount_setattr(Slot("shm"), "", f"{safe}|MOUNT_ATTR_NODEV", recursive=True))
    else:
        create_fs(b, "tmpfs", "shm", f"{safe}|MOUNT_ATTR_NODEV", mode="1777", size=str(spec.shm_size))
    if _has_mqueue(spec, host):
        create_fs(b, "mqueue", "mqueue", f"{safe}|MOUNT_ATTR_NODEV")


def _take_dev(b: Builder, host: Host) -> None:
    if host.userns == "range":
        b.input("dev")
    else:
        create_dev(b)


def nodes(spec: Spec, host: Host) -> dict[str, tuple[int, int, int]]:
    """Each device node of the container: path -> major, minor, mode."""
    always = {f"/dev/{name}": (major, minor, 0o020666) for name, major, minor in NODES}
    return always | {device.target: node for device, node in zip(spec.devices, host.device_nodes, strict=True)}


def make_nodes(b: Builder, spec: Spec, host: Host, owner: tuple[Slot, Slot] | None = None) -> None:
    """Creates the device nodes. The parent-side plan, whose umask is the caller's, passes an ``owner`` (user and group
    id).

    All names are below the descriptor of /dev, so no link in ROOTFS can redirect them."""

    def set_owner(name: str, mode: int) -> None:
        if owner is not None:
            b.add(p.call("fchownat", DEV, name, *owner, 0), p.call("fchmodat", DEV, name, p.Octal(mode)))

    set_owner(".", 0o755)
    trees, created = _trees(spec), set()
    for path, numbers in nodes(spec, host).items():
        name = path.removeprefix("/dev/")
        parts = name.split("/")
        for directory in ("/".join(parts[:i]) for i in range(1, len(parts))):
            if directory not in created:
                b.add(p.mkdirat(DEV, directory, 0o755))
                set_owner(directory, 0o755)
                created.add(directory)
        b.add(*_node(host, name, trees[path], numbers))
        set_owner(name, numbers[2] & 0o777)


def _node(host: Host, name: str, tree: str, numbers: tuple[int, int, int]) -> list[p.Step]:
    """Makes one device node; where mknod(2) is refused, bind-mounts the host's node on a file."""
    major, minor, mode = numbers
    if not host.can_mknod:
        return [p.mknodat(DEV, name, "S_IFREG", 0o666, 0), p.move_mount(Slot(tree), name, DEV)]
    kind = "S_IFBLK" if stat.S_ISBLK(mode) else "S_IFCHR"
    return [p.mknodat(DEV, name, kind, mode & 0o777, os.makedev(major, minor))]


def _trees(spec: Spec) -> dict[str, str]:
    """The slots of the bind mounts of the host's nodes: path -> slot."""
    trees = {f"/dev/{name}": f"node-{name}" for name, _, _ in NODES}
    return trees | {device.target: f"device-{i}" for i, device in enumerate(spec.devices)}


def populate(b: Builder, spec: Spec, host: Host) -> None:
    """Attaches /dev, and makes the nodes, links and mounts in it."""
    b.phase = "/dev"
    _attach(b)
    if host.userns != "range":
        make_nodes(b, spec, host)
    for target, name in (
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ):
        b.add(p.symlinkat(target, DEV, name))
    for name in ("pts", "shm", *(["mqueue"] if _has_mqueue(spec, host) else [])):
        b.add(p.mkdirat(DEV, name, 0o755), p.move_mount(Slot(name), name, DEV))


def _attach(b: Builder) -> None:
    b.add(p.mkdirat(FDCWD, "/dev", 0o755, tolerate=EXISTING), p.move_mount(DEV, "/dev"))


def lend(b: Builder, host: Host, make: Callable[[], None]) -> None:
    """Attaches the tmpfs of /dev for the steps of ``make`` alone, in a root that has no /dev."""
    b.phase = "/dev"
    _take_dev(b, host)
    _attach(b)
    make()
    b.add(p.fchdir(DEV), p.umount2(".", "MNT_DETACH"), p.call("chdir", "/"))


def prepare_pts(b: Builder, host: Host) -> None:
    """Creates the devpts, as a detached mount."""
    gid = {"gid": "5"} if host.tty_group else {}
    attrs = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC"
    create_fs(b, "devpts", "pts", attrs, mode="0620", ptmxmode="0666", **gid)


def open_terminal(b: Builder, host: Host, *, console: bool = True) -> None:
    """Opens a pty of the container's own devpts (pts(4)); with ``console``, mounts it on /dev/console."""
    attach_terminal(b, host, p.openat("ptmx", PTMX, MASTER, at=Slot("pts")))
    if not console:
        return
    b.add(
        p.call("mknodat", DEV, "console", p.Const("S_IFREG|0o600"), 0),
        p.open_tree("0", CLONE, "console", at=Slot("pts")),
        p.move_mount(Slot("console"), "console", DEV),
    )


PTMX, MASTER = "O_RDWR|O_NOCTTY|O_CLOEXEC", Slot("master")
WINDOW = struct.Struct("=4H")  # struct winsize: rows, columns, and two unused fields


def attach_terminal(b: Builder, host: Host, open_master: p.Step) -> None:
    """Makes a pty the session's controlling terminal and its three streams, owned by the program's user; sends its
    master to the parent. ``open_master`` opens ptmx as the slot MASTER."""
    tty, size = Slot("tty"), host.window or (0, 0)
    text = "{{{}, {}}}".format(*size)
    b.add(
        open_master,
        p.call("ioctl", MASTER, p.const("TIOCSPTLCK"), p.Struct(struct.pack("=i", 0), "{0}")),
        p.call("ioctl", MASTER, p.const("TIOCGPTPEER"), p.const(PTMX), into=tty),
        p.call("ioctl", tty, p.const("TIOCSWINSZ"), p.Struct(WINDOW.pack(*size, 0, 0), text)),
        p.call("fchown", tty, host.identity.uid, -1),
        p.send_fd(b.input("parent-socket"), MASTER),
        p.call("ioctl", tty, p.const("TIOCSCTTY"), 0),
        *(p.dup3(tty, number) for number in (0, 1, 2)),
    )


def _has_mqueue(spec: Spec, host: Host) -> bool:
    """Whether mqueue is mounted: that needs rights over the IPC namespace."""
    return spec.ipc == "private" or host.in_host_userns
