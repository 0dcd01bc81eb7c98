"""``compile(spec, host) -> Plan``: what a container is, as a list of primitives. Pure; every phase is a function.

Order matters, and is the safety of it: sources (binds, kernel file systems) are taken as detached trees *before*
``pivot_root`` and attached *after* it, so that whatever ROOTFS holds can only resolve inside the container; and what is
mounted on is walked to name by name (csrc/plan/mountpoint.c), so that no magic link of ``/proc`` leads a path
elsewhere.
"""

from __future__ import annotations

import os
import posixpath
import struct
from typing import TYPE_CHECKING

from minicontainer import plan as p
from minicontainer.container import placeholders
from minicontainer.container.filesystem import dev, etc, kernelfs
from minicontainer.container.filesystem.mounting import CLONE, mount_on, take_fs
from minicontainer.container.host import Host
from minicontainer.container.network import veth
from minicontainer.container.program import execute
from minicontainer.native import lib
from minicontainer.plan import FDCWD, Builder, Plan, Slot
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.spec import Mount

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = (  # field of Spec, CLONE flag; mnt is always new, user and time have their own rules
    ("pid", "CLONE_NEWPID"),
    ("network", "CLONE_NEWNET"),
    ("uts", "CLONE_NEWUTS"),
    ("ipc", "CLONE_NEWIPC"),
    ("cgroupns", "CLONE_NEWCGROUP"),
)
JOINS = (("userns", "CLONE_NEWUSER"), *NAMESPACES)


def compile(spec: Spec, host: Host) -> Plan:
    """The plan of ``spec`` on ``host``. Its inputs: stdin stdout stderr, and what the phases ask for by name."""
    b = Builder()
    for name in ("stdin", "stdout", "stderr"):
        b.input(name)
    _join_namespaces(b, spec)
    _call_parent(b, host)
    _unshare_time(b, host)
    _name_and_network(b, spec)
    _take_kernel_filesystems(b, spec, host)
    _map_ids(b, host)
    _take_sources(b, spec, host)
    _enter_root(b, spec, host)
    veth.configure(b, host.endpoint)
    dev.populate(b, spec, host)
    kernelfs.attach_proc(b, spec, host)
    kernelfs.attach_sys(b, spec, host)
    _attach_mounts(b, spec, host)
    etc.attach(b, host.etc)
    _finish_root(b, spec, host)
    _stdio(b, spec, host)
    execute.confine(b, spec, host, staged=execute.is_staged(spec, host))
    execute.execute(b, spec, host, environment(spec, host))
    return b.plan()


def clone_flags(spec: Spec, host: Host) -> p.Const:
    """The namespaces that clone3 makes. With a user namespace to join, the child makes them itself, inside it."""
    if host.userns == "join":
        return p.const("0")
    names = ["CLONE_NEWNS", *_new_namespaces(spec)]
    if host.userns != "host":
        names.insert(0, "CLONE_NEWUSER")
    return p.const("|".join(names))


def environment(spec: Spec, host: Host, term: str = "xterm") -> dict[str, str]:
    """PATH, HOME, HOSTNAME, TERM at a terminal, and what was asked for."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname(spec), "HOME": host.identity.home}
    if spec.joined("uts"):
        del env["HOSTNAME"]  # whatever it is there
    if spec.tty:
        env["TERM"] = term
    return env | dict(spec.env)


def hostname(spec: Spec, identifier: str = placeholders.ID) -> str:
    """The container's host name: without another, its short id, as docker's."""
    return os.uname().nodename if spec.uts == "host" else spec.hostname or spec.name or identifier


def inert(spec: Spec) -> tuple[str, ...]:
    """What ROOTFS and volumes are mounted with: NODEV, NOSUID."""
    return () if spec.privileged else ("NODEV", "NOSUID") if spec.no_new_privileges else ("NODEV",)


def _new_namespaces(spec: Spec) -> list[str]:
    own = {field for field, _ in NAMESPACES if getattr(spec, field) in ("private", "none")}
    return [flag for field, flag in NAMESPACES if field in own or (field == "network" and spec.attached)]


# ---- the phases


def _join_namespaces(b: Builder, spec: Spec) -> None:
    """A joined user namespace comes first: it gives the rights over the others. The child cannot be traced by
    those who can see it (it shares our memory); spawn makes the caller dumpable again."""
    b.phase = "join namespaces"
    joins = [(field, flag) for field, flag in JOINS if spec.joined(field)]
    if joins or spec.pid == "host":
        b.add(p.prctl("PR_SET_DUMPABLE", 0))
    b.add(*(p.setns(b.input(f"ns-{field}"), flag) for field, flag in joins))
    if spec.joined("userns"):
        b.add(p.setresgid(0), p.setresuid(0), p.unshare("|".join(["CLONE_NEWNS", *_new_namespaces(spec)])))
    if spec.joined("pid") or (spec.joined("userns") and spec.pid == "private"):
        b.add(p.fork_sibling())


def _call_parent(b: Builder, host: Host) -> None:
    """user_namespaces(7): one id can be mapped from inside; ranges need the parent-side plan. What needs no ids is done
    while it maps them."""
    b.phase = "user namespace"
    if needs_parent_plan(host):
        b.add(p.close(b.input("go-write")), p.call_parent(b.input("ready")))


def needs_parent_plan(host: Host) -> bool:
    """Whether somebody outside has to do something for the child: map its ids, or connect it."""
    return maps_outside(host) or host.endpoint is not None


def maps_outside(host: Host) -> bool:
    """Whether somebody outside must map the ids."""
    return host.userns not in ("host", "join") and host.maps is None


def _map_ids(b: Builder, host: Host) -> None:
    b.phase = "user namespace"
    if maps_outside(host):
        b.add(p.wait_for_parent(b.input("go")))
    elif host.maps is not None:
        for name, content in (("setgroups", "deny"), ("uid_map", host.maps[0]), ("gid_map", host.maps[1])):
            fd = Slot(name)
            b.add(p.openat(f"/proc/self/{name}", "O_WRONLY|O_CLOEXEC", name), p.write(fd, content), p.close(fd))
    if host.userns in ("private", "range"):
        b.add(p.setresgid(0), p.setresuid(0))


def _unshare_time(b: Builder, host: Host) -> None:
    """time_namespaces(7): exec enters it (Linux 6.3, commit 2b5f9dad32ed). Never by a flag of clone3: before that
    commit the child is in it at once, and its caller, whose memory it shares, keeps a clock page that is freed."""
    b.phase = "time namespace"
    if host.timens:
        b.add(p.unshare("CLONE_NEWTIME"))


def _take_kernel_filesystems(b: Builder, spec: Spec, host: Host) -> None:
    b.phase = "take sources"
    b.add(p.call("umask", 0))
    if host.chrooted:
        b.add(p.openat("/", "O_PATH|O_CLOEXEC", "chroot"), p.openat("/proc/self/ns/mnt", "O_RDONLY|O_CLOEXEC", "mnt"))
        b.add(p.setns(Slot("mnt"), "CLONE_NEWNS"))
    b.add(p.mount(None, "/", None, "MS_REC|MS_PRIVATE"))
    if host.chrooted:
        b.add(p.fchdir(Slot("chroot")), p.call("chroot", "."))
    kernelfs.take(b, spec, host)


def _take_sources(b: Builder, spec: Spec, host: Host) -> None:
    b.phase = "take sources"
    for i, mount in enumerate(spec.mounts):
        _take_mount(b, spec, host, mount, f"mount-{i}")
    _take_root(b, spec, host)
    dev.take(b, spec, host)
    kernelfs.take_masks(b, spec)


def _take_tree(b: Builder, host: Host, path: str, name: str) -> Slot:
    """A detached copy of what is mounted at ``path``, unless the parent has taken it (ids/idmapped.py)."""
    if host.idmapped:
        return b.input(name)
    b.add(p.open_tree(path, f"{CLONE}|AT_RECURSIVE", name))
    return Slot(name)


def _take_root(b: Builder, spec: Spec, host: Host) -> None:
    """Set-uid files and device nodes that came with it are inert, unless all rights, or new ones, are asked for. Where
    it is to be read-only and has all that is mounted on, nothing of ours writes to it either."""
    root, attrs = _take_tree(b, host, spec.rootfs, "root"), inert(spec)
    if attrs:
        b.add(p.mount_setattr(root, "", "|".join(f"MOUNT_ATTR_{name}" for name in attrs), recursive=True))
    if has_overlay(spec, host):
        take_fs(b, "tmpfs", "layers", "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV", mode="755")
    elif spec.read_only:
        b.add(p.mount_setattr(root, "", "MOUNT_ATTR_RDONLY"))


def has_overlay(spec: Spec, host: Host) -> bool:
    """Whether the container's root is a layer over ROOTFS, which vanishes with it."""
    return spec.ephemeral or host.lacks_mount_points


def _take_mount(b: Builder, spec: Spec, host: Host, mount: Mount, name: str) -> None:
    attrs = [f"MOUNT_ATTR_{o.upper()}" for o in sorted(mount.options) if o.startswith("no")]
    if mount.type == "tmpfs":
        attrs += [f"MOUNT_ATTR_{o}" for o in ("NOSUID", "NODEV", "NOEXEC") if not _wants(mount, o)]
        options = {"mode": f"{mount.mode if mount.mode is not None else 0o1777:o}"}
        for key in ("size", "uid", "gid", "nr_inodes"):
            if (value := getattr(mount, key)) is not None:
                options[key] = str(value)
        attrs += ["MOUNT_ATTR_RDONLY"] * mount.readonly
        take_fs(b, "tmpfs", name, "|".join(dict.fromkeys(attrs)) or "0", **options)
        return
    tree = _take_tree(b, host, mount.source or "", name)
    attrs += [f"MOUNT_ATTR_{name}" for name in inert(spec) if not _wants(mount, name)]
    attrs += ["MOUNT_ATTR_RDONLY"] * mount.readonly
    if attrs:
        b.add(p.mount_setattr(tree, "", "|".join(dict.fromkeys(attrs)), recursive=True))


def _wants(mount: Mount, option: str) -> bool:
    """Whether ``exec``, ``suid`` or ``dev`` was asked for of a mount that has none of them by default."""
    return option.removeprefix("NO").lower() in mount.options


def _enter_root(b: Builder, spec: Spec, host: Host) -> None:
    """pivot_root(2), "pivot_root(".", ".")": the old root lies above the new one, and is detached from there.

    A caller in a chroot has another root than its mount namespace, above which the container would then lie, and from
    which chroot(2) and ".." lead out of it. setns(2) to the namespace that we are in gives us the true root, and that
    is left behind."""
    b.phase = "root"
    if host.userns == "range" or host.endpoint is not None:
        b.add(p.wait_for_parent(b.input("go")))
    layers = has_overlay(spec, host)
    top = Slot("layers" if layers else "root")
    b.add(p.move_mount(top, "/"), p.fchdir(top))
    if layers:
        top = _overlay(b, spec, host)
    if host.chrooted:
        b.add(p.setns(Slot("mnt"), "CLONE_NEWNS"), p.fchdir(top))
    b.add(p.pivot_root(".", "."), p.umount2(".", "MNT_DETACH"))
    if layers and not host.chrooted:
        b.add(p.umount2(".", "MNT_DETACH"))  # that was the layers, which lay on top of the old root
    b.add(p.call("chdir", "/"))


def _overlay(b: Builder, spec: Spec, host: Host) -> Slot:
    """Lower layer ROOTFS, upper layer in a tmpfs that lies over this namespace's root: nothing is left of it.
    Relative names, so that no character of ROOTFS's path can be taken for an option. In a user namespace its marks are
    user.* attributes, which a tmpfs has since Linux 6.6; before, a directory that was emptied cannot be removed."""
    own_marks = "" if host.in_host_userns else ",userxattr"
    merged, flags = Slot("merged"), "|".join(f"MS_{name}" for name in inert(spec)) or "0"
    b.add(*(p.mkdirat(FDCWD, name, 0o755) for name in ("lower", "upper", "work", "merged")))
    if host.sends_upper and spec.ephemeral:
        upper = Slot("upper")
        b.add(p.openat("upper", "O_PATH|O_DIRECTORY|O_CLOEXEC", upper), p.send_fd(b.input("parent-socket"), upper))
    b.add(
        p.move_mount(Slot("root"), "lower"),
        p.mount("overlay", "merged", "overlay", flags, f"lowerdir=lower,upperdir=upper,workdir=work{own_marks}"),
        p.call("chdir", "merged"),
        p.openat(".", "O_PATH|O_CLOEXEC", merged),
    )
    return merged


def _attach_mounts(b: Builder, spec: Spec, host: Host) -> None:
    b.phase = "mounts"
    for i, (mount, is_file) in enumerate(zip(spec.mounts, host.files, strict=True)):
        mount_on(b, Slot(f"mount-{i}"), posixpath.normpath(mount.target), f"target-{i}", is_file=is_file)


def _finish_root(b: Builder, spec: Spec, host: Host) -> None:
    if spec.read_only and has_overlay(spec, host):
        b.phase = "root"
        b.add(p.mount_setattr(FDCWD, "/", "MOUNT_ATTR_RDONLY"))


IFREQ_LO = struct.pack("=16sh22x", b"lo", lib.IFF_UP)  # struct ifreq, netdevice(7)


def _name_and_network(b: Builder, spec: Spec) -> None:
    b.phase = "hostname, network"
    if spec.uts == "private":
        b.add(p.sethostname(hostname(spec)))
    if spec.network == "none" or spec.attached:
        sock = Slot("socket")
        b.add(
            p.call("socket", p.const("AF_INET"), p.const("SOCK_DGRAM|SOCK_CLOEXEC"), 0, into=sock),
            p.call("ioctl", sock, p.const("SIOCSIFFLAGS"), p.Struct(IFREQ_LO, "{lo, IFF_UP}")),
            p.close(sock),
        )


def _stdio(b: Builder, spec: Spec, host: Host) -> None:
    """A session of its own always: no byte can be pushed into the caller's terminal (TIOCSTI)."""
    b.phase = "stdio"
    b.add(p.call("setsid"))
    if spec.tty:
        dev.own_terminal(b, host)
        return
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        b.add(p.dup3(Slot(name), number))
