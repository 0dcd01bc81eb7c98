"""How kvm-boot ends: the documented exit codes, errors of one line, and guests that misbehave; nothing is left of
any."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from box import CLI

from minicontainer.errors import SpecError
from minicontainer.kvm import Access, Machine, guests

Run = Callable[..., "CompletedProcess[str]"]

pytestmark = pytest.mark.needs("kvm")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("hello", 0, ""),
        ("pio-storm --max-exits 100", 120, "--max-exits 100: the limit of exits is reached, rip 0x"),
        ("triple-fault", 121, "kernel triple-fault: the guest has caused a triple fault"),
        ("loop --timeout 0.2", 124, "--timeout 0.2: the time limit is reached, rip 0x1000"),
        ("flood --timeout 0.3 --serial none", 124, "--timeout 0.3: the time limit is reached"),
        ("echo --timeout 0.3", 124, "--timeout 0.3: the time limit is reached"),
        ("hello --memory 0", 125, "--memory 0: must be at least 4096"),
        ("hello --memory 5000", 125, "--memory 5000: is no multiple of 4096 bytes"),
        ("hello --memory 900T", 125, "--memory 900T: is more than this host has ("),
        ("hello --cpus 0", 125, "--cpus 0: must be a whole number from 1 to 254"),
        ("hello --cpus 2", 125, "--cpus 2: need interrupts to be started by (--irqchip)"),
        ("hello --mode pvh", 125, "--mode pvh: "),
        ("hello --timeout 0", 125, "--timeout 0: must be a number of seconds"),
        ("hello --initrd x", 125, "--initrd x: a kernel of kind flat takes none"),
        ("hello --entry 0xfffff", 125, "--entry 0xfffff: is beyond the first 64 KiB"),
        ("hello --step --gdb 0", 125, "--step: cannot be combined with --gdb"),
        ("hello --dump-memory 16", 125, "--dump-memory 16: must be ADDRESS:BYTES"),
        ("hello --meta /nowhere/x", 125, "--meta /nowhere/x: there is no directory /nowhere"),
        ("/dev", 126, "kernel /dev: is a directory"),
        ("/dev/null", 126, "kernel /dev/null: is no regular file"),
        (sys.executable, 126, "is a program for Linux, not a kernel"),
        ("./nowhere", 127, "kernel ./nowhere: No such file or directory"),
    ],
)
def test_exit_codes(minicontainer_cli: Run, words: str, code: int, said: str) -> None:
    done = minicontainer_cli("kvm-boot", *words.split())
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert len(lines) == bool(said)
    assert all(line.startswith("minicontainer: ") and said in line for line in lines), done.stderr


def test_a_guests_own_code(minicontainer_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"\xb0\x2a\xe6\xf4\xf4")  # mov al, 42; out 0xf4, al; hlt
    done = minicontainer_cli("kvm-boot", tmp_path / "own")
    assert (done.returncode, done.stderr) == (42, "")


def test_what_kvm_cannot_emulate_is_said(minicontainer_cli: Run) -> None:
    done = minicontainer_cli("kvm-boot", "hole", "--timeout", "5")
    assert done.returncode == 122, done.stderr
    assert "KVM cannot go on, an instruction that KVM cannot emulate" in done.stderr
    assert "rip 0xd0000000" in done.stderr


@pytest.mark.parametrize(
    ("code", "mode", "is_said"),
    [
        (b"\xea\x00\x00\xff\xff", [], True),  # a jump to where nothing is
        (b"\xea\x00\x00\xff\xff", ["--mode", "real"], False),
        (b"\xb0\x2a\xe6\xf4\xf4", [], False),  # mov al, 42; out 0xf4, al; hlt
    ],
)
def test_a_file_of_no_known_format_may_be_no_code(
    minicontainer_cli: Run, tmp_path: Path, code: bytes, mode: list[str], is_said: bool
) -> None:
    (tmp_path / "kernel").write_bytes(code)
    done = minicontainer_cli("kvm-boot", *mode, tmp_path / "kernel", "--timeout", "60")
    assert done.returncode in ((121, 122) if code[0] == 0xEA else (42,)), done.stderr
    assert ("its format was not recognised: it was entered as 16-bit code" in done.stderr) == is_said
    assert ", ;" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_it(number: signal.Signals, code: int) -> None:
    command = [*CLI, "kvm-boot", "loop", "--trace"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        wait_for_guest(running.pid)
        running.send_signal(number)
        _, said = running.communicate(timeout=120)
    assert running.returncode == code, said
    assert said.splitlines()[-1:] == (["minicontainer: kernel loop: interrupted, rip 0x1000"] if code == 130 else [])


def wait_for_guest(pid: int) -> None:
    """Until its first thread has used processor time in the kernel for a while: only the guest's loop does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        if Path(f"/proc/{pid}/fd").exists() and has_machine(pid) and int(fields[11]) + int(fields[12]) > 20:
            return
        time.sleep(0.02)
    raise AssertionError("the guest does not run")


def has_machine(pid: int) -> bool:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:kvm-vcpu:0":
                return True
    return False


def test_output_without_a_reader(tmp_path: Path) -> None:
    """A reader that goes away ends it quietly; one that never reads keeps the guest waiting, but not the timeout."""
    flood = [*CLI, "kvm-boot", "flood", "--timeout", "20"]
    with subprocess.Popen(flood, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert b"fox" in running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 128 + signal.SIGPIPE
    reader, writer = os.pipe()
    done = subprocess.run(
        [*flood[:-1], "0.5"], stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(reader)
    os.close(writer)
    assert done.returncode == 124


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("/dev/null", "KVM_CREATE_VM(): Inappropriate ioctl for device (/dev/kvm is not KVM's device"),
        (
            "gone",
            "KVM /dev/kvm: there is none (load kvm_intel or kvm_amd, and switch virtualisation on in the firmware)",
        ),
    ],
)
def test_without_kvm(over: str, said: str) -> None:
    hide = "mount --bind /dev/null /dev/kvm" if over != "gone" else "mount -t tmpfs none /dev && mknod /dev/null c 1 3"
    command = ["unshare", "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh", *CLI, "kvm-boot", "hello"]
    done = subprocess.run(
        command, stdin=subprocess.PIPE, capture_output=False, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


@pytest.mark.needs("user")
def test_without_permission(as_user: Run) -> None:
    mode = os.stat("/dev/kvm").st_mode & 0o777
    os.chmod("/dev/kvm", 0o660)
    try:
        done = as_user([*CLI, "kvm-boot", "hello"])
    finally:
        os.chmod("/dev/kvm", mode)
    assert done.returncode == 125
    assert "KVM /dev/kvm: it is for group " in done.stderr
    assert "usermod -aG" in done.stderr


# ---- in one process


def held() -> tuple[int, int, int]:
    """Descriptors, threads, mappings."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return len(os.listdir("/proc/self/fd")), threading.active_count(), maps.count("kvm")


def test_nothing_is_left_of_many_machines() -> None:
    before = held()
    for _ in range(50):
        with Machine() as m:
            m.load(guests.path("hello"))
            assert m.run(timeout=100).reason == "halt"
    with Machine(cpus=2) as m:
        m.load(guests.path("hello"))
        with pytest.raises(SpecError, match="--irqchip"):
            m.start()
    assert held() == before


def test_what_a_handler_raises_comes_out() -> None:
    before = held()
    with Machine() as m:
        m.load(guests.path("pio-storm"))

        @m.port(0, 0x10000)
        def fail(access: Access) -> int | None:
            raise LookupError(access.address)

        with pytest.raises(LookupError):
            m.run(timeout=100)
    assert held() == before


def test_it_is_stopped_from_elsewhere_and_goes_on() -> None:
    with Machine() as m:
        m.load(guests.path("loop"))
        assert m.run(timeout=0.05).reason == "timeout"
        timer = threading.Timer(0.1, m.stop)
        timer.start()
        assert m.run(timeout=100).reason == "stopped"
        timer.join()
        assert m.run(max_exits=1, timeout=0.05).reason == "timeout"


def test_a_machine_in_a_device_of_another() -> None:
    with Machine() as outer:
        outer.memory[0x1000:0x1005] = b"\xe4\x80\xe6\xf4\xf4"  # in al, 0x80; out 0xf4, al; hlt
        outer.enter(0x1000)

        @outer.port(0x80)
        def inner(_: Access) -> int | None:
            with Machine() as m:
                m.load(guests.path("hello"))
                return len(m.run(timeout=100).output)

        assert outer.run(timeout=100).returncode == len(b"Hello from real mode.\n")
