"""Profiles in JSON: what they mean for one container, and that what is not understood is refused."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from profiles import small

from minicontainer.container import seccomp
from minicontainer.container.seccomp import profile, reader
from minicontainer.container.seccomp.profile import NATIVE
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux import bpf, libseccomp
from minicontainer.native import lib
from minicontainer.spec import CAPABILITIES, Spec

ALLOW, KILL, ERRNO = lib.SECCOMP_RET_ALLOW, lib.SECCOMP_RET_KILL_PROCESS, lib.SECCOMP_RET_ERRNO
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
ADMIN = 1 << CAPABILITIES.index("SYS_ADMIN")
MASK = 2**32 - 1
I386 = 0x40000003  # AUDIT_ARCH_I386, linux/audit.h: EM_386|__AUDIT_ARCH_LE
RELEASE = "6.1.0-13-amd64"


def made(given: dict[str, Any], capabilities: int = 0, release: str = RELEASE) -> bytes:
    return profile.program(reader.read(json.dumps(given).encode(), "a.json"), capabilities, release)


def answer(program: bytes, name: str, *arguments: int) -> int:
    """What it answers to a call of this machine."""
    return bpf.evaluate(program, libseccomp.number(name), lib.AUDIT_ARCH_NATIVE, arguments)


# ---- what profiles mean


def test_a_profile_in_dockers_shape() -> None:
    plain, admin = made(small()), made(small(), ADMIN)
    for program in (plain, admin):
        assert [answer(program, n) for n in ("read", "exit_group", "reboot")] == [ALLOW, ALLOW, KILL]
        assert answer(program, "open") == ENOSYS
        assert [answer(program, "personality", persona) for persona in (8, 0)] == [ALLOW, ENOSYS]
        assert answer(program, "arch_prctl") == (ALLOW if NATIVE.go == "amd64" else ENOSYS)
        assert bpf.evaluate(program, 4000, lib.AUDIT_ARCH_NATIVE) == ENOSYS
    assert [answer(program, "mount") for program in (plain, admin)] == [EPERM, ALLOW]
    assert [answer(program, "clone", lib.CLONE_NEWUSER) for program in (plain, admin)] == [ENOSYS, ALLOW]
    assert answer(plain, "clone", signal.SIGCHLD) == ALLOW


@pytest.mark.parametrize(
    ("release", "has"), [("4.7.9", ENOSYS), ("4.8.0-rc1", ALLOW), ("10.0", ALLOW), ("4.19", ALLOW)]
)
def test_kernels(release: str, has: int) -> None:
    assert answer(made(small(), release=release), "ptrace") == has
    excluded = small() | {
        "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}}]
    }
    assert answer(made(excluded, release=release), "ptrace") == (ENOSYS if has == ALLOW else ALLOW)


@pytest.mark.skipif(NATIVE.go != "amd64", reason="of x86_64")
def test_architectures() -> None:
    """Those that archMap or architectures name are kept by the same rules; a call by any other table kills."""
    write, x32 = 4, lib.X32_SYSCALL_BIT | 1  # of i386, of x32
    for wanted, i386 in (
        (small(), ALLOW),
        (small() | {"archMap": None, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}, ALLOW),
        (small() | {"archMap": None}, KILL),
    ):
        program = made(wanted)
        assert bpf.evaluate(program, write, I386) == i386
        assert bpf.evaluate(program, x32, lib.AUDIT_ARCH_NATIVE) == (ALLOW if wanted["archMap"] else KILL)
        assert bpf.evaluate(program, 4, 0xC00000B7) == KILL  # AUDIT_ARCH_AARCH64


def entry(*conditions: tuple[int, int, str], action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    args = [{"index": index, "value": value, "op": f"SCMP_CMP_{op}"} for index, value, op in conditions]
    return {"names": ["socket"], "action": action, "args": args, **more}


def of(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(entries)}


@pytest.mark.parametrize(
    ("operator", "holds"),
    [("NE", (9, 11)), ("LT", (9,)), ("LE", (9, 10)), ("EQ", (10,)), ("GE", (10, 11)), ("GT", (11,))],
)
def test_operators(operator: str, holds: Sequence[int]) -> None:
    program = made(of(entry((0, 10, operator))))
    assert [a for a in (9, 10, 11) if answer(program, "socket", a) == ALLOW] == list(holds)


def test_conditions_on_several_arguments_hold_together_and_on_one_are_alternatives() -> None:
    both = made(of(entry((0, 1, "EQ"), (1, 2, "EQ"))))
    assert [answer(both, "socket", *a) for a in ((1, 2), (1, 0), (0, 2))] == [ALLOW, EPERM, EPERM]
    either = made(of(entry((0, 1, "EQ"), (0, 2, "EQ"))))
    assert [answer(either, "socket", a) for a in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


def test_the_first_of_two_plain_answers_counts() -> None:
    first = made(of(entry(), entry(action="SCMP_ACT_KILL_PROCESS")))
    assert answer(first, "socket") == ALLOW


@pytest.mark.parametrize(
    ("default", "newer"),
    [
        ({"defaultAction": "SCMP_ACT_ERRNO"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_KILL_PROCESS"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13}, ERRNO | 13),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EACCES"}, ERRNO | 13),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, ALLOW),
        ({"defaultAction": "SCMP_ACT_LOG"}, lib.SECCOMP_RET_LOG),
    ],
    ids=str,
)
def test_calls_newer_than_all_that_are_named(default: dict[str, Any], newer: int) -> None:
    action = "SCMP_ACT_ERRNO" if default["defaultAction"] in reader.OPEN else "SCMP_ACT_ALLOW"
    program = made(default | {"syscalls": [{"names": ["read", "rseq", "no_such_call"], "action": action}]})
    assert [answer(program, name) for name in ("clone3", "close_range")] == [newer, newer]
    assert answer(program, "read") == answer(program, "rseq") != newer
    assert bpf.evaluate(program, 5000, lib.AUDIT_ARCH_NATIVE) == newer
    assert answer(program, "write") == answer(made(default | {"syscalls": []}), "write")  # older: as the list says


def test_a_profile_that_forbids_what_a_program_begins_by(tmp_path: Path) -> None:
    path = tmp_path / "profile"

    def refused(names: Sequence[str], **fields: Any) -> str:
        entry = {"names": names, "action": "SCMP_ACT_ERRNO"}
        path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}))
        try:
            seccomp.program(Spec(rootfs="/", seccomp=str(path), **fields))
        except SpecError as e:
            return str(e)
        return ""

    assert f"seccomp {path}: forbids execve: without it no program can be started" in refused(["execve", "execveat"])
    assert "forbids execveat: " in refused(["execve", "execveat"], executable="/bin/true")
    assert refused(["execveat", "wait4", "kill", "clock_gettime", "write"]) == ""
    for name in seccomp.CALLS_OF_INIT:
        assert f"forbids {name}: process 1 of --init needs it" in refused([name], init=True)


def test_what_libseccomp_would_not_keep_is_refused() -> None:
    """A condition beside a plain rule for the same call: libseccomp forgets the condition."""
    with pytest.raises(SpecError, match=r"seccomp a\.json: args of socket would not be kept"):
        made(of(entry((0, 1, "EQ")), entry(action="SCMP_ACT_KILL_PROCESS")))


# ---- our own


def default(capabilities: int) -> bytes:
    with open(seccomp.DEFAULT, "rb") as f:
        return profile.program(reader.read(f.read()), capabilities, RELEASE)


NEVER = "io_uring_setup io_uring_enter keyctl add_key request_key userfaultfd kexec_load swapon move_pages".split()
CAPABLE = {
    "SYS_ADMIN": "mount umount2 pivot_root move_mount fsopen open_tree mount_setattr setns sethostname".split(),
    "SYS_PTRACE": "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd".split(),
    "SYS_MODULE": "init_module finit_module delete_module".split(),
    "SYS_TIME": "clock_settime settimeofday".split(),
    "SYS_BOOT": ["reboot"],
    "BPF": ["bpf"],
    "PERFMON": ["perf_event_open"],
    "DAC_READ_SEARCH": ["open_by_handle_at"],
    "SYS_CHROOT": ["chroot"],
    "SYSLOG": ["syslog"],
}


@pytest.mark.parametrize("capability", CAPABLE)
def test_the_default_allows_with_a_capability_what_it_refuses_without(capability: str) -> None:
    without, alone = (
        default(~(1 << CAPABILITIES.index(capability)) & ~ADMIN),
        default(1 << CAPABILITIES.index(capability)),
    )
    for name in CAPABLE[capability]:
        assert (answer(without, name), answer(alone, name)) == (EPERM, ALLOW), name


@pytest.mark.parametrize("capabilities", [0, Spec(rootfs="/").capabilities(), -1])
def test_the_default_never_allows(capabilities: int) -> None:
    program = default(capabilities)
    assert {name: answer(program, name) for name in NEVER} == dict.fromkeys(NEVER, EPERM)
    for number in (600, 1000, 2**20):
        assert bpf.evaluate(program, number, lib.AUDIT_ARCH_NATIVE) == ENOSYS
    assert bpf.evaluate(program, 1, I386) == KILL
    assert not seccomp.is_strict(program)


@pytest.mark.parametrize("high", [0, 2**32, 2**63])
def test_no_bit_that_the_kernel_ignores_hides_an_argument(high: int) -> None:
    program = default(0)
    for name, place, values, expected in (
        ("socket", 0, (1, 2, 10, 16), ALLOW),
        ("socket", 0, (0, 15, 17, 29, 38, 40, MASK), EPERM),
        ("ioctl", 1, (0x5412, 0x541C), EPERM),  # TIOCSTI, TIOCLINUX
        ("ioctl", 1, (0x5401, 0x5413), ALLOW),
        ("personality", 0, (0, 8, 0x20000, MASK), ALLOW),
        ("personality", 0, (0x40000, 0x400000, 1), EPERM),
        ("clone", 0, (lib.CLONE_NEWUSER, lib.CLONE_NEWNS | 17, lib.CLONE_NEWPID), EPERM),
        ("clone", 0, (17, lib.CLONE_VM | 0x100), ALLOW),
        ("unshare", 0, (lib.CLONE_NEWUSER, lib.CLONE_NEWTIME, lib.CLONE_NEWNET), EPERM),
        ("unshare", 0, (0x400, 0x200), ALLOW),
    ):
        for value in values:
            arguments = [0] * place + [high | value]
            assert answer(program, name, *arguments) == expected, (name, hex(value))


@pytest.mark.skipif(NATIVE.go != "amd64", reason="of x86_64")
def test_a_copy_that_adds_i386_keeps_it_by_the_same_rules() -> None:
    """As the profile's own comment says."""
    given = json.loads(Path(seccomp.DEFAULT).read_text(encoding="utf-8")) | {"architectures": ["SCMP_ARCH_X86"]}
    program = made(given)
    calls = {"write": 4, "mount": 21, "socketcall": 102, "ptrace": 26, "clock_settime64": 404}  # unistd_32.h
    answers = {name: bpf.evaluate(program, number, I386, (1,)) for name, number in calls.items()}
    assert answers == {"write": ALLOW} | dict.fromkeys(list(calls)[1:], EPERM)
    assert [bpf.evaluate(program, 359, I386, (family,)) for family in (1, 40)] == [ALLOW, EPERM]


# ---- what is refused


def changed(*path: str | int, to: object) -> dict[str, Any]:
    """The small profile with one member changed."""
    given: Any = small()
    place = given
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return given  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "the profile"),
        (changed("defaultAction", to="SCMP_ACT_MAYBE"), "defaultAction .*SCMP_ACT_MAYBE.* is no action"),
        (changed("defaultAction", to=None), "has no defaultAction"),
        (changed("defaultErrnoRet", to=4096), "defaultErrnoRet 4096 must be a whole number from 0 to 4095"),
        (changed("defaultErrnoRet", to=True), "defaultErrnoRet true"),
        (changed("listenerPath", to="/run/x"), "listenerPath.* is unknown, or cannot be kept"),
        (changed("flags", to=["SECCOMP_FILTER_FLAG_LOG"]), "flags: .*FLAG_LOG.* cannot be kept"),
        (changed("architectures", to=["SCMP_ARCH_X86"]), "archMap .* cannot be beside architectures"),
        (changed("archMap", 0, "architecture", to="X86_64"), r"archMap\[0\]\.architecture .* is no architecture"),
        (changed("syscalls", 1, "action", to="SCMP_ACT_NOTIFY"), r"syscalls\[1\]\.action .*nobody would listen"),
        (changed("syscalls", 1, "errnoRet", to=1), r"syscalls\[1\]\.action .*SCMP_ACT_ALLOW.* has no errnoRet"),
        (changed("syscalls", 5, "errno", to="EIO"), r"syscalls\[5\]\.errno .*EIO.* is no errno, or not that"),
        (changed("syscalls", 0, "names", to=[]), r"syscalls\[0\]\.names .* is no name"),
        (changed("syscalls", 0, "names", to=["read;"]), r"syscalls\[0\]\.names .*read;.* is no name"),
        (changed("syscalls", 0, "name", to="read"), r"syscalls\[0\] .*must have names"),
        (changed("syscalls", 2, "args", 0, "index", to=6), r"args\[0\]\.index 6 must be a whole number from 0 to 5"),
        (changed("syscalls", 2, "args", 0, "value", to=-1), r"args\[0\]\.value -1"),
        (changed("syscalls", 2, "args", 0, "value", to=8.0), r"args\[0\]\.value 8\.0"),
        (changed("syscalls", 2, "args", 0, "op", to="EQ"), r"args\[0\]\.op .*EQ.* is no operator"),
        (changed("syscalls", 3, "args", 0, "valueTwo", to=1), r"args\[0\] .*can never hold"),
        (changed("syscalls", 4, "includes", "caps", to=["SYS_ADMIN"]), r"includes\.caps .* is no capability"),
        (changed("syscalls", 4, "includes", "uid", to=0), r"includes: the key .*uid.* is unknown"),
        (changed("syscalls", 6, "includes", "arches", to=["x86_64"]), r"includes\.arches .* is no architecture"),
        (changed("syscalls", 1, "includes", "minKernel", to="4.8.1"), r"includes\.minKernel .* is no release"),
    ],
)
def test_a_mistake_is_named_by_its_place(given: object, says: str) -> None:
    with pytest.raises(SpecError, match=rf"^seccomp a\.json: .*{says}") as caught:
        reader.read(json.dumps(given).encode(), "a.json")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "is no JSON"),
        (b'{"defaultAction": "\xff"}', "is no JSON"),
        (
            b'{"defaultAction": "SCMP_ACT_LOG", "defaultAction": "SCMP_ACT_ALLOW"}',
            "defaultAction.* is there more than once",
        ),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_no_profile_at_all(data: bytes, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        reader.read(data, "a.json")


def places(given: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every member."""
    keys: Any = given if isinstance(given, dict) else range(len(given)) if isinstance(given, list) else ()
    return [way for key in keys for way in ((*path, key), *places(given[key], (*path, key)))]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_every_mutation_is_read_or_refused(data: st.DataObject) -> None:
    """A member replaced, taken away or swapped for another: a program comes of it, or a SpecError of one line."""
    given = small()
    for _ in range(data.draw(st.integers(1, 2))):
        way = data.draw(st.sampled_from(places(given)))
        holder: Any = given
        for key in way[:-1]:
            holder = holder[key]
        other: Any = given
        for key in data.draw(st.sampled_from(places(given))):
            other = other[key]
        kind = data.draw(st.sampled_from(["replace", "swap", "remove"]))
        if kind == "remove":
            del holder[way[-1]]
        else:
            holder[way[-1]] = data.draw(ANY) if kind == "replace" else copy.deepcopy(other)
    said, program = "", b""
    try:
        program = made(given)
    except SpecError as e:
        said = str(e)
    assert len(said.splitlines()) + bool(program) == 1


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
@example(random.Random(0), 1)
def test_every_damaged_text_is_read_or_refused(dice: random.Random, times: int) -> None:
    text = bytearray(json.dumps(small()).encode())
    for _ in range(times):
        at = dice.randrange(len(text))
        text[at : at + dice.randrange(4)] = dice.randbytes(dice.randrange(3))
    said = "read"
    try:
        reader.read(bytes(text), "a.json")
    except SpecError as e:
        said = str(e)
    assert len(said.splitlines()) == 1


# ---- of a spec


def test_what_a_spec_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled, text = tmp_path / "filter", tmp_path / "profile"
    compiled.write_bytes(b"\x06\0\0\0\0\0\xff\x7f")
    text.write_text(" " + json.dumps(small()), encoding="utf-8")  # whatever it is called
    ours = seccomp.program(Spec(rootfs="/"))
    assert answer(ours, "mount") == EPERM
    assert seccomp.program(Spec(rootfs="/", cap_add=("SYS_ADMIN",))) != ours
    assert seccomp.program(Spec(rootfs="/", seccomp="unconfined")) == b""
    assert seccomp.program(Spec(rootfs="/", privileged=True)) == b""
    assert seccomp.program(Spec(rootfs="/", privileged=True, seccomp=str(compiled))) == compiled.read_bytes()
    assert answer(seccomp.program(Spec(rootfs="/", seccomp=str(text))), "read") == ALLOW


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with both remedies; a compiled filter and none at all need no library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(libseccomp, "SONAME", "libseccomp-is-not-here.so.2")
    libseccomp._library.cache_clear()
    seccomp._default.cache_clear()
    seccomp._compiled.cache_clear()
    try:
        with pytest.raises(
            UnsupportedError, match="install libseccomp2, or --security-opt seccomp=unconfined"
        ) as caught:
            seccomp.program(Spec(rootfs="/"))
        assert len(str(caught.value).splitlines()) == 1
        assert seccomp.program(Spec(rootfs="/", seccomp="unconfined")) == b""
    finally:
        libseccomp._library.cache_clear()


# ---- the filter of no-new-suid


@pytest.mark.parametrize("arch", [lib.AUDIT_ARCH_NATIVE, *([I386] if NATIVE.go == "amd64" else [])], ids=hex)
def test_no_new_suid_on_every_architecture(arch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = seccomp.without_suid()

    def said(name: str, *arguments: int) -> int:
        found = libseccomp.newest([name], "x86" if arch == I386 else "")[1]
        return bpf.evaluate(program, found, arch, arguments) if found >= 0 else EPERM

    for bits in (0o4755, 0o2755, 0o6000, 2**40 | 0o4000):
        asked = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("creat", 1), ("mknod", 1), ("mknodat", 2)]
        assert {said(name, *[0] * at, bits) for name, at in asked} == {EPERM}
        for flags in (os.O_CREAT, os.O_CREAT | os.O_EXCL | os.O_RDWR, os.O_TMPFILE | os.O_WRONLY):
            assert {said("open", 0, flags, bits), said("openat", 0, 0, flags, bits)} == {EPERM}
        assert {said("openat", 0, 0, os.O_RDONLY | os.O_DIRECTORY, bits)} == {ALLOW}  # no mode is looked at
    assert (
        said("fchmod", 0, 0o1777) == said("openat", 0, 0, os.O_CREAT, 0o666) == said("mkdirat", 0, 0, 0o2755) == ALLOW
    )
    assert [said(name) for name in ("openat2", "clone3", "io_uring_setup")] == [ENOSYS] * 3
    assert bpf.evaluate(program, lib.SYS_fchmodat2, arch, (0, 0, 0)) == ENOSYS
    assert said("unshare", lib.CLONE_NEWUSER | lib.CLONE_NEWNS) == EPERM
    assert said("clone", lib.CLONE_NEWUSER) == EPERM
    assert said("clone", signal.SIGCHLD) == said("unshare", lib.CLONE_NEWNS) == said("execve") == ALLOW
