"""Random and mutated requests to the FUSE server: it stays up, answers each within its room, leaves nothing open, and
touches nothing beside its directory."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuse import ATTRIBUTES, ENTRY, INIT, IO, OPCODES, REPLY, ROOT_ID, Client, compile_program, request
from tars import snapshot

pytestmark = pytest.mark.needs("userns")

GOOD = ["file", "link", "out", "fifo", "socket", "directory", "a", "b", "c"]
NAMES = [*GOOD, *GOOD, "..", ".", "", "/", "/etc", "a/b", "../beside", "x" * 300]
KEYS = ["user.a", "trusted.b", "security.c", "security.c", "system.posix_acl_access", "", "nothing", "x" * 300]
EDGES = [0, 1, 2, 7, 40, 127, 4095, 4096, *(1 << n for n in (16, 31, 63)), *((1 << n) - 1 for n in (31, 32, 63, 64))]
OF_DIRECTORIES = "LOOKUP MKDIR MKNOD SYMLINK LINK UNLINK RMDIR RENAME RENAME2 CREATE TMPFILE OPENDIR".split()
OF_ENTRIES = "READDIR READDIRPLUS RELEASEDIR FSYNCDIR".split()
FILE_OPERATIONS = [*OF_ENTRIES, *"READ WRITE RELEASE FLUSH FSYNC".split()]
BY_NUMBER = {number: name for name, number in OPCODES.items()}
SELDOM = {"INIT", "DESTROY", "FORGET", "BATCH_FORGET", "RELEASE", "RELEASEDIR"}
SELDOM |= set("GETLK SETLK SETLKW ACCESS BMAP IOCTL POLL NOTIFY_REPLY SETUPMAPPING REMOVEMAPPING".split())  # ENOSYS


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("fs"))


class Requests:
    """Random requests, most of them about nodes and handles that replies have named."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.known: dict[str, list[int]] = {}
        self.forget()

    def forget(self) -> None:
        """After the end of a session."""
        self.known = {"directory": [ROOT_ID], "file": [ROOT_ID], "OPEN": [1], "OPENDIR": [1]}

    def next(self) -> bytes:
        rng = self.rng
        opcode = rng.choice(list(OPCODES))
        if opcode in SELDOM and rng.random() < (0.99 if opcode in ("INIT", "DESTROY") else 0.9):
            opcode = rng.choice(["LOOKUP", "OPEN", "OPENDIR", "CREATE"])
        node = self.one_of("directory" if opcode in OF_DIRECTORIES else "file")
        data = request(opcode, node, self.arguments(opcode), uid=rng.choice([0] * 9 + [1000]))
        return self.mutated(data) if rng.random() < 0.3 else data

    def learn(self, opcode: str, data: bytes) -> None:
        """Of a reply without error."""
        if opcode in ("INIT", "DESTROY"):
            self.forget()
        if opcode in ("LOOKUP", "MKDIR", "MKNOD", "SYMLINK", "LINK", "CREATE", "TMPFILE"):
            mode = ATTRIBUTES.unpack_from(data, ENTRY.size)[9]
            self.known["directory" if stat.S_ISDIR(mode) else "file"] += struct.unpack_from("<Q", data)
        if opcode in ("CREATE", "TMPFILE", "OPEN", "OPENDIR"):
            self.known["OPENDIR" if opcode == "OPENDIR" else "OPEN"] += struct.unpack_from("<Q", data[-16:])

    def one_of(self, kind: str) -> int:
        first, *others = self.known[kind]
        found: list[int] = [first, *others[-8:]] if self.rng.random() < 0.95 else [*EDGES, *range(100)]
        return self.rng.choice(found)

    def number(self) -> int:
        found: list[int] = [*EDGES, *range(20), self.rng.getrandbits(64)]
        return self.rng.choice(found)

    def words(self, *lists: list[str]) -> bytes:
        return b"".join(os.fsencode(self.rng.choice(names)) + b"\0" for names in lists)

    def size(self) -> int:
        return self.rng.choice([0, 1, 100, 4096, 10_000, 2**32 - 1])

    def flags(self) -> int:
        how = self.rng.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
        return how | self.rng.choice([0, 0, 0, os.O_APPEND, os.O_TRUNC, os.O_EXCL, os.O_NOATIME, 1 << 31])

    def arguments(self, opcode: str) -> bytes:
        """Sound ones, for most opcodes."""
        rng, numbers, names = self.rng, b"", self.words(NAMES, NAMES)
        if opcode in OF_DIRECTORIES:
            numbers = self.numbers_of_directory(opcode)
            return numbers if opcode == "OPENDIR" else numbers + names
        if opcode in FILE_OPERATIONS:
            data = rng.randbytes(rng.choice([0, 10, 5000])) if opcode == "WRITE" else b""
            size = len(data) if opcode == "WRITE" and rng.random() < 0.9 else self.size()
            handle = self.one_of("OPENDIR" if opcode in OF_ENTRIES else "OPEN")
            offset = rng.choice([0, 0, 0, 100, 10_000, self.number()])
            return IO.pack(handle, offset, size, rng.randrange(8), 0, self.flags()) + data
        if opcode.endswith("XATTR"):
            value = rng.randbytes(rng.choice([0, 5, 3000])) if opcode == "SETXATTR" else b""
            sizes = struct.pack("<II", self.size(), 0)
            setting = struct.pack("<IIII", len(value), rng.randrange(4), rng.randrange(2), 0)
            head = {"SETXATTR": setting, "REMOVEXATTR": b""}.get(opcode, sizes)
            return head + (b"" if opcode == "LISTXATTR" else self.words(KEYS)) + value
        return self.other_arguments(opcode)

    def other_arguments(self, opcode: str) -> bytes:
        rng, one, other = self.rng, self.one_of("OPEN"), self.one_of("OPEN")
        start, end = rng.choice([0, 5, self.number()]), rng.choice([0, 9999, self.number()])
        if opcode == "OPEN":
            return struct.pack("<II", self.flags(), rng.randrange(2))
        if opcode == "LSEEK":
            return struct.pack("<QQII", one, start, rng.randrange(6), 0)
        if opcode == "FALLOCATE":
            return struct.pack("<QQQII", one, start, end, rng.choice([0, 1, 3, 16, 99]), 0)
        if opcode == "COPY_FILE_RANGE":
            return struct.pack("<QQQQQQQ", one, start, 0, other, end, self.number(), rng.choice([0, 0, 0, 1]))
        if opcode == "SETATTR":
            return struct.pack("<II", rng.getrandbits(12), 0) + self.many(10)
        return self.many(11)

    def many(self, count: int) -> bytes:
        return b"".join(struct.pack("<Q", self.rng.choice([self.one_of("OPEN"), self.number()])) for _ in range(count))

    def numbers_of_directory(self, opcode: str) -> bytes:
        """What stands before the names."""
        rng = self.rng
        kinds = [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, 0]
        mode = rng.choice([0, 0o644, 0o7777])
        arguments: dict[str, tuple[str, tuple[Any, ...]]] = {
            "MKDIR": ("<II", (mode, rng.getrandbits(9))),
            "RENAME": ("<Q", (self.one_of("directory"),)),
            "LINK": ("<Q", (self.one_of("file"),)),
            "RENAME2": ("<QII", (self.one_of("directory"), rng.randrange(9), 0)),
            "MKNOD": ("<IIII", (rng.choice(kinds) | mode, rng.choice([0, 1]), rng.getrandbits(9), 0)),
            "CREATE": ("<IIII", (self.flags(), mode, rng.getrandbits(9), rng.randrange(2))),
            "OPENDIR": ("<II", (self.flags(), 0)),
        }
        arguments["TMPFILE"] = arguments["CREATE"]
        form, values = arguments.get(opcode, ("<", ()))
        return struct.pack(form, *values)

    def mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            size = self.rng.choice([1, 2, 4, 8])
            at = self.rng.randrange(len(changed)) // size * size
            changed[at : at + size] = (self.number() % 2 ** (8 * size)).to_bytes(size, "little")
        cut = self.rng.randrange(len(changed) + 1) if self.rng.random() < 0.1 else len(changed)
        return bytes(changed[:cut]) + bytes(self.rng.choice([0, 0, 0, 100]))


def populate(client: Client) -> None:
    (client.root / "directory/a").mkdir(parents=True)
    (client.root / "file").write_bytes(b"content" * 1000)
    (client.root / "link").symlink_to("file")
    (client.root / "out").symlink_to("../beside")
    (client.root / "a").symlink_to("/")
    os.mkfifo(client.root / "fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(client.root / "socket"))
    (client.beside / "directory").mkdir()
    for name in ("file", "directory/a", "b"):
        (client.beside / name).write_bytes(b"beside")


@pytest.mark.parametrize("seed", range(3))
def test_random_requests(program: Path, tmp_path: Path, seed: int) -> None:
    errors: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    requests = Requests(seed)
    with Client(program, tmp_path) as client:
        client.start()
        populate(client)
        before = snapshot(client.beside)
        for _ in range(10_000):
            data = requests.next()
            reply = client.send(data, requests.rng.choice([0, 15, 16, 100, 5000, *[1 << 16] * 15]))
            if reply:
                length, error, _ = REPLY.unpack_from(reply)
                assert length == len(reply)
                assert -512 < error <= 0
                assert error == 0 or length == REPLY.size
                errors[errno.errorcode.get(-error, "")] += 1
                if error == 0:
                    opcode = BY_NUMBER[struct.unpack_from("<I", data, 4)[0]]
                    succeeded[opcode] += 1
                    requests.learn(opcode, reply[REPLY.size :])
                if error == -errno.EIO:
                    client.start()
        assert snapshot(client.beside) == before
    assert errors[""] > 2000
    assert {"EINVAL", "ENOENT", "ESTALE", "EBADF", "ENXIO", "ENOSYS", "EPERM"} <= set(errors)


def in_threads(program: Path, place: Path, requests: list[bytes]) -> None:
    """Six threads take the requests, several times."""
    data = b"".join(struct.pack("=II", len(data), 1 << 16) + data for data in requests)
    before = "mkdir -p root/directory/a beside/directory; echo > root/file; ln -s file root/link; mkfifo root/fifo"
    done = subprocess.run([program, place, before, "6"], input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode(errors="replace")[-3000:]


START = request("INIT", 0, INIT.pack(7, 38, 0, 0xFFFFFFFF, 0))


def test_random_requests_in_many_threads(program: Path, tmp_path: Path) -> None:
    requests, recorded = Requests(1), [START]
    with Client(program, tmp_path) as client:
        client.start()
        populate(client)
        while len(recorded) < 5000:
            recorded.append(requests.next())
            reply = client.send(recorded[-1])
            if reply and REPLY.unpack_from(reply)[1] == 0:
                requests.learn(BY_NUMBER[struct.unpack_from("<I", recorded[-1], 4)[0]], reply[REPLY.size :])
    in_threads(program, tmp_path, recorded)


def test_what_is_forgotten_and_closed_while_in_use(program: Path, tmp_path: Path) -> None:
    """Ids count up: those about the next one are used, forgotten and closed by all threads at once."""
    rng, recorded = random.Random(1), [START]
    for next_id in range(2, 1200):
        recorded.append(request("LOOKUP", ROOT_ID, rng.choice([b"file\0", b"directory\0"])))
        about = [max(2, next_id + offset) for offset in range(-2, 3)]
        some = [request("FORGET", about[0], struct.pack("<Q", 99)), request("OPENDIR", ROOT_ID, bytes(8))]
        some += [request("STATFS", node) for node in about] + [request("OPEN", node, bytes(8)) for node in about]
        some += [request("READDIRPLUS", ROOT_ID, IO.pack(handle, 0, 4096, 0, 0, 0)) for handle in about]
        some += [request("RELEASEDIR", ROOT_ID, IO.pack(about[0], 0, 0, 0, 0, 0))]
        some += [request("RELEASE", ROOT_ID, IO.pack(about[0], 0, 0, 0, 0, 0))]
        recorded += rng.sample(some, len(some))
    in_threads(program, tmp_path, recorded[:20_000])
