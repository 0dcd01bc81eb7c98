"""The payload of a compiled container: what C accepts of it, and what it makes of it."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sanitizers import SANITIZED

from minicontainer import plan as p
from minicontainer.compiled.payload import TRAILER, WORD, Payload, checksum, padded, places
from minicontainer.compiled.resources import _as_list
from minicontainer.container.cgroup.limits import cpu_numbers
from minicontainer.native import ffi, lib
from minicontainer.plan import Plan, Slot

ROOT = Path(__file__).resolve().parents[2]
STREAMS = ("stdin", "stdout", "stderr")


def child_plan(*, staged: bool = False) -> Plan:
    execute = p.execveat(4, ["x"], ["A=1"]) if staged else p.execve(["/bin/x"], ["x"], ["A=1"])
    steps = [p.sethostname("\x02its-own-id\x03"), *(p.dup3(Slot(name), i) for i, name in enumerate(STREAMS)), execute]
    return Plan(steps, [*STREAMS, "ready", "go", "answer"])


def put_machine(payload: Payload, target: Any) -> None:
    """A guest whose plan is that of the child, which has slots enough."""
    plan, header = child_plan(), ffi.new("struct mc_guest_start *")
    header.plan = ffi.sizeof("struct mc_guest_start")
    start = bytes(ffi.buffer(header)) + plan.buffer
    row = payload.string("kernel"), payload.string("/k"), 1, 2, 3, 4, 5
    target.data, target.program = payload.span(bytes(64)), payload.span(b"monitor")
    target.files = payload.array("struct mc_machine_file", [row, row])
    for part in (target.plain, target.terminal):
        part.start, part.ids = payload.span(start), payload.array("uint32_t", places(start, b"\x02its-own-id\x03"))
        part.texts = payload.list(["phase", "call", "", ""] * len(plan.steps))[0]


def some_payload(*, staged: bool = False, machine: bool = False) -> bytes:
    payload, plan, parent = Payload(), child_plan(staged=staged), Plan([p.call("umask", 0)], ["pid", "answer"])
    c = payload.struct
    for variant in (c.plain, c.terminal):
        variant.plan, variant.flags = payload.span(plan.buffer), 0x20000
        variant.ids = payload.array("uint32_t", places(plan.buffer, b"\x02its-own-id\x03"))
        variant.texts = payload.list(["phase", "call", "", ""] * len(plan.steps))[0]
        variant.input, variant.output, variant.error = 0, 1, 2
        variant.ready, variant.go, variant.answer = 3, 4, 5
        variant.socket = variant.report = variant.init = variant.filter = -1
        variant.shared = payload.array("int32_t", [1, 2])
        if not machine:  # which joins none
            joined = 0, payload.string("net"), payload.string("/x")
            variant.namespaces = payload.array("struct mc_namespace", [joined])
    c.parent.plan, c.parent.texts = payload.span(parent.buffer), payload.list(["", "", "", ""])[0]
    c.parent.ninputs, c.parent.uid, c.parent.gid, c.parent.count, c.parent.helper_output = 2, -1, -1, -1, -1
    c.args, c.kept = payload.list(["x", "one", "two"]), 2
    c.env = payload.list(["=PATH=/a:/b", "cA", "tTERM=xterm", "iHOSTNAME="])
    if staged:
        c.stage, c.init = payload.list(["minicontainer-exec", "", "0"]), payload.span(b"program")
    if machine:
        put_machine(payload, c.machine)
    c.release, c.hardware, c.state, c.base = map(payload.string, ("6", "x86", "/run/x", "/sys/fs/cgroup"))
    c.checks = payload.array("struct mc_check", [(1, payload.string("w"), payload.string("/p"), 0, 1, 2, 3, 4, 5)])
    c.lines = payload.array("struct mc_line", [(payload.string("f"), payload.string("d"), 0, 0, 1, 0)])
    c.devices, c.excluded = payload.span(bytes(16)), payload.array("uint32_t", [1, 2])
    whole = payload.file(b"")
    return whole[: -TRAILER.size]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/unit/fuzz_payload.c, compiled."""
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_payload"
    source = ROOT / "tests/unit/fuzz_payload.c"
    subprocess.run([*SANITIZED, f"-I{ROOT / 'csrc'}", "-o", program, source], check=True)
    return program


def fuzz(program: Path, payloads: list[bytes]) -> tuple[int, int]:
    """How many are accepted, and how many plans were made of them."""
    data = b"".join(struct.pack("=I", len(b)) + b for b in payloads)
    done = subprocess.run([program], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    accepted, made = map(int, done.stdout.split())
    return accepted, made


def test_a_sound_payload(fuzzer: Path) -> None:
    assert fuzz(fuzzer, [some_payload(), some_payload(staged=True), some_payload(machine=True)]) == (3, 12)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some words changed, most of them in the head; or cut off."""
    changed = bytearray(data)
    head = ffi.sizeof("struct mc_compiled")
    edge = [0, 1, 2, 0x7F, 0xFF, head, len(data) - 1, len(data), 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(head if rng.random() < 0.7 else len(changed))
        size = rng.choice([1, 2, 4, 4, 4, 8])
        at -= at % size
        value = rng.choice([rng.getrandbits(8 * size), rng.choice(edge), rng.randrange(len(data) + 9)])
        changed[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(changed[: 8 * rng.randrange(len(data) // 8)] if rng.random() < 0.05 else changed)


def test_mutated_payloads_are_refused_or_harmless(fuzzer: Path) -> None:
    rng = random.Random(11)
    originals = [some_payload(), some_payload(staged=True), some_payload(machine=True)]
    accepted, made = fuzz(fuzzer, [mutated(rng.choice(originals), rng) for _ in range(20_000)])
    assert 1000 < accepted < 19_000
    assert made > 1000


# ---- the checksum


@given(st.binary(min_size=8, max_size=400).map(padded), st.integers(0), st.integers(0, 7))
def test_a_changed_byte_changes_the_checksum(data: bytes, at: int, bit: int) -> None:
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    assert checksum(data) != checksum(bytes(changed))
    assert checksum(data) != checksum(data + bytes(8))


def test_a_file_ends_with_its_trailer() -> None:
    payload = Payload()
    payload.struct.uid = 7
    whole = payload.file(b"program")
    size, version, magic, total = TRAILER.unpack(whole[-TRAILER.size :])
    assert (version, magic) == (lib.MC_COMPILED_VERSION, lib.MC_COMPILED_MAGIC)
    assert total == checksum(whole[: -WORD.size])
    assert len(whole) == len(padded(b"program")) + size + TRAILER.size
    assert whole[-TRAILER.size - 1] == 0


def test_equal_strings_are_stored_once() -> None:
    payload = Payload()
    assert payload.string("x") == payload.string("x") != payload.string("y")


def test_places() -> None:
    assert list(places(b"abcabab", b"ab")) == [0, 3, 5]
    assert list(places(b"", b"ab")) == []


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpus_as_the_kernel_shows_them(numbers: set[int]) -> None:
    text = _as_list(numbers)
    assert cpu_numbers(text) == numbers
    assert len(text.split(",")) == sum(number - 1 not in numbers for number in numbers)
