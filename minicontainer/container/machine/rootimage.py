"""The image of ROOTFS (``root_image``): a file system in a file, which a machine reads as a disk.

Theory of operation. mkfs.erofs(1) or mke2fs(8) runs in a container: ROOTFS is a read-only volume of it, and the image
its standard input, the only file that it can write. So it sees owners as the program's container would, and what a
program of ROOTFS does to its directories meanwhile leads nowhere. The image is kept in
``~/.cache/minicontainer/root-images`` (usercache.py), and found again as long as ROOTFS stays as it is (roottree.py).
"""

from __future__ import annotations

import os

from minicontainer import usercache
from minicontainer.container import host, start
from minicontainer.container.ids.ranges import WIDTH, parse_range
from minicontainer.container.machine import roottree
from minicontainer.errors import Error, SpecError, UnsupportedError, quote
from minicontainer.microvm import stamps
from minicontainer.spec import Mount, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.machine.roottree import Tree

KIND = "root-images"
MOUNT_POINTS = "root-image-tools"  # the root of a tool's container, where it has nothing but mount points
TOTAL_MAX = 16 << 30  # bytes of all images
FORMAT = 1  # of an image, and of what it is found by
TREE, IMAGE = "/tree", "/proc/self/fd/0"  # in the container of the tool; the image may have no name
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")  # directories of the host: what a tool of a distribution needs
PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin")
TOOLS = {"erofs": ("mkfs.erofs", "erofs-utils"), "ext4": ("mke2fs", "e2fsprogs")}  # and their packages
SAID_MAX = 4096  # bytes of what a tool has said


def open_image(spec: Spec) -> int:
    """A descriptor of the image, for reading, which the caller closes. It is made if there is none of ROOTFS as it is,
    by one start at a time: the others wait for it.

    UnsupportedError: the tool is missing; SpecError: an image of ROOTFS cannot be what the container would see; Error:
    the tool has failed, or ROOTFS has changed meanwhile."""
    kind = spec.root_image or ""
    tool = _tool(kind)
    if (fd := usercache.reuse(KIND, _name(spec, tool, _look(spec)))) is not None:
        return fd
    try:
        with usercache.Draft(KIND) as draft:
            tree = _look(spec)  # it may have changed while another start made its image
            name = _name(spec, tool, tree)
            if (fd := usercache.reuse(KIND, name)) is not None:
                return fd
            _make(spec, tool, tree, draft)
            if roottree.look(spec.rootfs).stamp != tree.stamp:
                raise Error(f"root_image {kind}: {spec.rootfs} has changed while its image was made (once more)")
            return draft.keep(name, TOTAL_MAX)
    except OSError as e:
        if isinstance(e, Error):
            raise
        reason = f"{usercache.directory(KIND)}: {e.strerror.lower()}" if e.strerror else str(e)
        raise Error(f"root_image {kind}: {reason} (another XDG_CACHE_HOME)") from None


def _look(spec: Spec) -> Tree:
    """SpecError: the image of ROOTFS would not be as the container sees it."""
    tree = roottree.look(spec.rootfs)
    _check_owners(spec, tree)
    if spec.root_image == "ext4":
        _check_root(spec)
    return tree


def _name(spec: Spec, tool: str, tree: Tree) -> str:
    """By which an image is found."""
    made_of = (FORMAT, spec.root_image, _ids(spec), *stamps.of_files([tool]), tree.stamp)
    return stamps.digest(stamps.encoded(repr(made_of)))


def _tool(kind: str) -> str:
    """The path of the program that makes such an image."""
    name, package = TOOLS[kind]
    for place in PLACES:
        if os.access(f"{place}/{name}", os.X_OK):
            return f"{place}/{name}"
    raise UnsupportedError("root_image", kind, f"there is no {name} in {', '.join(PLACES)}", f"apt install {package}")


def _userns(spec: Spec) -> str | None:
    """The user namespace of the tool. ROOTFS shows root's containers the owners that it has, in whatever namespace: so
    the host's will do, in which no file system needs ID-mapped mounts."""
    return "host" if os.geteuid() == 0 else spec.userns


def _ids(spec: Spec) -> object:
    """By what the tool sees owners as others than they are: the id maps of an ordinary user's container."""
    if os.geteuid() == 0:
        return None
    from minicontainer.container.ids import mappings

    mode = host.userns_mode(spec)
    return mappings.own_maps(mode) or mappings.outer_maps(mode)


def _check_owners(spec: Spec, tree: Tree) -> None:
    """SpecError: a container of root does not see an owner as he is, but the guest would: the id is beyond its ids."""
    if host.userns_mode(spec) != "range":
        return
    ids = parse_range(spec.userns)
    count = WIDTH if ids is None else ids.width
    for owner, path in tree.owners.items():
        if max(owner) >= count:
            reason = f"{quote(path or '/')} belongs to {owner[0]}:{owner[1]}, and the container has ids below {count}"
            raise SpecError("rootfs", spec.rootfs, reason, "chown it, or --userns host")


def _check_root(spec: Spec) -> None:
    """SpecError: the root directory that mke2fs makes, of root with mode 755, is not what the container would see."""
    info = os.stat(spec.rootfs)
    has_root = os.geteuid() == 0 or host.userns_mode(spec) != "keep-id"  # whether the caller is root inside
    is_callers = (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())
    if not (has_root and is_callers) or info.st_mode & 0o7777 != 0o755:
        reason = f"its root directory is of root with mode 755, as {quote(spec.rootfs)} is not"
        raise SpecError("root_image", "ext4", reason, "erofs")


# ---- the tool


def _make(spec: Spec, tool: str, tree: Tree, draft: usercache.Draft) -> None:
    """Writes the image. Error: the tool has failed."""
    kind = spec.root_image or ""
    binds = [Mount(path, path, readonly=True) for path in SYSTEM if os.path.isdir(path)]
    binds.append(Mount(TREE, spec.rootfs, readonly=True))
    tools = Spec(
        args=_arguments(kind, tool, tree),
        rootfs=usercache.place(MOUNT_POINTS),
        mounts=tuple(binds),
        userns=_userns(spec),
        cap_drop=("ALL",),
        cap_add=("DAC_READ_SEARCH",),
        die_with_parent=True,
    )
    status, said = _run(tools, draft.fd)
    if status:
        raise Error(f"root_image {kind}: {os.path.basename(tool)} has ended with status {status}: {said or 'silently'}")


def _arguments(kind: str, tool: str, tree: Tree) -> tuple[str, ...]:
    if kind == "erofs":
        return (tool, "--quiet", "--preserve-mtime", IMAGE, TREE)
    inodes = tree.files + 64
    kibibytes = (tree.blocks + inodes // 16) * 5 + (16 << 10)  # 4 KiB a block; the file is sparse
    features = "^has_journal,^resize_inode"  # what is for writing
    options = ("-d", TREE, "-b", "4096", "-I", "256", "-N", str(inodes), "-m", "0", "-O", features)
    return (tool, "-q", "-F", "-t", "ext4", *options, IMAGE, f"{kibibytes}k")


def _run(spec: Spec, image: int) -> tuple[int, str]:
    """The status of the container's program, and the last line of its output."""
    output = os.memfd_create("minicontainer-output", os.MFD_CLOEXEC)
    try:
        child = start.start(spec, (image, output, output))
        try:
            status = child.spawn.wait()
        finally:
            child.discard()
        size = os.fstat(output).st_size
        text = os.pread(output, SAID_MAX, max(0, size - SAID_MAX)).decode("utf-8", "replace")
    finally:
        os.close(output)
    printable = "".join(c if c.isprintable() else "?" if c not in "\r\n" else "\n" for c in text)
    return status, next((line.strip() for line in reversed(printable.splitlines()) if line.strip()), "")
