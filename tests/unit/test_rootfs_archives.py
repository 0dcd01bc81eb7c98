"""``rootfs tar``: what honest archives become, what hostile and damaged ones do not. No privilege is needed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tars
from supplies import Run
from tars import DIRECTORY, FIFO, FILE, LINK, SYMLINK, entry, pax, snapshot, whole

from minicontainer import rootfs
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.rootfs import ArchiveError, Report, extract, removal

US = (os.geteuid(), os.getegid())
SECRET = "canary"


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """A directory to unpack in, beside things that must not change: ``canary``, and the directory ``outside``."""
    (tmp_path / SECRET).write_text(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text(SECRET)
    return tmp_path / "jail"


def unpack(jail: Path, *entries: bytes, **limits: Any) -> Report:
    """Unpacks, and whatever came of it, finds the outside as it was."""
    outside = {k: v for k, v in snapshot(jail.parent).items() if not k.startswith(("jail", "."))}
    try:
        return rootfs.tar(io.BytesIO(whole(*entries)), jail, **limits)
    finally:
        now = snapshot(jail.parent)
        assert {k: v for k, v in now.items() if not k.startswith(("jail", "."))} == outside
        assert sorted(os.listdir(jail.parent)) == [SECRET, *(["jail"] if jail.exists() else []), "outside"]


def refused(jail: Path, words: str, *entries: bytes, **limits: int) -> None:
    """Refused in one line that has these words; and nothing is there afterwards."""
    with pytest.raises(ArchiveError, match=words) as caught:
        unpack(jail, *entries, **limits)
    assert "\n" not in str(caught.value)
    assert not jail.exists()


# ---- honest archives


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "posix"])
def test_it_is_what_gnu_tar_packed(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "a/b/empty").mkdir(parents=True)
    (source / "a/b/data").write_bytes(os.urandom(100_000))
    (source / "a/hard").hardlink_to(source / "a/b/data")
    (source / "link").symlink_to("a/b/data")
    (source / "out").symlink_to("../../etc/passwd")
    (source / "read only").write_text("x")
    (source / "read only").chmod(0o444)
    (source / ("n" * 90)).write_text("long")
    (source / "new\nline").write_text("x")
    (source / os.fsdecode(b"latin-\xe9")).write_text("x")
    if form != "v7":
        os.mkfifo(source / "fifo")
    if form in ("gnu", "posix"):
        (source / ("d" * 200)).mkdir()
        (source / ("d" * 200) / ("f" * 200)).write_text("longer")
        (source / "long link").symlink_to("l" * 300)
        with open(source / "holes", "wb") as file:
            for megabyte in range(1, 40, 3):
                file.seek(megabyte << 20)
                file.write(b"data")
            file.truncate(45 << 20)
    (source / "a/b").chmod(0o555)
    moment = 1_600_000_000_123_456_789 if form == "posix" else 1_600_000_000_000_000_000
    for directory, _, names in os.walk(source, topdown=False):
        for path in (*(os.path.join(directory, name) for name in names), directory):
            os.utime(path, ns=(moment, moment), follow_symlinks=False)
    archive = tmp_path / "a.tar"
    sparse = ["-S"] if form in ("gnu", "posix") else []
    subprocess.run(["tar", f"--format={form}", *sparse, "-cf", archive, "-C", source, "."], check=True)

    report = rootfs.tar(archive, tmp_path / "out")

    assert report.notes == ()
    assert snapshot(tmp_path / "out") == snapshot(source)
    if form in ("gnu", "posix"):
        assert (tmp_path / "out/holes").stat().st_blocks * 512 < 4 << 20
    (source / "a/b").chmod(0o755)
    (tmp_path / "out/a/b").chmod(0o755)


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_each_kind_of_pax_sparse_file(tmp_path: Path, version: str) -> None:
    with open(tmp_path / "holes", "wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.seek(3 << 20)
        file.write(b"end")
    command = ["tar", "--format=posix", "-S", f"--sparse-version={version}", "-cf", "a.tar", "holes"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert rootfs.tar(tmp_path / "a.tar", tmp_path / "out").size == (3 << 20) + 3
    assert (tmp_path / "out/holes").read_bytes() == (tmp_path / "holes").read_bytes()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressions(jail: Path, compress: object) -> None:
    assert callable(compress)
    packed = compress(whole(entry(b"f", data=b"x" * 5000)))
    report = rootfs.tar(io.BytesIO(packed), jail)
    assert (report.members, report.size) == (1, 5000)
    assert (jail / "f").read_bytes() == b"x" * 5000


def test_zstd_is_read_or_refused_by_name(tmp_path: Path) -> None:
    packed = b"\x28\xb5\x2f\xfd" + bytes(50)
    expected = ArchiveError if sys.version_info >= (3, 14) else UnsupportedError
    with pytest.raises(expected, match=r"zstd|damaged|truncated"):
        rootfs.tar(io.BytesIO(packed), tmp_path / "out")


def test_an_empty_archive_makes_an_empty_root(jail: Path) -> None:
    assert unpack(jail) == Report(0, 0, ())
    assert stat.S_IMODE(jail.stat().st_mode) == 0o755
    assert list(jail.iterdir()) == []


def test_directories_that_no_member_describes(jail: Path) -> None:
    unpack(jail, entry(b"a/b/c", data=b"x"))
    assert [stat.S_IMODE((jail / d).stat().st_mode) for d in ("a", "a/b")] == [0o755, 0o755]


def test_a_directory_that_forbids_writing_is_filled_all_the_same(jail: Path) -> None:
    unpack(
        jail,
        entry(b"./", DIRECTORY, mode=0o500, owner=US, mtime=7),
        entry(b"a/", DIRECTORY, mode=0, owner=US, mtime=8),
        entry(b"a/b/", DIRECTORY, mode=0o111, owner=US, mtime=9),
        entry(b"a/b/f", data=b"x", mode=0, owner=US, mtime=10),
    )
    assert (stat.S_IMODE(jail.stat().st_mode), jail.stat().st_mtime) == (0o500, 7)
    jail.chmod(0o700)
    assert (stat.S_IMODE((jail / "a").stat().st_mode), (jail / "a").stat().st_mtime) == (0, 8)
    (jail / "a").chmod(0o700)
    assert (stat.S_IMODE((jail / "a/b").stat().st_mode), (jail / "a/b").stat().st_mtime) == (0o111, 9)
    (jail / "a/b").chmod(0o700)
    assert (stat.S_IMODE((jail / "a/b/f").stat().st_mode), (jail / "a/b/f").stat().st_mtime) == (0, 10)


def test_names_that_are_unusual_but_names(jail: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", b" ", b"-rf", b"...", b"a" * 255, b"\x1b[2J", "ü".encode()]
    unpack(jail, *(pax({b"path": name}) + entry(b"short", data=name) for name in names))
    assert {os.fsencode(p.name): p.read_bytes() for p in jail.iterdir()} == {name: name for name in names}


def test_times_to_the_nanosecond_and_before_1970(jail: Path) -> None:
    unpack(
        jail,
        pax({b"mtime": b"1600000000.123456789"}) + entry(b"a", owner=US),
        pax({b"mtime": b"-1.5"}) + entry(b"b", owner=US),
        entry(b"c", SYMLINK, link=b"x", owner=US, mtime=77),
    )
    assert (jail / "a").stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (jail / "b").stat().st_mtime_ns == -1_500_000_000
    assert (jail / "c").lstat().st_mtime == 77


def test_a_second_archive_is_laid_over_the_first(jail: Path) -> None:
    unpack(jail, entry(b"usr/lib/old", data=b"old"), entry(b"lib", SYMLINK, link=b"/usr/lib"), entry(b"x", data=b"1"))
    unpack(jail, entry(b"lib/new", data=b"new"), entry(b"x", data=b"22"))
    assert sorted(os.listdir(jail / "usr/lib")) == ["new", "old"]
    assert os.readlink(jail / "lib") == "/usr/lib"
    assert (jail / "x").read_bytes() == b"22"


# ---- members that would leave


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"..", b"/../x", b"a/..", b"./.././x"])
def test_upwards_is_refused(jail: Path, name: bytes) -> None:
    refused(jail, r"member .*: its name leads upwards", entry(b"ok"), entry(name))
    refused(jail, r"leads upwards", pax({b"path": name}) + entry(b"innocent"))
    refused(jail, r"leads upwards", entry(name, DIRECTORY))
    refused(jail, r"the name it links to.* leads upwards", entry(b"l", LINK, link=name))


def test_a_leading_slash_is_dropped(jail: Path, tmp_path: Path) -> None:
    unpack(
        jail, entry(b"/" + SECRET.encode(), data=b"in"), entry(b"//etc///shadow", data=b"in"), entry(b"/", DIRECTORY)
    )
    assert (jail / SECRET).read_bytes() == (jail / "etc/shadow").read_bytes() == b"in"


@pytest.mark.parametrize("way", ["/", "..", "../outside", "{top}/outside", "/../../../..", ".", "inner", "x/../../.."])
def test_a_link_is_followed_inside_only(jail: Path, way: str) -> None:
    target = way.format(top=jail.parent).encode()
    members = [entry(b"inner/", DIRECTORY), entry(b"x/", DIRECTORY), entry(b"l", SYMLINK, link=target)]
    try:
        unpack(jail, *members, entry(b"l/file", data=b"evil"), entry(b"l/d/", DIRECTORY), entry(b"l/d/f", data=b"evil"))
    except ArchiveError as e:
        assert "dangling symbolic link" in str(e)  # noqa: PT017 - either is right: it ends inside, or nowhere
        assert not jail.exists()
    else:
        assert os.readlink(jail / "l") == os.fsdecode(target)
        assert [p for p in jail.rglob("file") if p.read_bytes() == b"evil"]


def test_a_file_replaces_a_link_and_is_not_written_through_it(jail: Path) -> None:
    for target in (b"../canary", os.fsencode(jail.parent / SECRET), b"inside"):
        unpack(
            jail,
            entry(b"inside", data=b"before"),
            entry(b"l", SYMLINK, link=target),
            entry(b"l", data=b"after"),
        )
        assert not (jail / "l").is_symlink()
        assert (jail / "l").read_bytes() == b"after"
        assert (jail / "inside").read_bytes() == b"before"


def test_a_file_does_not_write_through_a_hard_link(jail: Path) -> None:
    jail.mkdir()
    (jail / "mine").hardlink_to(jail.parent / SECRET)  # as somebody may have prepared it
    with pytest.raises(AssertionError):  # the number of links outside: unpack() would say so
        assert (jail.parent / SECRET).stat().st_nlink == 1
    unpack(jail, entry(b"mine", data=b"evil", mode=0o777))
    assert (jail.parent / SECRET).read_text() == SECRET


def test_a_directory_over_a_link_replaces_it(jail: Path) -> None:
    unpack(jail, entry(b"l", SYMLINK, link=b"../outside"), entry(b"l/", DIRECTORY, mode=0o700), entry(b"l/f"))
    assert not (jail / "l").is_symlink()
    assert (jail / "l/f").exists()


def test_a_directory_is_replaced_with_all_it_holds(jail: Path) -> None:
    deep = [entry(b"d/" * n + b"f", data=b"x") for n in (1, 2, 40)]
    unpack(jail, *deep, entry(b"d", SYMLINK, link=b"../outside"), entry(b"e/", DIRECTORY, mode=0o700))
    assert os.readlink(jail / "d") == "../outside"
    assert stat.S_IMODE((jail / "e").stat().st_mode) == 0o700


def test_the_looks_of_a_replaced_directory_go_to_nobody_else(jail: Path) -> None:
    unpack(
        jail,
        entry(b"keep/", DIRECTORY, mode=0o711, owner=US, mtime=5),
        entry(b"d/", DIRECTORY, mode=0o700, owner=US, mtime=6),
        entry(b"d", SYMLINK, link=b"keep"),
    )
    assert stat.S_IMODE((jail / "keep").stat().st_mode) == 0o711
    assert (jail / "keep").stat().st_mtime == 5


def test_hard_links_stay_inside(jail: Path) -> None:
    out = os.fsencode(jail.parent / SECRET)
    refused(jail, "hard link to .*, which does not exist", entry(b"l", LINK, link=out))
    refused(jail, "which does not exist", entry(b"s", SYMLINK, link=b"../outside"), entry(b"l", LINK, link=b"s/file"))
    refused(jail, "which is a directory", entry(b"d/", DIRECTORY), entry(b"l", LINK, link=b"d"))
    refused(jail, "a hard link to the root", entry(b"l", LINK, link=b"/"))
    unpack(jail, entry(b"s", SYMLINK, link=b"../canary"), entry(b"l", LINK, link=b"s"), entry(b"l", LINK, link=b"l"))
    assert os.readlink(jail / "l") == "../canary"
    assert (jail / "l").lstat().st_ino == (jail / "s").lstat().st_ino


def test_loops_and_wrong_ways(jail: Path) -> None:
    refused(jail, "loop", entry(b"a", SYMLINK, link=b"b"), entry(b"b", SYMLINK, link=b"a"), entry(b"a/f"))
    refused(jail, "loop", entry(b"a", SYMLINK, link=b"a"), entry(b"a/f"))
    refused(jail, "is not a directory", entry(b"f"), entry(b"f/g"))
    refused(jail, "dangling symbolic link", entry(b"a", SYMLINK, link=b"gone/away"), entry(b"a/f"))
    refused(jail, "cannot be the root", entry(b".", SYMLINK, link=b"/"))
    refused(jail, "cannot be the root", entry(b"/", FILE, data=b"x"))
    refused(jail, "File name too long", entry(b"a/f"), pax({b"path": b"n" * 256}) + entry(b"x"))
    refused(jail, "File name too long", pax({b"path": b"d/" * 3000}) + entry(b"x", DIRECTORY))


def test_a_tree_deeper_than_any_path_is_refused_and_removed(jail: Path) -> None:
    step = b"d/" * 1000
    deeper = pax({b"path": b"s/" + step + b"end/" * 50}) + entry(b"x", DIRECTORY)
    link = pax({b"linkpath": step}) + entry(b"s", SYMLINK, link=b"x")
    refused(jail, "File name too long", pax({b"path": step}) + entry(b"x", DIRECTORY), link, deeper)


def test_removal_needs_no_path_and_few_descriptors(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("kept")
    fd = os.open(tmp_path, os.O_RDONLY)
    for level in range(3000):
        os.mkdir("d" * 50, dir_fd=fd)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.symlink(tmp_path / "outside", f"link{level}", dir_fd=fd)
    os.close(fd)
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        removal.remove(top, "d" * 50)
    finally:
        os.close(top)
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside/file").read_text() == "kept"


def test_removal_opens_what_is_closed_to_its_owner(tmp_path: Path) -> None:
    (tmp_path / "top/a/b/c").mkdir(parents=True)
    for name in ("top/a/b", "top/a", "top"):
        (tmp_path / name).chmod(0)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        removal.remove(fd, "top")
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == []


def test_names_with_nul_are_refused(jail: Path) -> None:
    refused(jail, "its name holds a NUL byte", pax({b"path": b"a\0b"}) + entry(b"x"))
    refused(jail, "NUL byte", pax({b"linkpath": b"a\0b"}) + entry(b"x", SYMLINK, link=b"y"))
    refused(jail, "NUL byte", pax({b"linkpath": b"a\0b"}) + entry(b"x", LINK, link=b"y"))


def test_messages_stay_on_one_line_whatever_the_name(jail: Path) -> None:
    refused(jail, r"new\\nline", pax({b"path": b"../new\nline\x1b[2J"}) + entry(b"x"))


# ---- numbers


def test_sizes_that_cannot_be(jail: Path) -> None:
    refused(jail, "its size is -|wrong|leads back|invalid offset", entry(b"x", size=-512))
    refused(jail, "its size is -|wrong|leads back|invalid offset", entry(b"ok", data=b"1"), entry(b"x", size=-5000))
    refused(jail, "its size is -|wrong|leads back|invalid offset", pax({b"size": b"-1024"}) + entry(b"x"))
    refused(jail, "more than the limit of 17179869184 bytes", entry(b"x", size=1 << 60))
    refused(jail, "more than the limit", pax({b"size": b"9" * 30}) + entry(b"x"))
    refused(jail, "truncated", entry(b"x", size=1 << 20))


def test_other_numbers_that_cannot_be(jail: Path) -> None:
    refused(jail, "user id -1 is not from 0", entry(b"x", owner=(-1, 0)))
    refused(jail, "group id 4294967295 is not from 0", entry(b"x", owner=(0, 2**32 - 1)))
    refused(jail, "major number", entry(b"x", tars.CHARACTER, device=(5000, 0)))
    for moment in (b"nan", b"inf", b"1e999999999", b"9" * 25):
        refused(jail, "no number of seconds", pax({b"mtime": moment}) + entry(b"x"))
    refused(jail, "no number of seconds", entry(b"x", mtime=2**70))


def test_limits(jail: Path) -> None:
    refused(
        jail,
        "more than the limit of 1000 bytes",
        entry(b"a", data=b"x" * 600),
        entry(b"b", data=b"x" * 600),
        limit=1000,
    )
    assert unpack(jail, entry(b"a", data=b"x" * 1000), limit=1000).size == 1000
    refused_there = [entry(b"%d" % i) for i in range(11)]
    with pytest.raises(ArchiveError, match="more than the limit of 10 entries"):
        unpack(jail.parent / "jail", *refused_there, members=10)


def test_directories_on_the_way_count(jail: Path) -> None:
    refused(jail, "more than the limit of 20 entries", entry(b"d/" * 40 + b"f"), members=20)


def test_sparse_bombs(jail: Path) -> None:
    size = tars.number(8 << 40, 12)
    old = entry(b"bomb", tars.GNU_SPARSE, sparse=bytes(96) + b"\0" + size)
    refused(jail, "more than the limit", old)
    new = pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"%d" % (8 << 60)})
    refused(jail, "more than the limit", new + entry(b"bomb", data=b"0\n".ljust(512, b"\0")))


@pytest.mark.parametrize(
    "listed",
    [
        b"1\n0\n2048\n",
        b"1\n-512\n4\n",
        b"2\n8\n8\n0\n8\n",
        b"1\n2040\n16\n",
        b"99999999\n",
        b"x\n",
        b"1\n4\n-4\n",
        b"-1\n",
    ],
)
def test_maps_of_sparse_files_that_cannot_be(jail: Path, listed: bytes) -> None:
    head = pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"2047"})
    try:
        unpack(jail, head + entry(b"s", data=listed.ljust(512, b"\0") + b"x" * 512))
    except ArchiveError as e:
        assert "\n" not in str(e)  # noqa: PT017
    else:
        assert (jail / "s").stat().st_size == 2047
        assert listed == b"-1\n"  # tarfile takes it for an empty map


def test_compression_bombs(jail: Path) -> None:
    class Zeros(io.RawIOBase):
        """A member that claims 1 TiB, and begins to keep its word."""

        sent = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1, /) -> bytes:
            start, self.sent = self.sent, self.sent + size
            return (entry(b"bomb", size=1 << 40)[start:] + bytes(size))[:size]

    source = Zeros()
    with pytest.raises(ArchiveError, match="more than the limit"):
        rootfs.tar(source, jail)
    assert source.sent < 4 << 20
    big = gzip.compress(entry(b"bomb", size=1 << 33) + bytes(64 << 20))
    with pytest.raises(ArchiveError, match="more than the limit"):
        rootfs.tar(io.BytesIO(big), jail, limit=1 << 20)
    assert not jail.exists()


@pytest.mark.parametrize("kind", [tars.PAX, tars.PAX_GLOBAL, tars.LONG_NAME, tars.LONG_LINK])
def test_headers_that_would_fill_memory(jail: Path, kind: bytes) -> None:
    refused(jail, "headers of one member exceed", entry(b"h", kind, size=1 << 40))
    refused(jail, "truncated|damaged|exceed", *([entry(b"h", kind, data=b"19 comment=abcdefgh\n")] * 3000))


def test_what_is_remembered_of_members_is_bounded(jail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small archives, compressed; names and attributes that were kept to the end would fill the memory."""
    long = b"v" * (1 << 20)
    refused(jail, "File name too long", pax({b"path": long}) + entry(b"x", b"Q"))
    refused(jail, "File name too long", pax({b"linkpath": long}) + entry(b"x", LINK, link=b"y"))
    refused(jail, "larger than the kernel supports", pax({b"SCHILY.xattr.user.a": long}) + entry(b"d/", DIRECTORY))
    refused(jail, "larger than the kernel supports", pax({b"SCHILY.xattr.user." + long: b"v"}) + entry(b"f"))
    refused(
        jail, "name of an extended attribute holds a NUL byte", pax({b"SCHILY.xattr.user.a\0b": b"v"}) + entry(b"f")
    )
    monkeypatch.setattr(extract, "MEMORY", 2 << 20)
    attribute = {b"SCHILY.xattr.user.a": b"v" * 1000}
    for members in (
        [entry(b"%d" % i + b"n" * 90, b"Q") for i in range(6000)],
        [entry(b"%d/" % i, DIRECTORY) for i in range(9000)],
        [pax(attribute) + entry(b"%d/" % i, DIRECTORY) for i in range(3000)],
        [pax({b"SCHILY.xattr.security." + b"k" * 200: b""}) + entry(b"%d" % i) for i in range(5000)],
    ):
        refused(jail, "exceed 2 MiB", *members)
        assert unpack(jail, *members[: len(members) // 4])
        shutil.rmtree(jail)


def test_headers_count(jail: Path) -> None:
    headers = [pax({b"comment": b"x" * (1 << 20)}) + entry(b"%d" % i) for i in range(6)]
    refused(jail, "its headers are more than the limit of 1000000 bytes .--max-size.", *headers, limit=1_000_000)
    assert unpack(jail, *headers, limit=4_000_000).members == 6


def test_headers_that_would_take_for_ever(jail: Path) -> None:
    refused(jail, "1000 digits", entry(b"h", tars.PAX, data=b"1" * 1_000_000))


# ---- damage


def test_every_truncation_is_an_error(jail: Path) -> None:
    archive = whole(entry(b"a", data=b"x" * 700), pax({b"path": b"b"}) + entry(b"x", data=b"y"))[:-512]
    for length in range(0, len(archive), 256):
        with pytest.raises(ArchiveError):
            rootfs.tar(io.BytesIO(archive[:length]), jail)
        assert not jail.exists()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_compression_is_an_error(jail: Path, compress: object) -> None:
    assert callable(compress)
    packed = compress(whole(entry(b"a", data=os.urandom(20_000))))
    for damaged in (packed[:-3], packed[: len(packed) // 2], packed[:9000] + b"????????" + packed[9008:], packed[:8]):
        with pytest.raises(ArchiveError, match=r"damaged|truncated|no tar archive"):
            rootfs.tar(io.BytesIO(damaged), jail)
        assert not jail.exists()


def test_a_wrong_header_is_not_taken_for_the_end(jail: Path) -> None:
    second = bytearray(entry(b"b", data=b"x"))
    second[0] ^= 1
    refused(jail, "damaged", entry(b"a", data=b"x"), bytes(second))


@pytest.mark.parametrize("junk", [b"", b"hello", b"\x1f\x8b", b"PK\x03\x04" * 500, b"\x7fELF" + bytes(5000)])
def test_what_is_no_archive(jail: Path, junk: bytes) -> None:
    with pytest.raises(ArchiveError):
        rootfs.tar(io.BytesIO(junk), jail)
    assert not jail.exists()


# ---- the directory


def test_failure_empties_what_was_empty_and_keeps_what_was_not(jail: Path) -> None:
    jail.mkdir()
    bad = [entry(b"a/b/c", data=b"x"), entry(b"..")]
    with pytest.raises(ArchiveError):
        unpack(jail, *bad)
    assert list(jail.iterdir()) == []
    (jail / "mine").write_text("kept")
    with pytest.raises(ArchiveError):
        unpack(jail, *bad)
    assert (jail / "mine").read_text() == "kept"


def test_directories_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for where, words in (("/", "root of this host"), (str(tmp_path / "file"), "not a directory"), ("", "no directory")):
        with pytest.raises(SpecError, match=words):
            rootfs.tar(io.BytesIO(whole()), where)
    with pytest.raises(Error, match="only DIR itself is created"):
        rootfs.tar(io.BytesIO(whole()), tmp_path / "no/dir")
    with pytest.raises(ArchiveError, match=r"^archive .*nothing.tar: No such file"):
        rootfs.tar(tmp_path / "nothing.tar", tmp_path / "out")
    with pytest.raises(ArchiveError, match="Is a directory"):
        rootfs.tar(tmp_path, tmp_path / "out")
    assert os.listdir(tmp_path) == ["file"]


def test_no_descriptor_is_left_open(jail: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    unpack(
        jail, entry(b"a/b/c"), entry(b"l", SYMLINK, link=b"a"), entry(b"l/h", LINK, link=b"l/b/c"), entry(b"f", FIFO)
    )
    for bad in (entry(b"a/../x"), entry(b"a/b/c/d"), entry(b"x", LINK, link=b"l/nope"), entry(b"a", size=9999)):
        with pytest.raises(ArchiveError):
            unpack(jail, bad)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_kinds_that_are_unknown_are_told(jail: Path) -> None:
    report = unpack(jail, entry(b"label", b"V"), entry(b"odd", b"Z", data=b"x" * 600), entry(b"f", data=b"y"))
    assert [str(note) for note in report.notes] == [
        "member label: skipped: its type 'V' is unknown",
        "member odd: skipped: its type 'Z' is unknown",
    ]
    assert os.listdir(jail) == ["f"]


# ---- the command


def test_the_command(tmp_path: Path, minicontainer_cli: Run) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(whole(entry(b"f", data=b"hello", mode=0o640, owner=US), entry(b"v", b"V")))
    done = minicontainer_cli("rootfs", "tar", archive, tmp_path / "one")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "minicontainer: member v: skipped: its type 'V' is unknown\n"
    with open(archive, "rb") as stdin:
        assert minicontainer_cli("rootfs", "tar", "-", tmp_path / "two", stdin=stdin).returncode == 0
    assert snapshot(tmp_path / "one", times=False) == snapshot(tmp_path / "two", times=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-size", "4", "{tar}", "{out}"], "limit of 4 bytes (--max-size)"),
        (["--max-members", "1", "{tar}", "{out}"], "limit of 1 entries (--max-members)"),
        (["--max-size", "lots", "{tar}", "{out}"], "max-size lots: is no size"),
        (["{tar}.gone", "{out}"], "No such file or directory"),
        (["-", "{out}"], "no tar archive"),
        (["{tar}"], "DIR"),
    ],
)
def test_the_commands_errors(tmp_path: Path, minicontainer_cli: Run, arguments: list[str], words: str) -> None:
    (tmp_path / "a.tar").write_bytes(whole(entry(b"f", data=b"hello"), entry(b"g")))
    done = minicontainer_cli(
        "rootfs", "tar", *(a.format(tar=tmp_path / "a.tar", out=tmp_path / "o") for a in arguments)
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minicontainer: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["a.tar"]


def test_ended_by_a_signal_the_command_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minicontainer", "rootfs", "tar", "-", str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(entry(b"f", data=b"x") + entry(b"g", size=1 << 30) + bytes(1 << 20))
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".*.part/g")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
        process.stdin.close()
    assert os.listdir(tmp_path) == []
