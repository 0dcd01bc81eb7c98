"""The FUSE server, request by request: what it negotiates, and what it refuses of a client that it does not trust."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import until
from fuse import ATTRIBUTES, ENTRY, FLAGS, INIT, IO, REQUEST, ROOT_ID, SETATTR, Client, compile_program, request

pytestmark = pytest.mark.needs("userns")

KEEP_CACHE = 1 << 1  # FOPEN_KEEP_CACHE of <linux/fuse.h>
NOBODY = 99  # a node, or a handle, that does not exist


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("fs"))


@pytest.fixture
def fresh(program: Path, tmp_path: Path) -> Iterator[Client]:
    with Client(program, tmp_path) as client:
        yield client


@pytest.fixture
def client(fresh: Client) -> Client:
    """After FUSE_INIT."""
    fresh.start()
    return fresh


def name(*words: str) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


# ---- the session


def test_what_is_negotiated(fresh: Client) -> None:
    reply = fresh.call("INIT", 0, INIT.pack(7, 99, 12345, 0xFFFFFFFF, 0xFFFFFFFF))
    major, minor, readahead, flags, _, _, most, granularity, pages = struct.unpack_from("<IIIIHHIIH", reply.data)
    assert (reply.error, major, readahead, most, granularity, pages) == (0, 7, 12345, 1 << 20, 1, 256)
    assert minor >= 31
    has = {flag for flag, bit in FLAGS.items() if flag.startswith("FUSE_") and flags & bit}
    assert {"FUSE_MAX_PAGES", "FUSE_SUBMOUNTS", "FUSE_DO_READDIRPLUS", "FUSE_HANDLE_KILLPRIV_V2"} <= has
    assert not has & {"FUSE_WRITEBACK_CACHE", "FUSE_POSIX_LOCKS", "FUSE_FLOCK_LOCKS", "FUSE_EXPORT_SUPPORT"}
    assert len(reply.data) == 64


def test_only_what_the_client_offers(fresh: Client) -> None:
    offered = FLAGS["FUSE_ASYNC_READ"] | FLAGS["FUSE_WRITEBACK_CACHE"]
    reply = fresh.call("INIT", 0, INIT.pack(7, 31, 0, offered, 0)[:16])
    assert struct.unpack_from("<IIII", reply.data)[3] == FLAGS["FUSE_ASYNC_READ"]


def test_versions(fresh: Client) -> None:
    assert fresh.call("GETATTR").error == errno.EIO, "before INIT"
    for version in ((6, 99), (7, 30)):
        assert fresh.call("INIT", 0, INIT.pack(*version, 0, 0, 0)).error == errno.EPROTO
    newer = fresh.call("INIT", 0, INIT.pack(8, 0, 0, 0, 0))
    assert struct.unpack_from("<I", newer.data) == (7,)
    assert fresh.call("GETATTR").error == errno.EIO, "the client has to begin again"
    fresh.start()
    assert fresh.call("GETATTR").error == 0


@pytest.mark.parametrize("how", ["DESTROY", "INIT"])
def test_a_new_session_knows_nothing_of_the_old(client: Client, how: str) -> None:
    (client.root / "file").touch()
    node = client.lookup("file")
    handle, directory = client.open(node), client.open(ROOT_ID, opcode="OPENDIR")
    if how == "DESTROY":
        assert client.call("DESTROY", 0).error == 0
    client.start()
    assert client.call("GETATTR", node).error == errno.ESTALE
    assert client.call("READ", node, IO.pack(handle, 0, 10, 0, 0, 0)).error == errno.EBADF
    assert client.call("READDIR", ROOT_ID, IO.pack(directory, 0, 1000, 0, 0, 0)).error == errno.EBADF
    assert client.lookup("file") != node


def test_what_has_no_reply(client: Client) -> None:
    assert client.send(request("FORGET", NOBODY, bytes(8))) == b""
    assert client.send(request("BATCH_FORGET", 0, struct.pack("<II", 2**32 - 1, 0) + bytes(32))) == b""
    assert client.send(request("INTERRUPT", 0, bytes(8))) == b""


@pytest.mark.parametrize("opcode", [0, 7, 4096, 2**32 - 1, "ACCESS", "IOCTL", "POLL", "SETLK", "BMAP", "SETUPMAPPING"])
def test_what_the_server_does_not_do(client: Client, opcode: int | str) -> None:
    assert client.call(opcode, ROOT_ID, bytes(100)).error == errno.ENOSYS


# ---- what is refused


@pytest.mark.parametrize("opcode", "LOOKUP UNLINK RMDIR MKDIR MKNOD SYMLINK CREATE RENAME LINK".split())
def test_names(client: Client, opcode: str) -> None:
    (client.beside / "file").touch()
    (client.root / "link").symlink_to("../beside")
    head = {"MKDIR": 8, "MKNOD": 16, "CREATE": 16, "RENAME": 8, "LINK": 8}.get(opcode, 0)
    arguments = struct.pack("<Q", ROOT_ID) if head == 8 and opcode != "MKDIR" else bytes(head)
    for word in ("..", ".", "", "/", "a/b", "/etc", "../beside", "../beside/file", "link/file"):
        assert client.call(opcode, ROOT_ID, arguments + name(word, "other")).error == errno.EINVAL
    assert client.call(opcode, ROOT_ID, arguments + b"no end").error == errno.EINVAL
    assert client.call(opcode, ROOT_ID, arguments).error == errno.EINVAL
    assert client.call(opcode, ROOT_ID, arguments + name("x" * 256, "other")).error == errno.ENAMETOOLONG
    assert os.listdir(client.root) == ["link"]
    assert os.listdir(client.beside) == ["file"]


def test_nodes_and_handles_that_the_client_does_not_have(client: Client) -> None:
    (client.root / "file").touch()
    file = client.lookup("file")
    handle, directory = client.open(file), client.open(ROOT_ID, opcode="OPENDIR")
    for node in (0, NOBODY, 2**64 - 1):
        for opcode in ("GETATTR", "LOOKUP", "READLINK", "STATFS", "OPENDIR", "LISTXATTR"):
            assert client.call(opcode, node, name("x" * 7)).error == errno.ESTALE
    assert client.call("LINK", ROOT_ID, struct.pack("<Q", NOBODY) + name("x")).error == errno.ESTALE
    assert client.call("RENAME", ROOT_ID, struct.pack("<Q", NOBODY) + name("x", "y")).error == errno.ESTALE
    for opcode, wrong in (("READ", directory), ("FLUSH", directory), ("RELEASE", NOBODY), ("READDIR", handle)):
        assert client.call(opcode, ROOT_ID, IO.pack(wrong, 0, 10, 0, 0, 0)).error == errno.EBADF
    assert client.call("RELEASEDIR", ROOT_ID, IO.pack(handle, 0, 10, 0, 0, 0)).error == errno.EBADF
    copying = struct.pack("<QQQQQQQ", handle, 0, file, directory, 0, 10, 0)
    assert client.call("COPY_FILE_RANGE", file, copying).error == errno.EBADF
    for opcode, data in (("LOOKUP", name("x")), ("MKDIR", bytes(8) + name("x")), ("OPENDIR", bytes(8))):
        assert client.call(opcode, file, data).error == errno.ENOTDIR


class Opened:
    """An open file, and whether the client was told to keep what it has of it in its cache."""

    def __init__(self, client: Client, node: int) -> None:
        reply = client.call("OPEN", node, struct.pack("<II", os.O_RDONLY, 0))
        assert reply.error == 0
        self.handle, flags = struct.unpack_from("<QI", reply.data)
        self.keeps = bool(flags & KEEP_CACHE)
        self._client = client

    def release(self) -> None:
        assert self._client.call("RELEASE", ROOT_ID, IO.pack(self.handle, 0, 0, 0, 0, 0)).error == 0


def opens_and_keeps(client: Client, node: int) -> bool:
    opened = Opened(client, node)
    opened.release()
    return opened.keeps


def test_the_cache_is_kept_of_what_has_not_changed(client: Client) -> None:
    """Since an open that the client has ended, and only once a further change would have another time."""
    for called in ("file", "other"):
        (client.root / called).write_bytes(b"one")
    file, other = client.lookup("file"), client.lookup("other")
    young = [opens_and_keeps(client, file), opens_and_keeps(client, file)]
    assert young == [False, False] or time.time() >= os.stat(client.root / "file").st_ctime + 2
    until(lambda: opens_and_keeps(client, file))
    assert opens_and_keeps(client, file)
    first = Opened(client, other)
    assert not Opened(client, other).keeps, "the client may not have seen the reply to the first"
    first.release()
    assert Opened(client, other).keeps
    assert client.call("RELEASE", ROOT_ID, IO.pack(first.handle, 0, 0, 0, 0, 0)).error == errno.EBADF


@pytest.mark.parametrize("change", ["content", "length", "mode", "forgotten"])
def test_the_cache_is_not_kept_of_what_has_changed(client: Client, change: str) -> None:
    path = client.root / "file"
    path.write_bytes(b"one")
    before, node = path.stat(), client.lookup("file")
    until(lambda: opens_and_keeps(client, node))
    if change == "content":
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "length":
        os.truncate(path, 1)
    elif change == "mode":
        path.chmod(0o600)
    else:
        client.send(request("FORGET", node, struct.pack("<Q", 1)))
        node = client.lookup("file")
    assert not opens_and_keeps(client, node)
    until(lambda: opens_and_keeps(client, node))


def test_special_files_are_not_opened(client: Client) -> None:
    os.mkfifo(client.root / "fifo")
    (client.root / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(client.root / "socket"))
    refused = {"fifo": errno.ENXIO, "socket": errno.ENXIO, "link": errno.ELOOP}
    for word, error in refused.items():
        node = client.lookup(word)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_NONBLOCK):
            assert client.call("OPEN", node, struct.pack("<II", flags, 0)).error == error
        assert client.call("SYNCFS", node, bytes(8)).error == error
        size = SETATTR.pack(FLAGS["FATTR_SIZE"], *[0] * 14)
        assert client.call("SETATTR", node, size).error == errno.EINVAL
    assert client.call("SYNCFS", ROOT_ID, bytes(8)).error == 0
    assert client.call("OPEN", ROOT_ID, struct.pack("<II", 0, 0)).error == errno.EISDIR
    created = struct.pack("<IIII", os.O_RDWR | os.O_CREAT, 0o600, 0, 0)
    for word in refused:
        assert client.call("CREATE", ROOT_ID, created + name(word)).error == errno.ESTALE


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices(client: Client, kind: int) -> None:
    wanted = struct.pack("<IIII", kind | 0o666, 0x103, 0, 0)
    assert client.call("MKNOD", ROOT_ID, wanted + name("x")).error == errno.EPERM
    assert client.call("MKNOD", ROOT_ID, struct.pack("<IIII", stat.S_IFDIR, 0, 0, 0) + name("x")).error == errno.EINVAL


def test_ids_that_the_server_does_not_have(client: Client) -> None:
    """In its user namespace there is one."""
    arguments = {"MKDIR": bytes(8), "MKNOD": struct.pack("<IIII", stat.S_IFREG, 0, 0, 0), "SYMLINK": b""}
    for opcode, data in arguments.items():
        for uid in (1000, 2**32 - 1):
            assert client.call(opcode, ROOT_ID, data + name("x", "y"), uid=uid).error == errno.EPERM
    assert os.listdir(client.root) == []
    assert client.call("MKDIR", ROOT_ID, bytes(8) + name("x")).error == 0
    nobody = SETATTR.pack(FLAGS["FATTR_UID"], *[0] * 11, 2**32 - 1, 0, 0)
    assert client.call("SETATTR", ROOT_ID, nobody).error == errno.EINVAL


def test_a_name_that_exists_is_not_created(client: Client) -> None:
    (client.root / "file").write_bytes(b"content")
    for flags, error in ((os.O_CREAT | os.O_TRUNC, errno.ESTALE), (os.O_CREAT | os.O_EXCL, errno.EEXIST)):
        wanted = struct.pack("<IIII", os.O_RDWR | flags, 0o600, 0, 0)
        assert client.call("CREATE", ROOT_ID, wanted + name("file")).error == error
    assert (client.root / "file").read_bytes() == b"content"


def test_offsets_and_sizes(client: Client) -> None:
    (client.root / "file").write_bytes(b"content")
    node = client.lookup("file")
    handle, reader = client.open(node, os.O_RDWR), client.open(node)
    for offset in (2**63, 2**64 - 1):
        for opcode in ("READ", "WRITE"):
            assert client.call(opcode, node, IO.pack(handle, offset, 4, 0, 0, 0) + b"data").error == errno.EFBIG
        assert client.call("LSEEK", node, struct.pack("<QQII", handle, offset, os.SEEK_DATA, 0)).error == errno.EINVAL
        space = struct.pack("<QQQII", handle, offset, 10, 0, 0)
        assert client.call("FALLOCATE", node, space).error == errno.EINVAL
        size = SETATTR.pack(FLAGS["FATTR_SIZE"], 0, offset, *[0] * 12)
        assert client.call("SETATTR", node, size).error == errno.EFBIG
    assert client.call("WRITE", node, IO.pack(handle, 0, 100, 0, 0, 0) + b"too little").error == errno.EINVAL
    assert client.call("WRITE", node, IO.pack(reader, 0, 1, 0, 0, 0) + b"x").error == errno.EBADF
    assert client.call("READ", node, IO.pack(reader, 0, 2**32 - 1, 0, 0, 0)).data == b"content"
    assert client.call("READ", node, IO.pack(reader, 2, 3, 0, 0, 0)).data == b"nte"
    assert client.call("READ", node, IO.pack(reader, 0, 100, 0, 0, 0), room=16 + 4).data == b"cont"
    assert client.call("LSEEK", node, struct.pack("<QQII", handle, 0, os.SEEK_END, 0)).error == errno.EINVAL


def test_a_write_for_a_mapping_has_a_place(client: Client) -> None:
    """Whatever the flags of the handle are that Linux has found for it; without FUSE_WRITE_CACHE O_APPEND counts."""
    (client.root / "file").write_bytes(b"content")
    node = client.lookup("file")
    handle = client.open(node, os.O_RDWR | os.O_APPEND)
    for flags, content in ((FLAGS["FUSE_WRITE_CACHE"], b"CONtent"), (0, b"CONtentCON")):
        writing = IO.pack(handle, 0, 3, flags, 0, os.O_APPEND)
        assert client.call("WRITE", node, writing + b"CON").data == struct.pack("<II", 3, 0)
        assert (client.root / "file").read_bytes() == content


def test_room(client: Client) -> None:
    """A result without room is no result: nothing is done, no node and no handle is given."""
    for room in (16, 100, 143):
        assert client.call("MKDIR", ROOT_ID, bytes(8) + name("x"), room=room) == (errno.EINVAL, b"")
    assert os.listdir(client.root) == []
    assert client.send(request("MKDIR", ROOT_ID, bytes(8) + name("x")), room=15) == b""
    assert client.call("MKDIR", ROOT_ID, bytes(8) + name("x"), room=16 + 128).error == 0
    (client.root / "link").symlink_to("a target")
    assert client.call("READLINK", client.lookup("link"), room=20).error == errno.EINVAL


def test_lengths_that_do_not_fit(client: Client) -> None:
    sound = request("LOOKUP", ROOT_ID, name("x"))
    for length in (0, REQUEST.size - 1, len(sound) + 1, 2**32 - 1):
        reply = client.send(struct.pack("<I", length) + sound[4:])
        assert struct.unpack_from("<i", reply, 4)[0] == -errno.EINVAL
    for size in range(REQUEST.size):
        assert len(client.send(sound[:size])) == 16
    shorter = struct.pack("<I", len(sound) - 1) + sound[4:]
    assert struct.unpack_from("<i", client.send(shorter), 4)[0] == -errno.EINVAL, "the name's end is not its own"


# ---- nodes and directories


def test_references(client: Client) -> None:
    (client.root / "file").write_bytes(b"content")
    nodes = {client.lookup("file") for _ in range(3)}
    (node,) = nodes
    handle = client.open(node)
    client.send(request("FORGET", node, struct.pack("<Q", 2)))
    assert client.call("GETATTR", node).error == 0
    client.send(request("BATCH_FORGET", 0, struct.pack("<IIQQQQ", 2, 0, NOBODY, 1, node, 2**64 - 1)))
    assert client.call("GETATTR", node).error == errno.ESTALE
    assert client.call("READ", node, IO.pack(handle, 0, 100, 0, 0, 0)).data == b"content"
    assert client.lookup("file") not in nodes
    client.send(request("FORGET", ROOT_ID, struct.pack("<Q", 2**64 - 1)))
    assert client.call("GETATTR", ROOT_ID).error == 0


def entries(client: Client, handle: int, opcode: str, size: int) -> list[tuple[str, int, int]]:
    """Name, node and inode of each entry, by requests of that size."""
    found, offset = [], 0
    while data := client.call(opcode, ROOT_ID, IO.pack(handle, offset, size, 0, 0, 0)).data:
        assert len(data) <= size
        while data:
            head, node = 0, 0
            if opcode == "READDIRPLUS":
                head = ENTRY.size + ATTRIBUTES.size
                (node,) = struct.unpack_from("<Q", data)
            inode, offset, length, _ = struct.unpack_from("<QQII", data, head)
            found.append((data[head + 24 : head + 24 + length].decode(), node, inode))
            data = data[head + 24 + length + -(length) % 8 :]
    return found


@pytest.mark.parametrize("size", [450, 1000, 4096, 60_000])
@pytest.mark.parametrize("opcode", ["READDIR", "READDIRPLUS"])
def test_listings(client: Client, opcode: str, size: int) -> None:
    names = {"n" * (i % 255 + 1) + "" for i in range(255)}
    for word in names:
        (client.root / word).touch()
    handle = client.open(ROOT_ID, opcode="OPENDIR")
    for _ in range(2):
        found = entries(client, handle, opcode, size)
        assert sorted(word for word, *_ in found) == sorted([".", "..", *names])
        inodes = {word: inode for word, _, inode in found}
        assert inodes["."] == inodes[".."] == client.root.stat().st_ino, "above the root is the root"
        if opcode == "READDIRPLUS":
            nodes = {word: node for word, node, _ in found}
            assert (nodes.pop("."), nodes.pop("..")) == (0, 0)
            assert all(client.lookup(word) == node for word, node in nodes.items())
            client.send(request("FORGET", nodes["n"], struct.pack("<Q", 1)))
            assert client.call("GETATTR", nodes["n"]).error == 0, "one is of the listing, one of the lookup"
            client.send(request("FORGET", nodes["n"], struct.pack("<Q", 1)))
            assert client.call("GETATTR", nodes["n"]).error == errno.ESTALE
    assert client.call(opcode, ROOT_ID, IO.pack(handle, 0, 30, 0, 0, 0)).error in (0, errno.EINVAL)
    assert client.call(opcode, ROOT_ID, IO.pack(handle, 2**64 - 1, 4096, 0, 0, 0)).error == errno.EINVAL


def test_a_mount_is_a_submount(program: Path, tmp_path: Path) -> None:
    """A directory of another file system, or of another mount of the same; a file cannot be one."""
    made = "mkdir root/tmpfs root/bind root/plain; touch root/file beside/file; mount -t tmpfs none root/tmpfs"
    bound = "mount --bind beside root/bind; mount --bind beside/file root/file"
    with Client(program, tmp_path, f"{made}; {bound}") as client:
        client.start()
        for word, flags in (("tmpfs", 1), ("bind", 1), ("plain", 0), ("file", 0)):
            reply = client.call("LOOKUP", ROOT_ID, name(word))
            assert ATTRIBUTES.unpack_from(reply.data, ENTRY.size)[-1] == flags, word


def test_an_access_control_list_of_ids_that_the_server_does_not_have(
    program: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Linux takes no list with the id -1, and then refuses every use of the file; no process has the id -2."""
    other, none = tmp_path_factory.mktemp("other"), 2**32 - 1
    (other / "file").touch()

    def entries(user: int, group: int) -> bytes:
        found = [(1, 6, none), (2, 6, user), (4, 0, none), (8, 4, group), (16, 6, none), (32, 0, none)]  # acl(5)
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in found)

    os.setxattr(other / "file", "system.posix_acl_access", entries(1234, os.getegid()))
    with Client(program, tmp_path, f"mkdir root/other; mount --bind {other} root/other") as client:
        client.start()
        node = client.lookup("file", client.lookup("other"))
        for size, data in ((100, entries(2**32 - 2, 0)), (0, struct.pack("<II", 52, 0))):
            wanted = struct.pack("<II", size, 0) + name("system.posix_acl_access")
            assert client.call("GETXATTR", node, wanted) == (0, data)


def test_extended_attributes(client: Client) -> None:
    (client.root / "file").touch()
    node = client.lookup("file")
    extended = struct.pack("<IIII", 5, 0, 0, 0)
    assert client.call("SETXATTR", node, extended + name("security.x") + b"value").error == 0
    assert client.call("SETXATTR", node, extended + name("security.x") + b"v").error == errno.EINVAL
    assert client.call("SETXATTR", node, struct.pack("<IIII", 65537, 0, 0, 0) + name("security.x")).error == errno.E2BIG
    assert client.call("SETXATTR", node, extended + name("security." + "x" * 250) + b"value").error == errno.ERANGE
    for size, reply in ((0, (0, struct.pack("<II", 5, 0))), (4, (errno.ERANGE, b"")), (2**32 - 1, (0, b"value"))):
        assert client.call("GETXATTR", node, struct.pack("<II", size, 0) + name("security.x")) == reply
    assert client.call("GETXATTR", node, struct.pack("<II", 100, 0) + name("security.x"), room=18).error == errno.ERANGE
    assert client.call("LISTXATTR", node, struct.pack("<II", 100, 0)).data == name("security.x")
    assert client.call("REMOVEXATTR", node, name("security.x")).error == 0
    assert client.call("GETXATTR", node, struct.pack("<II", 100, 0) + name("security.x")).error == errno.ENODATA
    client.start(flags=0)  # without SETXATTR_EXT
    node = client.lookup("file")
    assert client.call("SETXATTR", node, struct.pack("<II", 3, 0) + name("security.y") + b"old").error == 0
    assert client.call("GETXATTR", node, struct.pack("<II", 100, 0) + name("security.y")).data == b"old"
