"""LZ4 blocks: what they unpack to, and that no block whatever reads or writes beyond its buffers."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from sanitizers import SANITIZED

from minicontainer.kvm.boot.unpack import LZ4_LEGACY, lz4
from minicontainer.native import ffi, lib

ROOT = Path(__file__).parents[2]


def block(*sequences: tuple[bytes, int, int]) -> bytes:
    """(literals, offset, length of match) each; the last has literals alone (lz4_Block_format.md)."""
    raw = b""
    for literals, offset, match in sequences:
        n, m = len(literals), match - 4
        raw += bytes([min(n, 15) << 4 | (min(m, 15) if match else 0)]) + extra(n) + literals
        raw += struct.pack("<H", offset) + extra(m) if match else b""
    return raw


def extra(length: int) -> bytes:
    if length < 15:
        return b""
    return b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


def unpack(raw: bytes, size: int) -> bytes | None:
    out = ffi.new("char[]", size or 1)
    count = lib.mc_lz4_block(raw, len(raw), out, size)
    return None if count < 0 else bytes(ffi.buffer(out, count))


LONG = bytes(range(256)) * 3
BLOCKS = [
    (block((b"abc", 0, 0)), b"abc"),
    (block((b"abc", 3, 6), (b"!", 0, 0)), b"abcabcabc!"),
    (block((b"x", 1, 300), (b"", 0, 0)), b"x" * 301),
    (block((LONG, 768, 700), (b"end", 0, 0)), LONG + LONG[:700] + b"end"),
]


@pytest.mark.parametrize(("raw", "content"), BLOCKS)
def test_what_a_block_holds(raw: bytes, content: bytes) -> None:
    assert unpack(raw, len(content)) == content
    assert unpack(raw, len(content) + 100) == content
    assert unpack(raw, len(content) - 1) is None


@pytest.mark.parametrize(
    "raw", [b"\x10", b"\xf0", b"\xf0\xff", b"\x10a\x01", b"\x10a\x00\x00", b"\x10a\x02\x00", b"\x1fa\x01\x00"]
)
def test_what_is_no_block(raw: bytes) -> None:
    assert unpack(raw, 1000) is None


def test_a_legacy_frame() -> None:
    frame = LZ4_LEGACY + b"".join(struct.pack("<I", len(raw)) + raw for raw, _ in BLOCKS[:1])
    found = lz4(frame + struct.pack("<I", 3), 3)
    assert found is not None
    assert found[:] == b"abc"
    found.close()
    assert lz4(frame + struct.pack("<I", 4), 4) is None
    assert lz4(frame[:-1] + struct.pack("<I", 3), 3) is None


def test_no_block_leaves_its_buffers(tmp_path: Path) -> None:
    program = tmp_path / "fuzz_lz4"
    source = ROOT / "tests/unit/fuzz_lz4.c"
    subprocess.run([*SANITIZED, f"-I{ROOT / 'csrc'}", "-o", program, source], check=True)
    rng = random.Random(4)
    data, count = b"", 4000
    for _ in range(count):
        raw = bytearray(rng.choice(BLOCKS)[0][:200])
        for _ in range(rng.randrange(4)):
            raw[rng.randrange(len(raw))] = rng.choice([0, 1, 15, 0xF0, 0xFF, rng.randrange(256)])
        raw = raw[: rng.randrange(len(raw) + 1)]
        data += struct.pack("<II", rng.choice([0, 1, 8, 100, 2000]), len(raw)) + raw
    done = subprocess.run([program], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    results = [int(line) for line in done.stdout.split()]
    assert len(results) == count
    assert min(results) == -1 < max(results)
