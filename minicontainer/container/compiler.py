"""``compile(spec, host) -> Plan``: a container as a list of primitives. Pure (no system calls); a function per phase.

The order of the steps makes a start safe. Sources (bind mounts, kernel file systems) are opened as detached mount trees
*before* ``pivot_root`` and attached *after* it, so that paths in ROOTFS can only resolve inside the container. Mount
points are looked up name by name (csrc/plan/mountpoint.c), so that no magic link of ``/proc`` redirects a path.
"""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it
import os
import posixpath

from minicontainer import plan as p
from minicontainer.container import placeholders
from minicontainer.container.filesystem import dev, etc, kernelfs
from minicontainer.container.filesystem.mounting import CLONE, create_fs, mount_on, mount_point
from minicontainer.container.program import execute
from minicontainer.native import lib
from minicontainer.plan import FDCWD, Builder, Slot
from minicontainer.plan.encoding import exec_part
from minicontainer.plan.step import os_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.host import Host
    from minicontainer.plan import Plan
    from minicontainer.plan.encoding import Part
    from minicontainer.spec import Mount, Spec

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
    """The child's plan. Inputs: ``stdin stdout stderr``, and those that the phases declare by name."""
    b = Builder()
    for name in ("stdin", "stdout", "stderr"):
        b.input(name)
    _join_namespaces(b, spec)
    _call_parent(b, host)
    _unshare_time(b, host)
    _name_and_network(b, spec)
    _prepare_kernel_filesystems(b, spec, host)
    _map_ids(b, host)
    _take_sources(b, spec, host)
    _enter_root(b, spec, host)
    if host.endpoint is not None:
        from minicontainer.container.network import veth

        veth.configure(b, host.endpoint)
    dev.populate(b, spec, host)
    kernelfs.attach_proc(b, spec, host)
    kernelfs.attach_sys(b, spec, host)
    _attach_mounts(b, spec, host)
    etc.attach(b, host.etc)
    _finish_root(b, spec, host)
    _stdio(b, spec, host)
    if host.waits:
        from minicontainer.container.program import wait

        wait.confine_and_wait(b, spec, host)
    else:
        execute.confine(b, spec, host, staged=execute.is_staged(spec, host))
        execute.execute(b, spec, host, environment(spec, host))
    return b.plan()


def compile_root(spec: Spec, host: Host) -> Builder:
    """The first steps of the monitor of a machine (container/machine/): namespaces and ids as ``compile`` makes them,
    ROOTFS with its volumes and the files of /etc, and the streams; no /proc, /sys and /dev, which are the guest's own.
    A tmpfs of the spec is the guest's too, and here a mount point alone. The slot ``proc`` is a proc that is mounted
    nowhere."""
    b = Builder()
    for name in ("stdin", "stdout", "stderr"):
        b.input(name)
    _call_parent(b, host)
    _name_and_network(b, spec)
    _make_private(b, host)
    kernelfs.prepare_proc(b, spec, host)
    _map_ids(b, host)
    _take_roots(b, spec, host, with_tmpfs=False)
    if spec.tty:
        dev.prepare_pts(b, host)
    _enter_root(b, spec, host)
    if spec.read_only and has_overlay(spec, host):
        kernelfs.make_mount_points(b)
    _attach_mounts(b, spec, host, with_tmpfs=False)
    if host.etc:
        dev.lend(b, host, lambda: etc.attach(b, host.etc))
    _finish_root(b, spec, host)
    _stdio(b, spec, host, console=False)
    return b


def for_family(plan: Plan, spec: Spec, host: Host) -> Plan:
    """The plan of ``spec``, from that of another spec of its family (spec/family.py) for the same host facts."""
    names, cwd = [hostname(spec)] if spec.uts == "private" else [], spec.cwd
    arguments = execute.exec_arguments(spec, host, environment(spec, host))
    parts: list[Part] = []
    for name in map(os_bytes, names):
        parts.append((lib.MC_SYSCALL, lib.SYS_sethostname, (name, len(name)), 0))
    parts += (lib.MC_CHDIR, 0, (os_bytes(cwd),), 0), exec_part(*arguments)
    return plan.with_parts(
        dict(zip(own_steps(plan), parts, strict=True)),
        lambda: [*map(p.sethostname, names), p.chdir(cwd), execute.exec_step(*arguments)],
    )


def own_steps(plan: Plan) -> tuple[int, ...]:
    """The indexes of the steps that depend on fields of family.CHANGING."""
    indexes: tuple[int, ...] | None = plan.__dict__.get("_own")
    if indexes is None:
        own = (lib.MC_CHDIR, lib.MC_EXEC, lib.MC_EXEC_FD)
        indexes = tuple(i for i, s in enumerate(plan.steps) if s.op in own or s.call == "sethostname")
        plan.__dict__["_own"] = indexes
    return indexes


def keep_own_steps(plan: Plan, indexes: tuple[int, ...]) -> None:
    """Takes what ``own_steps`` has returned for an equal plan."""
    plan.__dict__["_own"] = indexes


def clone_flags(spec: Spec, host: Host) -> p.Const:
    """The namespaces that clone3 creates. With a user namespace to join, the child creates them after joining it."""
    if host.userns == "join":
        return p.const("0")
    names = ["CLONE_NEWNS", *_new_namespaces(spec)]
    if host.userns != "host":
        names.insert(0, "CLONE_NEWUSER")
    return p.const("|".join(names))


def environment(spec: Spec, host: Host, term: str = "xterm") -> dict[str, str]:
    """The program's environment: PATH, HOME, HOSTNAME, TERM with ``spec.tty``, and ``spec.env``."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname(spec), "HOME": host.identity.home}
    if spec.joined("uts"):
        del env["HOSTNAME"]  # the joined namespace has a name of its own
    if spec.tty:
        env["TERM"] = term
    return env | dict(spec.env)


def hostname(spec: Spec, identifier: str = placeholders.ID) -> str:
    """The container's host name; by default its short id, as in docker."""
    return os.uname().nodename if spec.uts == "host" else spec.hostname or spec.name or identifier


def inert(spec: Spec) -> tuple[str, ...]:
    """The mount attributes that make device nodes and set-uid files of ROOTFS and volumes inert: NODEV, NOSUID."""
    return () if spec.privileged else ("NODEV", "NOSUID") if spec.no_new_privileges else ("NODEV",)


def _new_namespaces(spec: Spec) -> list[str]:
    own = {field for field, _ in NAMESPACES if getattr(spec, field) in ("private", "none")}
    return [flag for field, flag in NAMESPACES if field in own or (field == "network" and spec.attached)]


# ---- the phases


def _join_namespaces(b: Builder, spec: Spec) -> None:
    """Joins namespaces; the user namespace first, since it gives the rights over the others.

    A process in a joined pid namespace could trace the child, which shares the caller's memory: PR_SET_DUMPABLE
    prevents that (ptrace(2)). ``Spawn`` makes the caller dumpable again."""
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
    """Starts the parent-side plan. It maps ids, of which a process can map only one itself (user_namespaces(7)), while
    the child runs the steps that need no ids."""
    b.phase = "user namespace"
    if needs_parent_plan(host):
        b.add(p.close(b.input("go-write")), p.call_parent(b.input("ready")))


def needs_parent_plan(host: Host) -> bool:
    """Whether the child needs a parent-side plan, to map its ids or to connect it to a network."""
    return maps_outside(host) or _is_connected(host)


def _is_connected(host: Host) -> bool:
    """Whether the parent-side plan connects the child to a network."""
    return host.endpoint is not None and not host.endpoint.in_guest


def maps_outside(host: Host) -> bool:
    """Whether the parent-side plan writes the id maps."""
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
    """Creates a time namespace, which exec enters (time_namespaces(7); Linux 6.3, commit 2b5f9dad32ed). A flag of
    clone3 would not do: before that commit it puts the child into the namespace at once, and the caller, whose memory
    the child shares, would be left with a clock page that is freed."""
    b.phase = "time namespace"
    if host.timens:
        b.add(p.unshare("CLONE_NEWTIME"))


def _prepare_kernel_filesystems(b: Builder, spec: Spec, host: Host) -> None:
    _make_private(b, host)
    kernelfs.prepare(b, spec, host)


def _make_private(b: Builder, host: Host) -> None:
    """What is mounted from now on is seen in the child's mount namespace alone."""
    b.phase = "take sources"
    b.add(p.call("umask", 0))
    if host.chrooted:
        b.add(p.openat("/", "O_PATH|O_CLOEXEC", "chroot"), p.openat("/proc/self/ns/mnt", "O_RDONLY|O_CLOEXEC", "mnt"))
        b.add(p.setns(Slot("mnt"), "CLONE_NEWNS"))
    b.add(p.mount(None, "/", None, "MS_REC|MS_PRIVATE"))
    if host.chrooted:
        b.add(p.fchdir(Slot("chroot")), p.call("chroot", "."))


def _take_sources(b: Builder, spec: Spec, host: Host) -> None:
    _take_roots(b, spec, host)
    dev.prepare(b, spec, host)
    kernelfs.prepare_masks(b, spec, host)


def _take_roots(b: Builder, spec: Spec, host: Host, *, with_tmpfs: bool = True) -> None:
    """Takes the sources of mounts, and ROOTFS."""
    b.phase = "take sources"
    for i, mount in enumerate(spec.mounts):
        if with_tmpfs or mount.type != "tmpfs":
            _take_mount(b, spec, host, mount, f"mount-{i}")
    _take_root(b, spec, host)


def _take_tree(b: Builder, host: Host, path: str, name: str) -> Slot:
    """A detached copy of the mounts at ``path``; an input where the parent opened it (ids/idmapped.py)."""
    if host.idmapped:
        return b.input(name)
    b.add(p.open_tree(path, f"{CLONE}|AT_RECURSIVE", name))
    return Slot(name)


def _take_root(b: Builder, spec: Spec, host: Host) -> None:
    """Opens ROOTFS. Its set-uid files and device nodes are inert, unless the spec is privileged or permits new
    privileges. A read-only ROOTFS with all mount points is read-only from the start, for the plan's own steps too."""
    root, attrs = _take_tree(b, host, spec.rootfs, "root"), inert(spec)
    if attrs:
        b.add(p.mount_setattr(root, "", "|".join(f"MOUNT_ATTR_{name}" for name in attrs), recursive=True))
    if has_overlay(spec, host):
        create_fs(b, "tmpfs", "layers", "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV", mode="755")
    elif spec.read_only:
        b.add(p.mount_setattr(root, "", "MOUNT_ATTR_RDONLY"))


def has_overlay(spec: Spec, host: Host) -> bool:
    """Whether the container's root is an overlay on ROOTFS, whose upper layer vanishes with the container."""
    return spec.ephemeral or host.lacks_mount_points


def _take_mount(b: Builder, spec: Spec, host: Host, mount: Mount, name: str) -> None:
    attrs = [f"MOUNT_ATTR_{o.upper()}" for o in sorted(mount.options) if o.startswith("no")]
    if mount.type == "tmpfs":
        attrs += [f"MOUNT_ATTR_{o}" for o in ("NOSUID", "NODEV", "NOEXEC") if not _permits(mount, o)]
        options = {"mode": f"{mount.mode if mount.mode is not None else 0o1777:o}"}
        for key in ("size", "uid", "gid", "nr_inodes"):
            if (value := getattr(mount, key)) is not None:
                options[key] = str(value)
        attrs += ["MOUNT_ATTR_RDONLY"] * mount.readonly
        create_fs(b, "tmpfs", name, "|".join(dict.fromkeys(attrs)) or "0", **options)
        return
    tree = _take_tree(b, host, mount.source or "", name)
    attrs += [f"MOUNT_ATTR_{name}" for name in inert(spec) if not _permits(mount, name)]
    attrs += ["MOUNT_ATTR_RDONLY"] * mount.readonly
    if attrs:
        b.add(p.mount_setattr(tree, "", "|".join(dict.fromkeys(attrs)), recursive=True))


def _permits(mount: Mount, option: str) -> bool:
    """Whether the mount's options turn off the default ``option``: NOEXEC, NOSUID or NODEV."""
    return option.removeprefix("NO").lower() in mount.options


def _enter_root(b: Builder, spec: Spec, host: Host) -> None:
    """pivot_root(2), "pivot_root(".", ".")": the old root is then mounted on the new one, and is detached.

    The root of a caller in a chroot is not the root of its mount namespace. The container would then be mounted on that
    root, and chroot(2) with ".." would lead out of it. setns(2) to the child's own mount namespace sets the namespace's
    true root, which pivot_root then replaces."""
    b.phase = "root"
    if host.userns == "range" or _is_connected(host):
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
        b.add(p.umount2(".", "MNT_DETACH"))  # the tmpfs of the layers, which was mounted on the old root
    b.add(p.call("chdir", "/"))


def _overlay(b: Builder, spec: Spec, host: Host) -> Slot:
    """Mounts an overlay with ROOTFS as lower layer and an upper layer in a tmpfs, which vanishes with the namespace.

    Layers have relative names, so that overlayfs takes no character of ROOTFS's path for an option. In a user
    namespace overlayfs uses user.* attributes, which tmpfs has since Linux 6.6; before, a directory of the lower layer
    cannot be removed."""
    userxattr = "" if host.in_host_userns else ",userxattr"
    merged, flags = Slot("merged"), "|".join(f"MS_{name}" for name in inert(spec)) or "0"
    b.add(*(p.mkdirat(FDCWD, name, 0o755) for name in ("lower", "upper", "work", "merged")))
    if host.sends_upper and spec.ephemeral:
        upper = Slot("upper")
        b.add(p.openat("upper", "O_PATH|O_DIRECTORY|O_CLOEXEC", upper), p.send_fd(b.input("parent-socket"), upper))
    b.add(
        p.move_mount(Slot("root"), "lower"),
        p.mount("overlay", "merged", "overlay", flags, f"lowerdir=lower,upperdir=upper,workdir=work{userxattr}"),
        p.call("chdir", "merged"),
        p.openat(".", "O_PATH|O_CLOEXEC", merged),
    )
    return merged


def _attach_mounts(b: Builder, spec: Spec, host: Host, *, with_tmpfs: bool = True) -> None:
    b.phase = "mounts"
    for i, (mount, is_file) in enumerate(zip(spec.mounts, host.files, strict=True)):
        target, at = posixpath.normpath(mount.target), f"target-{i}"
        if with_tmpfs or mount.type != "tmpfs":
            mount_on(b, Slot(f"mount-{i}"), target, at, is_file=is_file)
        else:
            b.add(mount_point(target, at, is_file=is_file), p.close(Slot(at)))


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


def _stdio(b: Builder, spec: Spec, host: Host, *, console: bool = True) -> None:
    """Sets the streams; ``console``: a terminal is /dev/console too.

    A session of its own prevents TIOCSTI into the caller's terminal (ioctl_tty(2))."""
    b.phase = "stdio"
    b.add(p.call("setsid"))
    if spec.tty:
        dev.open_terminal(b, host, console=console)
        return
    if host.waits:
        b.add(p.call("close_range", 0, 2, 0))  # the program's streams come with it
        return
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        b.add(p.dup3(Slot(name), number))
