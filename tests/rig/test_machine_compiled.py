"""``compile --isolation kvm``: files that start machines, with Debian's cloud kernel as it is.

A start takes many seconds, as in test_machine.py: so each test asks much of one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from box import Word, copy_of, until
from compiling import Compiler, run, stale
from supplies import Run
from test_machine import tree

pytestmark = [pytest.mark.needs("rig", "kvm-hardware"), pytest.mark.timeout(300)]

FACTS = """
id -u; pwd; hostname; echo "$A $B"; echo $#; echo "$2"
cat /data/from-host; echo back >/data/from-guest
cat; uname -r; echo to stderr >&2; exit 7
"""
WAITS = "trap 'echo caught; exit 3' TERM; tty; stty size; echo ready; while :; do sleep 0.1; done"
AGAIN = "compile it again: minicontainer compile"
PANIC = "Kernel panic - not syncing: sysrq triggered crash"


@pytest.fixture
def files(minicontainer_cli: Run, rootfs: Path, tmp_path: Path) -> Compiler:
    """Compiles machines of a root file system of the test's own."""
    return Compiler(minicontainer_cli, copy_of(rootfs, tmp_path / "root"), tmp_path)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tree(tmp_path_factory.mktemp("kernel"), "vmlinuz")


def write(files: Compiler, kernel: str, *words: Word, options: tuple[Word, ...] = ()) -> Path:
    return files.write(*words, options=["--isolation", "kvm", "--kernel", kernel, *options], timeout=200)


def test_one_program_with_all_that_surrounds_it(files: Compiler, kernel: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "from-host").write_text("from the host\n", encoding="utf-8")
    options = ("-v", f"{tmp_path}/data:/data", "-w", "/etc", "-h", "guest", "-m", "256m", "-e", "A=value", "-e", "B")
    file = write(files, kernel, "sh", "-c", FACTS, "sh", "one", options=options)
    done = run(file, "--explain", "two words", input="typed\n", env={**os.environ, "B": "inherited"}, timeout=150)
    assert done.returncode == 7, done
    said = done.stdout.splitlines()
    assert said[:8] == ["0", "/etc", "guest", "value inherited", "2", "two words", "from the host", "typed"]
    assert "cloud" in said[8]
    assert (tmp_path / "data" / "from-guest").read_text(encoding="utf-8") == "back\n"
    said = done.stderr.splitlines()
    assert said[0] == "to stderr"
    events = [line.split(None, 3) for line in said[2 : said.index("")]]
    assert {side for _, _, side, _ in events} == {"parent", "child", "guest"}
    at = {call.partition(" = ")[0]: float(start) for start, _, _, call in events}
    assert at["the monitor makes the machine"] < at["init starts the program"] < at['pivot_root(".", ".")']


@contextmanager
def on_terminal(file: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The file as a process on a terminal of 33 rows, and the terminal's master."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("=HHHH", 33, 77, 0, 0))
    try:
        with subprocess.Popen([file], stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            try:
                yield process, master
            finally:
                process.kill()
    finally:
        os.close(master)


def test_a_terminal_and_a_signal(files: Compiler, kernel: str) -> None:
    shown = b""
    with on_terminal(write(files, kernel, "sh", "-c", WAITS)) as (process, master):
        while b"ready" not in shown:
            shown += os.read(master, 1000)
        process.send_signal(signal.SIGTERM)
        while b"caught" not in shown:
            shown += os.read(master, 1000)
        assert process.wait(60) == 3
    assert shown.split(b"\r\n")[:3] == [b"/dev/pts/0", b"33 77", b"ready"]


def test_a_signal_ends_a_machine_that_boots(files: Compiler, kernel: str) -> None:
    file = write(files, kernel, "sleep", "1000")
    with subprocess.Popen([file], stdin=subprocess.DEVNULL) as process:
        until(lambda: Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_a_timeout_and_a_missing_program(files: Compiler, kernel: str) -> None:
    done = run(write(files, kernel, "sleep", options=("--timeout", "0.5", "--replace")), "sleep", "1000", timeout=150)
    assert (done.returncode, done.stderr) == (124, "minicontainer: --timeout 0.5: the container was killed\n")
    done = run(write(files, kernel, "no-such", options=("--init",)), timeout=150)
    why = "not found in the container (in no directory of its PATH)"
    assert (done.returncode, done.stderr) == (127, f"minicontainer: program no-such: {why}\n")


def test_a_step_that_fails_in_the_guest(files: Compiler, kernel: str) -> None:
    done = run(write(files, kernel, "true", options=("-w", "/no/such")), timeout=150)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "minicontainer: --workdir /no/such: no such file or directory (in the container)\n"


def test_a_panic_says_so(files: Compiler, kernel: str) -> None:
    done = run(write(files, kernel, "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"), timeout=150)
    said = done.stderr.splitlines()
    assert (done.returncode, len(said)) == (125, 13), done
    assert said[0] == f"minicontainer: machine: the guest has ended before its program ({PANIC})"


def test_a_program_that_is_killed_for_memory(files: Compiler, kernel: str) -> None:
    done = run(write(files, kernel, "tail", "/dev/zero", options=("-m", "128m")), timeout=150)
    assert done.returncode == 137, done
    assert "--memory 134217728: the guest ran out of memory, and its kernel killed the program" in done.stderr


def test_kernel_files_that_are_others(files: Compiler, kernel: str) -> None:
    """Of the user's cache, where a run finds them by their paths."""
    file = write(files, kernel, "true")
    found = re.search(rb"/[^\0]*/initramfs/[^\0]+", file.read_bytes())
    assert found
    assert b"/kernels/" in file.read_bytes(), "the unpacked kernel is a file of the cache"
    kept = Path(os.fsdecode(found[0]))
    away, before = kept.with_name("away"), kept.stat()
    try:
        os.utime(kept, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        stale(file, f"initramfs {kept}: has changed since it was compiled", AGAIN)
        kept.rename(away)
        stale(file, f"initramfs {kept}: no such file or directory", AGAIN)
        away.rename(kept)
    finally:
        os.utime(kept, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(file, timeout=150).returncode == 0


def test_no_kvm(files: Compiler, kernel: str) -> None:
    file = write(files, kernel, "true")
    subprocess.run(["mount", "--bind", "/dev/null", "/dev/kvm"], check=True)
    try:
        stale(file, "processor: KVM supports other features of it than when it was compiled")
    finally:
        subprocess.run(["umount", "/dev/kvm"], check=True)
