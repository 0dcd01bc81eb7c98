"""Primitives on processes and descriptors that need no privilege; what changes a process, in one of its own."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from minicontainer import linux
from minicontainer.linux import constants, process


def run(code: str) -> str:
    """A Python of its own, for what changes the process."""
    head = "import os, signal\nfrom minicontainer import linux\nfrom minicontainer.linux import process\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def child(*args: str) -> Iterator[tuple[int, int]]:
    """(pid, pidfd) of a child; reaped at the end where that was not done."""
    pid = os.posix_spawnp(args[0], args, os.environ)
    pidfd = linux.pidfd_open(pid)
    try:
        yield pid, pidfd
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            linux.pidfd_send_signal(pidfd, signal.SIGKILL)
            linux.waitid(pidfd)
        os.close(pidfd)


def descriptors() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}


# ---- who it is, how it ends


def test_start_time_tells_processes_apart() -> None:
    with child("sleep", "100") as (pid, pidfd):
        assert linux.start_time(pid) >= linux.start_time(os.getpid())
        linux.pidfd_send_signal(pidfd, signal.SIGKILL)
        linux.waitid(pidfd)
        with pytest.raises(ProcessLookupError, match=f"/proc/{pid}/stat") as caught:
            linux.start_time(pid)
        assert caught.value.errno == errno.ESRCH


def test_start_time_of_a_name_that_looks_like_the_file() -> None:
    """The name stands in brackets before the fields, and may hold what it likes."""
    out = run("process.set_name(') R 1 2 (x')\nprint(linux.start_time(os.getpid()))\n")
    now = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert now - 20 * os.sysconf("SC_CLK_TCK") < int(out) <= now


def test_a_pidfd_signals_and_copies() -> None:
    read, write = os.pipe()
    with child("sleep", "100") as (_, pidfd):
        copy = linux.pidfd_getfd(pidfd, 1)
        assert os.fstat(copy).st_ino == os.fstat(1).st_ino
        assert not os.get_inheritable(copy)
        assert not os.get_inheritable(pidfd)
        os.close(copy)
        with pytest.raises(OSError, match=rf"^pidfd_getfd\({pidfd}, 999\): Bad file descriptor"):
            linux.pidfd_getfd(pidfd, 999)
        linux.pidfd_send_signal(pidfd, signal.SIGTERM)
        assert linux.waitid(pidfd).status == -signal.SIGTERM
        with pytest.raises(ProcessLookupError, match=rf"^pidfd_send_signal\({pidfd}, 15\)"):
            linux.pidfd_send_signal(pidfd, signal.SIGTERM)
    os.close(read)
    with pytest.raises(OSError, match=rf"^pidfd_send_signal\({write}, 9\): Bad file"):
        linux.pidfd_send_signal(write, 9)
    os.close(write)


def test_pidfd_wait_waits_for_the_end_or_the_time() -> None:
    with child("sleep", "100") as (_, pidfd):
        assert not linux.pidfd_wait(pidfd, 0)
        assert not linux.pidfd_wait(pidfd, 0.05)
        linux.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert linux.pidfd_wait(pidfd)
        assert linux.pidfd_wait(pidfd, 1e12)  # it reaps nothing; and no time is too long
        linux.waitid(pidfd)
    with pytest.raises(OSError, match=r"^ppoll\(-1\): Bad file descriptor"):
        linux.pidfd_wait(-1)


def test_pidfd_wait_lets_signal_handlers_run() -> None:
    out = run(
        "pid = os.posix_spawnp('sleep', ['sleep', '100'], os.environ); fd = linux.pidfd_open(pid)\n"
        "def handler(*_): print('handled'); linux.pidfd_send_signal(fd, 9)\n"
        "signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "print(linux.pidfd_wait(fd), linux.waitid(fd).status)\n"
    )
    assert out == "handled\nTrue -9\n"


def test_waitid_tells_how_it_ended_and_what_it_used() -> None:
    busy = "import sys\nx = bytearray(64 << 20)\nfor i in range(1_000_000): pass\nsys.exit(7)"
    with child(sys.executable, "-c", busy) as (_, pidfd):
        ended = linux.waitid(pidfd)
        assert ended.status == 7
        assert 0 < ended.utime + ended.stime < 60
        assert 64 << 20 <= ended.maxrss < 4 << 30
        with pytest.raises(ChildProcessError, match=rf"^waitid\({pidfd}\)"):
            linux.waitid(pidfd)


# ---- its attributes


def test_prlimit_reads_and_sets() -> None:
    out = run(
        "import resource as r\n"
        "before = linux.prlimit(0, r.RLIMIT_NOFILE)\n"
        "print(before == r.getrlimit(r.RLIMIT_NOFILE) == linux.prlimit(os.getpid(), r.RLIMIT_NOFILE, (64, 128)))\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE), linux.prlimit(0, r.RLIMIT_FSIZE, (-1, -1)) is not None)\n"
        "print(linux.prlimit(0, r.RLIMIT_FSIZE))\n"
    )
    assert out == "True\n(64, 128) True\n(-1, -1)\n"
    with pytest.raises(OSError, match=r"^prlimit64\(0, 999, NULL\): Invalid argument"):
        linux.prlimit(0, 999)


def test_personality_is_inherited() -> None:
    out = run(
        "before = linux.personality(); print(linux.personality('ADDR_NO_RANDOMIZE') == before)\n"
        "print(linux.personality() == linux.constants.ADDR_NO_RANDOMIZE, flush=True)\n"
        "os.execvp('cat', ['cat', '/proc/self/personality'])\n"
    )
    assert out == f"True\nTrue\n{constants.ADDR_NO_RANDOMIZE:08x}\n"


def test_prctl_and_its_error() -> None:
    out = run(
        "print(linux.prctl('PR_GET_NO_NEW_PRIVS'), linux.prctl('PR_SET_NO_NEW_PRIVS', 1),"
        " linux.prctl('PR_GET_NO_NEW_PRIVS'))\n"
    )
    assert out == "0 0 1\n"
    with pytest.raises(OSError, match=r"^prctl\(PR_SET_NO_NEW_PRIVS, 2\): Invalid argument"):
        linux.prctl("PR_SET_NO_NEW_PRIVS", 2)


def test_a_name_and_a_subreaper() -> None:
    out = run(
        "process.set_name('fifteen-letters'); print(process.get_name(), open('/proc/self/comm').read().strip())\n"
        "print(process.get_child_subreaper())\n"
        "process.set_child_subreaper(); print(process.get_child_subreaper(), flush=True)\n"
        "if os.fork() == 0:\n    os._exit(0) if os.fork() else os._exit(7)\n"
        "print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)))\n"
        "process.set_child_subreaper(False); print(process.get_child_subreaper())\n"
    )
    assert out == "fifteen-letters fifteen-letters\nFalse\nTrue\n[0, 7]\nFalse\n"
    with pytest.raises(ValueError, match="'more-than-fifteen' is longer than 15 bytes"):
        process.set_name("more-than-fifteen")


# ---- namespaces, looked at


def test_namespaces_of_a_process() -> None:
    found = linux.namespaces.namespaces()
    assert found == linux.namespaces.namespaces(os.getpid())
    assert {"mnt", "net", "pid", "user", "uts"} <= set(found)
    assert all(re.fullmatch(rf"{kind}:\[\d+\]", text) for kind, text in found.items())
    with pytest.raises(FileNotFoundError, match="/proc/4194305/ns"):
        linux.namespaces.namespaces(4194305)


def test_open_namespaces_are_descriptors_of_them() -> None:
    opened = linux.open_namespaces()
    try:
        assert set(opened) == set(linux.namespaces.namespaces())
        for kind, fd in opened.items():
            assert os.readlink(f"/proc/self/fd/{fd}") == linux.namespaces.namespaces()[kind]
            assert linux.statfs_type(fd) == constants.NSFS_MAGIC
            assert not os.get_inheritable(fd)
    finally:
        for fd in opened.values():
            os.close(fd)
    before = descriptors()
    with pytest.raises(FileNotFoundError, match="ns/nonsense"):
        linux.open_namespaces(kinds=["uts", "net", "nonsense"])
    assert descriptors() == before


def test_host_and_domain_name_are_read() -> None:
    assert linux.gethostname() == Path("/proc/sys/kernel/hostname").read_text(encoding="utf-8").strip()
    assert linux.getdomainname() == Path("/proc/sys/kernel/domainname").read_text(encoding="utf-8").strip()


# ---- descriptors and paths


def test_openat2_stays_beneath(tmp_path: Path) -> None:
    (tmp_path / "inside").write_text("in", encoding="utf-8")
    (tmp_path / "out").symlink_to("/etc/passwd")
    root = os.open(tmp_path, os.O_PATH)
    try:
        fd = linux.openat2(root, "inside", os.O_RDONLY, resolve="RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS")
        assert os.read(fd, 9) == b"in"
        assert not os.get_inheritable(fd)
        os.close(fd)
        with pytest.raises(OSError, match=rf"^openat2\({root}, 'out'\): Invalid cross-device") as caught:
            linux.openat2(root, "out", "O_RDONLY", resolve=constants.RESOLVE_BENEATH)
        assert caught.value.errno == errno.EXDEV
        with pytest.raises(FileNotFoundError):  # the link's target is sought inside
            linux.openat2(root, "out", "O_RDONLY", resolve="RESOLVE_IN_ROOT")
        os.close(linux.openat2(root, "made", "O_WRONLY|O_CREAT|O_EXCL", 0o600))
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    finally:
        os.close(root)


@pytest.mark.parametrize(
    "refuse",
    [
        lambda name: linux.openat2(constants.AT_FDCWD, name, "O_RDONLY"),
        lambda name: linux.sealed_memfd(name, b""),
        lambda name: linux.mount(name, "/"),
        linux.umount,
        linux.open_tree,
        lambda name: linux.move_mount(0, name),
        linux.fsopen,
        linux.fspick,
        lambda name: linux.fsconfig(0, "FSCONFIG_SET_STRING", name, "x"),
        lambda name: linux.fsconfig(0, "FSCONFIG_SET_STRING", "x", name),
        lambda name: linux.mount_setattr(0, name),
        linux.statfs_type,
        lambda name: linux.pivot_root(name, "/"),
        linux.setns,
        linux.join_session_keyring,
    ],
)
def test_no_path_is_cut_at_a_nul(refuse: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"'/etc/passwd\\x00x' holds a NUL byte"):
        refuse("/etc/passwd\0x")


def test_close_range_closes_or_marks_the_range() -> None:
    out = run(
        "fds = [os.dup(1) for _ in range(5)]\n"
        "[os.set_inheritable(fd, True) for fd in fds]\n"
        "linux.close_range(fds[0], fds[0], 'CLOSE_RANGE_CLOEXEC'); linux.close_range(fds[1], fds[3])\n"
        "print([os.path.exists(f'/proc/self/fd/{fd}') for fd in fds], os.get_inheritable(fds[0]))\n"
    )
    assert out == "[True, False, False, False, True] False\n"
    with pytest.raises(OSError, match=r"^close_range\(5, 3, CLOSE_RANGE_CLOEXEC\): Invalid argument"):
        linux.close_range(5, 3, "CLOSE_RANGE_CLOEXEC")


def test_a_sealed_memfd_cannot_be_changed() -> None:
    data = os.urandom(3 << 20)
    fd = linux.sealed_memfd("sealed", data)
    try:
        assert os.pread(fd, len(data) + 1, 0) == data
        assert not os.get_inheritable(fd)
        assert os.readlink(f"/proc/self/fd/{fd}") == "/memfd:sealed (deleted)"
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 4 << 20)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)
    with pytest.raises(OSError, match=r"^memfd_create\('x{250}'\): Invalid argument"):
        linux.sealed_memfd("x" * 250, b"")


def test_statfs_tells_the_kind_of_file_system(tmp_path: Path) -> None:
    assert linux.statfs_type("/proc") == constants.PROC_SUPER_MAGIC
    assert linux.statfs_type(Path("/sys")) == constants.SYSFS_MAGIC
    assert linux.statfs_type(tmp_path) not in (constants.PROC_SUPER_MAGIC, constants.SYSFS_MAGIC)
    with pytest.raises(FileNotFoundError, match=r"^statfs\('/nowhere'\)"):
        linux.statfs_type("/nowhere")
    with pytest.raises(OSError, match=r"^fstatfs\(-1\): Bad file"):
        linux.statfs_type(-1)
