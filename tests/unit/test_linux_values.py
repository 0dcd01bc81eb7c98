"""What of minicontainer.linux needs no privilege: parsing, masks, assembling, errors."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import linux
from minicontainer.linux.mounts import parse_mountinfo
from minicontainer.native import lib
from minicontainer.spec import CAPABILITIES

CSRC = Path(__file__).parents[2] / "csrc"


def test_every_public_name_is_there() -> None:
    for name in linux.__all__:
        assert getattr(linux, name) is not None
    assert set(linux.__all__) <= set(dir(linux))
    with pytest.raises(AttributeError, match="nonsense"):
        linux.nonsense  # noqa: B018


def test_flags_by_name_and_number() -> None:
    from minicontainer.linux.flags import flags

    assert flags("CLONE_NEWUTS|CLONE_NEWNS") == lib.CLONE_NEWUTS | lib.CLONE_NEWNS == flags(lib.CLONE_NEWUTS | 0x20000)
    with pytest.raises(ValueError, match="CLONE_NEWLIFE"):
        flags("CLONE_NEWLIFE")


# ---- mountinfo


def test_our_own_mounts_are_read() -> None:
    mounts = linux.mountinfo()
    root = [m for m in mounts if m.target == "/"]
    assert root
    assert {m.id for m in mounts} >= {m.parent for m in mounts if m.target != "/"}
    assert os.path.realpath("/proc") in {m.target for m in mounts if m.fstype == "proc"}


def escape(path: str) -> str:
    return re.sub(r"[ \t\n\\#]", lambda m: f"\\{ord(m[0]):03o}", path)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(lambda s: "/" + s)


@given(names, names, st.lists(st.sampled_from(["shared:1", "master:2", "propagate_from:3", "unbindable"]), unique=True))
def test_any_path_survives_mountinfo(root: str, target: str, optional: list[str]) -> None:
    fields = ["36", "35", "98:0", escape(root), escape(target), "rw,noatime", *optional, "-", "ext4", "none", "rw"]
    found = parse_mountinfo(" ".join(fields) + "\n")
    assert (found.root, found.target, found.optional) == (root, target, tuple(optional))
    assert (found.id, found.parent, found.device, found.fstype) == (36, 35, "98:0", "ext4")


@given(st.text())
def test_no_line_of_mountinfo_is_a_value_error(line: str) -> None:
    try:
        parse_mountinfo(line)
    except ValueError:
        return
    assert " - " in line


# ---- capabilities


@given(st.sets(st.sampled_from(CAPABILITIES)))
def test_masks_and_names_are_inverse(chosen: set[str]) -> None:
    mask = linux.caps.mask(chosen)
    assert set(linux.caps.names(mask)) == chosen
    assert linux.caps.mask(f"cap_{name.lower()}" for name in chosen) == mask


def test_the_names_are_the_kernels() -> None:
    text = Path("/usr/include/linux/capability.h").read_text(encoding="utf-8")
    numbers = dict(re.findall(r"^#define CAP_([A-Z_]+)\s+(\d+)$", text, re.MULTILINE))
    for number, name in enumerate(CAPABILITIES):
        assert int(numbers[name]) == number


def test_our_own_sets() -> None:
    sets = linux.caps.capabilities()
    assert sets.effective & ~sets.permitted == 0
    assert sets == linux.caps.capabilities(os.getpid())
    assert linux.caps.has("chown") == bool(sets.effective & linux.caps.mask(["chown"]))


# ---- seccomp


def test_a_deny_list_is_a_program() -> None:
    program = linux.seccomp.deny(["mkdirat", "mount"], errno.EACCES)
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert [k for code, _, _, k in instructions if code == 0x15][1:] == [lib.SYS_mkdirat, lib.SYS_mount]
    assert instructions[-1][3] == lib.SECCOMP_RET_ALLOW
    with pytest.raises(ValueError, match="no_such_call"):
        linux.seccomp.deny(["no_such_call"])


def run(code: str) -> str:
    """A Python of its own, for what changes the process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_filter_refuses_and_the_rest_goes_on() -> None:
    out = run(
        "import os\n"
        "from minicontainer import linux\n"
        "from minicontainer.native import lib, syscall\n"
        "syscall('prctl', lib.SYS_prctl, lib.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)\n"
        "linux.seccomp.load(linux.seccomp.deny(['mkdir', 'mkdirat'], 13))\n"
        "try:\n    os.mkdir('/tmp/never')\n"
        "except PermissionError as e:\n    print('refused', e.errno)\n"
        "print(os.getpid() > 0)\n"
    )
    assert out == "refused 13\nTrue\n"


# ---- processes and descriptors


def test_start_time_tells_processes_apart() -> None:
    child = subprocess.Popen(["sleep", "100"])
    try:
        assert linux.start_time(child.pid) >= linux.start_time(os.getpid())
    finally:
        child.kill()
        child.wait()
    with pytest.raises(ProcessLookupError):
        linux.start_time(child.pid)


def test_a_pidfd_signals_and_copies() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        pidfd = linux.pidfd_open(child.pid)
        try:
            copy = linux.pidfd_getfd(pidfd, 0)
            assert os.fstat(copy).st_ino == os.fstat(child.stdin.fileno()).st_ino  # type: ignore[union-attr]
            assert not os.get_inheritable(pidfd)
            os.close(copy)
            linux.pidfd_send_signal(pidfd, 9)
            assert child.wait() == -9
        finally:
            os.close(pidfd)


def test_a_name_and_a_subreaper() -> None:
    out = run(
        "import os\nfrom minicontainer.linux import process\n"
        "process.set_name('fifteen-letters')\nprint(open('/proc/self/comm').read().strip())\n"
        "process.set_child_subreaper()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    orphan = os.fork()\n    os._exit(0) if orphan else os._exit(7)\n"
        "print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)))\n"
    )
    assert out == "fifteen-letters\n[0, 7]\n"
    with pytest.raises(ValueError, match="15 bytes"):
        linux.process.set_name("more-than-fifteen")


def test_openat2_stays_beneath(tmp_path: Path) -> None:
    (tmp_path / "inside").write_text("in")
    (tmp_path / "out").symlink_to("/etc/passwd")
    root = os.open(tmp_path, os.O_PATH)
    try:
        fd = linux.openat2(root, "inside", os.O_RDONLY, resolve=lib.RESOLVE_BENEATH)
        assert os.read(fd, 9) == b"in"
        assert not os.get_inheritable(fd)
        os.close(fd)
        with pytest.raises(OSError, match=r"openat2\(\d+, 'out'\)") as caught:
            linux.openat2(root, "out", os.O_RDONLY, resolve=lib.RESOLVE_BENEATH)
        assert caught.value.errno == errno.EXDEV
        with pytest.raises(OSError, match="No such file"):  # the link's target is sought inside
            linux.openat2(root, "out", os.O_RDONLY, resolve=lib.RESOLVE_IN_ROOT)
    finally:
        os.close(root)


def test_close_range_closes_the_range() -> None:
    out = run(
        "import os\nfrom minicontainer import linux\n"
        "fds = [os.dup(1) for _ in range(5)]\nlinux.close_range(fds[1], fds[3])\n"
        "print([os.path.exists(f'/proc/self/fd/{fd}') for fd in fds])\n"
    )
    assert out == "[True, False, False, False, True]\n"


def test_a_sealed_memfd_cannot_be_changed() -> None:
    fd = linux.sealed_memfd("sealed", b"data")
    try:
        assert os.pread(fd, 10, 0) == b"data"
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 99)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


# ---- the door to C


def test_the_stub_tells_of_every_function() -> None:
    declared = set(
        re.findall(r"\b(mc_\w+)\(", (CSRC / "native.h").read_text().split("CDEF BEGIN")[1].split("CDEF END")[0])
    )
    stub = (Path(linux.__file__).parents[1] / "_native.pyi").read_text(encoding="utf-8")
    stubbed = set(re.findall(r"def (mc_\w+)\(", stub))
    assert declared == stubbed == {name for name in dir(lib) if name.startswith("mc_")}
    constants = set(re.findall(r"^    (MC_\w+): int", stub, re.MULTILINE))
    assert constants == {name for name in dir(lib) if name.startswith("MC_")}


def test_a_failed_call_names_itself_and_its_object() -> None:
    with pytest.raises(OSError, match=r"pidfd_open\(4194305\): No such process|Invalid argument") as caught:
        linux.pidfd_open(4194305)
    assert caught.value.errno in (errno.ESRCH, errno.EINVAL)
