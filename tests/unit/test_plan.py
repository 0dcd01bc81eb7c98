"""The plan's language: what steps encode to, how they print, what C accepts and refuses. No privilege, no container."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sanitizers import SANITIZED

from minicontainer import plan as p
from minicontainer.errors import Error, SpecError
from minicontainer.native import ffi, lib
from minicontainer.plan import Builder, Const, Plan, Slot, Step, Struct
from minicontainer.plan.encoding import HEADER, STEP

ROOT = Path(__file__).resolve().parents[2]
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
words = st.text(st.one_of(letters, st.just("\udcff")), max_size=40)  # what os.fsdecode makes of a byte
names = st.sampled_from(["a", "b", "c", "d"])
calls = st.sampled_from(["mount", "prctl", "openat", "close", "write", "symlinkat", "getpid", "umask"])
immediates = st.integers(-(2**63), 2**64 - 1)
constants = st.sampled_from(["MS_BIND|MS_REC", "AT_FDCWD", "O_RDONLY|O_CLOEXEC", "0", "0o644"]).map(Const)
structures = st.binary(min_size=1, max_size=64).map(lambda data: Struct(data, "{...}"))
arguments = st.one_of(
    st.none(), immediates, constants, words, st.binary(max_size=32), structures, st.just(Slot("stdin"))
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Any step that the functions of ``plan`` could have made."""
    kind = draw(st.sampled_from(["call", "call", "call", "execve", "execveat", "seccomp", "other"]))
    argv, envp = draw(st.lists(words, max_size=6)), draw(st.lists(words, max_size=6))
    if kind == "execve":
        return p.execve(draw(st.lists(words, min_size=1, max_size=4)), argv, envp)
    if kind == "execveat":
        return p.execveat(draw(st.one_of(st.just(Slot("stdin")), st.integers(0, 9))), argv, envp)
    if kind == "seccomp":
        return p.seccomp(draw(st.binary(min_size=1, max_size=20)) * 8)
    if kind == "other":
        fd = Slot("stdin")
        plain = [p.chdir("/"), p.reset_signals(5), p.capbset_drop_all_but(3), p.fork_sibling()]
        return draw(st.sampled_from([*plain, p.idmap(fd, fd), p.wait_for_parent(fd), p.send_fd(fd, fd)]))
    tolerate = draw(st.lists(st.integers(1, 133), max_size=2))
    into = draw(st.one_of(st.none(), names))
    given = draw(st.lists(arguments, max_size=6))
    return p.call(draw(calls), *given, into=into, tolerate=tolerate, skip=draw(st.integers(0, 3)))


plans = st.lists(steps(), max_size=12).map(lambda some: Plan(some, ["stdin"]))


# ---- the encoding


def decode(plan: Plan) -> list[tuple[Step, list[object]]]:
    """Each step with its arguments as read back from the buffer."""
    data, found = plan.buffer, []
    slots = {index: name for name, index in plan.slots.items()}
    for i, step in enumerate(plan.steps):
        fields = STEP.unpack_from(data, HEADER.size + i * STEP.size)
        values: list[object] = []
        for number, word in enumerate(fields[7:]):
            kind = fields[1] >> (2 * number) & 3
            if kind == lib.MC_SLOT:
                values.append(Slot(slots[word]))
            elif kind == lib.MC_BYTES:
                values.append(data[word:])
            else:
                values.append(word)
        assert (fields[0], fields[3], fields[6]) == (step.op, step.skip, step.nr)
        assert slots.get(fields[2]) == step.into
        assert tuple(e for e in fields[4:6] if e) == step.tolerate
        found.append((step, values))
    return found


def strings(data: object, count: object) -> list[str]:
    assert isinstance(data, bytes)
    assert isinstance(count, int)
    return [s.decode("utf-8", "surrogateescape") for s in data.split(b"\0")[:count]]


def as_read(argument: object, word: object) -> bool:
    """Whether ``word`` is what the kernel should be given for ``argument``."""
    if argument is None:
        return word == 0
    if isinstance(argument, Slot):
        return word == argument
    if isinstance(argument, (str, bytes)):
        data = argument.encode("utf-8", "surrogateescape") if isinstance(argument, str) else argument
        return isinstance(word, bytes) and word.startswith(data + b"\0")
    assert isinstance(argument, int)
    return word == argument % 2**64


@given(plans)
def test_any_plan_is_accepted_by_c_and_holds_what_its_steps_say(plan: Plan) -> None:
    for step, values in decode(plan):
        if step.op in (lib.MC_EXEC, lib.MC_EXEC_FD):
            target, argv, envp = step.args
            assert isinstance(argv, tuple)
            assert isinstance(envp, tuple)
            assert strings(values[1], values[2]) == list(argv)
            assert strings(values[3], values[4]) == list(envp)
            if step.op == lib.MC_EXEC:
                assert strings(values[0], step.nr) == list(target)  # type: ignore[call-overload]
        else:
            padded = [*step.args, *[None] * (lib.MC_ARGS - len(step.args))]
            assert all(as_read(a, w) for a, w in zip(padded, values, strict=True)), step.describe()


@given(plans)
def test_any_step_prints_on_one_line(plan: Plan) -> None:
    for step in plan.steps:
        line = step.describe()
        assert line.isprintable()
        assert len(line.splitlines()) == 1


def test_equal_bytes_are_laid_once_and_aligned() -> None:
    plan = Plan([p.mount("tmpfs", "/a", "tmpfs"), p.chdir("/a")])
    data = plan.buffer
    assert data.count(b"tmpfs\0") == data.count(b"/a\0") == 1
    assert data.index(b"tmpfs\0") % 8 == 0
    assert len(data) == struct.unpack_from("=I", data, 4)[0]


def test_the_same_plan_gives_the_same_buffer() -> None:
    made = [Plan([p.sethostname("box"), p.execve(["/bin/true"], ["true"], ["A=1"])]) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].buffer == made[1].buffer


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([p.call("close", Slot("tree"))], "neither an input nor made by an earlier step"),
        ([p.call("close", Slot("t")), p.open_tree("/", "OPEN_TREE_CLONE", "t")], "nor made by an earlier step"),
        ([p.call("prctl", 1, 2, 3, 4, 5, 6, 7)], "more or larger parts"),
        ([p.call("close", 1, tolerate=(1, 2, 3))], "more or larger parts"),
        ([p.call("close", 1, skip=70000)], "more or larger parts"),
        ([p.call("close", 2**64)], "no system call takes 18446744073709551616"),
        ([p.call("close", [1])], r"no system call takes \[1\]"),
        ([p.call("close", 1.5)], "no system call takes 1.5"),
        ([p.chdir("/a\0b")], "holds a NUL byte"),
        ([p.execve(["/bin/x"], ["x", "a\0b"], [])], "holds a NUL byte"),
        ([p.chdir("/\ud800")], "holds half a character"),
    ],
)
def test_a_step_that_cannot_be_is_refused_by_name(steps: list[Step], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        _ = Plan(steps).buffer
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SpecError, match="constant MS_FANCY: is not among those"):
        Const("MS_BIND|MS_FANCY")
    with pytest.raises(Error, match="SYS_frobnicate"):
        p.call("frobnicate")


# ---- what C refuses


def checked(data: bytes) -> int:
    return int(lib.mc_plan_check(data, len(data)))


def some_plan() -> Plan:
    """A step of each kind."""
    fd = Slot("fd")
    return Plan(
        [
            p.open_tree("/usr", "OPEN_TREE_CLONE", "fd"),
            p.call("mount", "a", "b", "c", p.const("MS_BIND"), None, tolerate=(2, 13), skip=1),
            p.chdir("/"),
            p.reset_signals(),
            p.capbset_drop_all_but(0xFF),
            p.seccomp(b"\x06\0\0\0\0\0\xff\x7f" * 5),
            p.idmap(fd, Slot("userns")),
            p.wait_for_parent(fd),
            p.send_fd(fd, fd),
            p.fork_sibling(),
            p.execve(["/bin/a", "/usr/bin/a"], ["a", "b", "c"], ["K=V", "L="]),
            p.execveat(fd, ["x"], []),
        ],
        ["userns"],
    )


def field(data: bytes, step: int, offset: int, layout: str, value: int) -> bytes:
    """The buffer with one field of a step (or, with step -1, of the header) changed."""
    at = offset if step < 0 else HEADER.size + step * STEP.size + offset
    return data[:at] + struct.pack(layout, value) + data[at + struct.calcsize(layout) :]


ARGUMENT = 16  # offset of arg[0] in a step, asserted below
LAST = 2**64 - 8


def test_offsets_used_here() -> None:
    assert ffi.offsetof("struct mc_step", "arg") == ARGUMENT
    assert [ffi.offsetof("struct mc_step", name) for name in ("op", "kinds", "out", "nr")] == [0, 2, 4, 12]
    assert [ffi.offsetof("struct mc_plan", name) for name in ("size", "nsteps", "nslots", "nstrings")] == [4, 8, 12, 16]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param((-1, 0, "=I", 0), id="magic"),
        pytest.param((-1, 4, "=I", 1), id="size"),
        pytest.param((-1, 8, "=I", 2**31), id="more steps than there is room for"),
        pytest.param((-1, 12, "=I", 1), id="a step writes a slot that is not there"),
        pytest.param((-1, 12, "=I", 2**32 - 1), id="more slots than there can be"),
        pytest.param((-1, 16, "=I", 3), id="no room for the strings of exec"),
        pytest.param((-1, 16, "=I", 2**32 - 1), id="more strings than there can be"),
        pytest.param((0, 0, "=H", lib.MC_OPS), id="unknown operation"),
        pytest.param((0, 2, "=H", 3), id="unknown kind of argument"),
        pytest.param((0, 4, "=h", -2), id="negative slot"),
        pytest.param((0, 4, "=h", 2), id="slot beyond the last"),
        pytest.param((0, ARGUMENT + 8, "=Q", 2**32), id="bytes beyond the end"),
        pytest.param((5, ARGUMENT + 8, "=Q", 4097), id="a filter that is too long"),
        pytest.param((5, ARGUMENT + 8, "=Q", 4000), id="a filter beyond the end"),
        pytest.param((6, ARGUMENT + 8, "=Q", 2), id="a user namespace that is no slot"),
        pytest.param((10, ARGUMENT + 16, "=Q", 2**63), id="argc beyond all bounds"),
        pytest.param((10, ARGUMENT + 32, "=Q", LAST), id="envc that wraps around"),
        pytest.param((10, 12, "=I", 9999), id="more paths than there are strings"),
        pytest.param((10, 2, "=H", 1 << 6 | 1), id="argv that is no bytes"),
        pytest.param((10, 2, "=H", 1 << 2 | 1), id="envp that is no bytes"),
        pytest.param((10, 2, "=H", 1 << 6 | 1 << 2), id="paths that are no bytes"),
        pytest.param((5, 2, "=H", 0), id="a filter that is no bytes"),
        pytest.param((0, 0, "=H", lib.MC_CHDIR), id="a directory that is no bytes"),
    ],
)
def test_c_refuses(change: tuple[int, int, str, int]) -> None:
    data = some_plan().buffer
    assert checked(data) == 0
    assert checked(field(data, *change)) < 0


def test_c_refuses_what_is_cut_off() -> None:
    data = some_plan().buffer
    assert all(checked(data[:n]) < 0 for n in range(len(data)))
    assert checked(field(data[:-1] + b"x", -1, 4, "=I", len(data))) < 0


# ---- fuzzing under the sanitizers


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/unit/fuzz_plan.c, compiled."""
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_plan"
    source = ROOT / "tests/unit/fuzz_plan.c"
    subprocess.run([*SANITIZED, f"-I{ROOT / 'csrc'}", "-o", program, source], check=True)
    return program


def fuzz(program: Path, buffers: list[bytes]) -> int:
    """How many are accepted; fails where check or walk touched what is not theirs."""
    data = b"".join(struct.pack("=I", len(b)) + b for b in buffers)
    done = subprocess.run([program], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return int(done.stdout)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes, words or lengths changed; biased to the header, the steps and to numbers at the edge."""
    changed = bytearray(data)
    edge = [0, 1, 2, 0x7F, 0xFF, len(data) - 1, len(data), 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, LAST, 2**64 - 1]
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(changed))
        size = rng.choice([1, 1, 2, 4, 8])
        at -= at % size
        value = rng.choice([rng.getrandbits(8 * size), rng.choice(edge), rng.randrange(len(data) + 9)])
        changed[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    if rng.random() < 0.1:  # another length, which the header knows
        changed = changed[: rng.randrange(HEADER.size, len(changed))]
        changed[4:8] = len(changed).to_bytes(4, "little")
    return bytes(changed)


def test_mutated_plans_are_refused_or_harmless(fuzzer: Path) -> None:
    rng = random.Random(7)
    originals = [some_plan().buffer, Plan([p.execve(["/a"], ["a"] * 30, ["E="] * 30)]).buffer, Plan([]).buffer]
    buffers = [mutated(rng.choice(originals), rng) for _ in range(20_000)]
    accepted = fuzz(fuzzer, buffers)
    assert 1000 < accepted < 19_000  # the fuzzing reaches both the walk and the refusals


@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_plan_and_any_mutation_of_it_is_walked_within_bounds(fuzzer: Path, data: st.DataObject) -> None:
    plan = data.draw(plans)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    assert fuzz(fuzzer, [plan.buffer] * 2) == 2
    fuzz(fuzzer, [mutated(plan.buffer, rng) for _ in range(100)])


# ---- in words


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (p.mount(None, "/", None, "MS_REC|MS_PRIVATE"), 'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)'),
        (p.pivot_root(".", "."), 'pivot_root(".", ".")'),
        (p.umount2(".", "MNT_DETACH"), 'umount2(".", MNT_DETACH)'),
        (p.open_tree("/usr", "OPEN_TREE_CLONE", "usr"), 'usr = open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE)'),
        (p.move_mount(Slot("usr"), "/usr"), 'move_mount(<usr>, "", AT_FDCWD, "/usr", MOVE_MOUNT_F_EMPTY_PATH)'),
        (
            p.mount_setattr(Slot("usr"), "", "MOUNT_ATTR_RDONLY", clear="MOUNT_ATTR_NOEXEC", recursive=True),
            'mount_setattr(<usr>, "", AT_EMPTY_PATH|AT_RECURSIVE,'
            " {attr_set=MOUNT_ATTR_RDONLY, attr_clr=MOUNT_ATTR_NOEXEC}, 32)",
        ),
        (p.fsopen("tmpfs", "fs"), 'fs = fsopen("tmpfs", FSOPEN_CLOEXEC)'),
        (p.fsconfig(Slot("fs"), "size", "64k"), 'fsconfig(<fs>, FSCONFIG_SET_STRING, "size", "64k", 0)'),
        (p.fsconfig(Slot("fs"), "ro"), 'fsconfig(<fs>, FSCONFIG_SET_FLAG, "ro", NULL, 0)'),
        (p.fsconfig(Slot("fs"), None), "fsconfig(<fs>, FSCONFIG_CMD_CREATE, NULL, NULL, 0)"),
        (p.mkdirat(p.FDCWD, "/dev", 0o755), 'mkdirat(AT_FDCWD, "/dev", 0o755)'),
        (p.mknodat(p.FDCWD, "/dev/null", "S_IFCHR", 0o666, 259), 'mknodat(AT_FDCWD, "/dev/null", S_IFCHR|0o666, 259)'),
        (p.write(Slot("fd"), "1 2\n"), 'write(<fd>, "1 2\\n", 4)'),
        (p.sethostname("box"), 'sethostname("box", 3)'),
        (p.prctl("PR_SET_NO_NEW_PRIVS", 1), "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)"),
        (p.setgroups([5, 6]), "setgroups(2, [5, 6])"),
        (p.setresuid(1000), "setresuid(1000, 1000, 1000)"),
        (
            p.capset(0xA80425FB, 0xA80425FB, 0),
            "capset({_LINUX_CAPABILITY_VERSION_3, 0}, {effective=0xa80425fb, permitted=0xa80425fb, inheritable=0x0})",
        ),
        (p.prlimit64(7, 1024, -1), "prlimit64(0, 7, {1024, RLIM_INFINITY}, NULL)"),
        (p.prlimit64_raise(7, 2048), "prlimit64_raise(0, 7, 2048)"),
        (p.close_range(3), "close_range(3, 4294967295, 0)"),
        (p.setns(Slot("ns"), "CLONE_NEWPID"), "setns(<ns>, CLONE_NEWPID)"),
        (
            p.openat2("/x", "O_PATH", "RESOLVE_IN_ROOT", "x"),
            'x = openat2(AT_FDCWD, "/x", {flags=O_PATH, mode=0o0, resolve=RESOLVE_IN_ROOT}, 24)',
        ),
        (p.chdir("/a b"), 'chdir("/a b")'),
        (p.chdir('/"\n\\é'), 'chdir("/\\"\\n\\\\\\xe9")'),
        (p.fork_sibling(), "clone3(CLONE_PARENT, -1)"),
        (p.fork_child(), "clone3(0, -1)"),
        (p.execve(["/bin/sh"], ["sh", "-c", "x"], ["A=1"]), 'execve(["/bin/sh"], ["sh", "-c", "x"], ["A=1"])'),
        (p.execve(["x"], ["a"] * 10, []), 'execve(["x"], [' + '"a", ' * 8 + "... 2 more], [])"),
    ],
)
def test_a_step_prints_as_its_man_page_writes_it(step: Step, line: str) -> None:
    assert step.describe() == line


def test_a_plan_prints_by_phase() -> None:
    b = Builder()
    b.phase = "names"
    b.add(p.sethostname("box"))
    b.phase = "end"
    b.optional(p.open_tree("/x", "0", "x"), p.call("close", Slot("x")), missing=(2,))
    plan = b.plan()
    assert plan.describe().splitlines() == [
        "# names",
        '  sethostname("box", 3)',
        "# end",
        '  x = open_tree(AT_FDCWD, "/x", 0)',
        "  close(<x>)",
    ]
    assert (plan.steps[1].tolerate, plan.steps[1].skip) == ((2,), 1)
