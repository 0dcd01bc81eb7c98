"""Any sequence of hostile members, and any damage: nothing outside changes; what is wrong is an ArchiveError."""

from __future__ import annotations

import io
import itertools
import os
import random
import tempfile
from pathlib import Path

import tars
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import entry, pax, snapshot, whole

from minicontainer import rootfs
from minicontainer.rootfs import ArchiveError

Said = tuple[bytes, bytes, bytes, int]  # a member: name, kind, link, mode

INSIDE = st.lists(st.sampled_from([b"a", b"b", b"file"]), min_size=1, max_size=2).map(b"/".join)
OUTSIDE = st.sampled_from(
    [b"..", b"../canary", b"../canary/file", b"../canary/dir", b"/TOP/canary", b"/TOP/canary/file", b"/", b".",
     b"a/../../canary", b"../" * 12 + b"TOP/canary", b"/proc/self/cwd", b"/proc/self/root/TOP/canary"]
)  # fmt: skip
LINKS = st.one_of(INSIDE, OUTSIDE, OUTSIDE)
KINDS = st.sampled_from(
    [*[tars.SYMLINK] * 5, *[tars.FILE] * 5, *[tars.DIRECTORY] * 3, tars.LINK, tars.FIFO, tars.CHARACTER, b"V"]
)
MODES = st.sampled_from([0o644, 0, 0o7777])
# most bad names end the extraction, so they are rare; links may say anything
NAMES = st.one_of(*[INSIDE] * 24, st.tuples(INSIDE, OUTSIDE).map(b"/".join), OUTSIDE)
SINGLE = st.tuples(NAMES, KINDS, LINKS, MODES).map(lambda member: [member])


@st.composite
def attacks(draw: st.DrawFn) -> list[Said]:
    """A link, and something that has its name or lies behind it."""
    name, link, mode = draw(INSIDE), draw(LINKS), draw(MODES)
    behind = draw(st.sampled_from([b"", b"", b"/file", b"/dir", b"/dir/file", b"/canary/file"]))
    return [(name, tars.SYMLINK, link, 0o777), (name + behind, draw(KINDS), draw(LINKS), mode)]


MEMBERS = st.lists(st.one_of(SINGLE, attacks(), attacks()), min_size=1, max_size=6).map(
    lambda some: list(itertools.chain.from_iterable(some))
)


def packed(members: list[Said], top: bytes) -> bytes:
    """Names in extended headers, so that ones of any length and kind arrive as they are."""
    made = []
    for name, kind, link, mode in members:
        names = {b"path": name.replace(b"/TOP", top), b"linkpath": link.replace(b"/TOP", top)}
        data = b"evil" if kind == tars.FILE else b""
        owner = (os.geteuid(), os.getegid())
        made.append(pax(names) + entry(b"x", kind, data, link=b"y", mode=mode, owner=owner, device=(1, 3), mtime=1))
    return whole(*made)


def canary(top: Path) -> dict[str, tuple[object, ...]]:
    """What there is beside the jail."""
    assert set(os.listdir(top)) <= {"canary", "jail"}
    return snapshot(top / "canary")


def unpack(archive: bytes, jail: Path) -> bool:
    """Whether it could be unpacked."""
    try:
        rootfs.tar(io.BytesIO(archive), jail, limit=1 << 20, members=200)
    except ArchiveError:
        return False
    return True


@settings(max_examples=400)
@given(MEMBERS, MEMBERS)
def test_nothing_outside_changes(first: list[Said], second: list[Said]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        (top / "canary/dir").mkdir(parents=True)
        (top / "canary/file").write_text("canary")
        before = canary(top)
        whole_one = unpack(packed(first, os.fsencode(top)), top / "jail")
        assert (top / "jail").exists() == whole_one
        assert canary(top) == before
        if whole_one:
            unpack(packed(second, os.fsencode(top)), top / "jail")
            assert canary(top) == before


OLD_MAP = tars.number(100, 12) + tars.number(8, 12) + bytes(73) + tars.number(500, 12)
SPARSE = {
    b"GNU.sparse.major": b"1",
    b"GNU.sparse.minor": b"0",
    b"GNU.sparse.realsize": b"2048",
    b"GNU.sparse.name": b"s",
}
GOOD = whole(
    entry(b"d/", tars.DIRECTORY, mode=0o755),
    entry(b"d/f", data=b"x" * 700),
    pax({b"path": b"long", b"mtime": b"1.5", b"SCHILY.xattr.user.x": b"y", b"uid": b"7"}) + entry(b"x", data=b"y"),
    entry(b"l", tars.SYMLINK, link=b"d/f"),
    entry(b"h", tars.LINK, link=b"d/f"),
    entry(b"././@LongLink", tars.LONG_NAME, data=b"n" * 150 + b"\0") + entry(b"n", data=b"z"),
    pax(SPARSE)
    + entry(b"GNUSparseFile.0/s", data=b"1\n1000\n512\n".ljust(512, b"\0") + b"s" * 512),
    entry(b"old", tars.GNU_SPARSE, data=b"o" * 8, sparse=OLD_MAP),
    entry(b"p", tars.FIFO),
)  # fmt: skip


def test_the_archive_that_is_damaged_below_is_good(tmp_path: Path) -> None:
    assert unpack(GOOD, tmp_path / "jail")
    assert (tmp_path / "jail/old").read_bytes() == bytes(100) + b"o" * 8 + bytes(392)
    assert (tmp_path / "jail/s").read_bytes() == bytes(1000) + b"s" * 512 + bytes(536)


def fix_checksums(data: bytearray) -> None:
    """So that damage to a header gets past the parser's first check."""
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


@settings(max_examples=400)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.booleans())
def test_damage_is_an_archive_error(seed: int, times: int, checksums: bool, cut: bool) -> None:
    chance = random.Random(seed)
    data = bytearray(GOOD)
    for _ in range(times):
        where = chance.randrange(len(data))
        data[where] = chance.choice([0, 0x20, 0x2F, 0x30, 0x37, 0x39, 0x80, 0xFF, chance.randrange(256)])
    if checksums:
        fix_checksums(data)
    if cut:
        del data[chance.randrange(len(data)) :]
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        (top / "canary").mkdir()
        before = canary(top)
        unpack(bytes(data), top / "jail")
        assert canary(top) == before
