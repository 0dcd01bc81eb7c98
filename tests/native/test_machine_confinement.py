"""The threads of a machine's monitor may do what their roles need, and nothing else (csrc/vmm/confine.c)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from box import until
from fileserver import CONFINE, Mounted, compile_confined
from filetree import OPERATIONS, Random, Tree, compare

import minicontainer as mc
from minicontainer.cli.security import report
from minicontainer.container.machine import monitor, start
from minicontainer.container.machine.run import MachineError
from minicontainer.container.program import init
from minicontainer.container.security import examine
from minicontainer.kvm import boot
from minicontainer.kvm.boot.kernel import opened
from minicontainer.kvm.system import Kvm
from minicontainer.linux import caps
from minicontainer.linux.files import sealed_memfd
from minicontainer.microvm import image
from minicontainer.microvm.devices import ALWAYS
from minicontainer.microvm.recorded import RecordedMemory
from minicontainer.native import LIBEXEC, lib

ROOT, GUESTS = Path(__file__).resolve().parents[2], Path(LIBEXEC, "guests")
EVERY = {"write", "futex", "madvise(MADV_DONTNEED)"}
MAY = {  # of the calls in confined.c
    "worker": EVERY | {"read", "writev", "poll", "epoll_wait"},
    "vsock": EVERY | {"read", "epoll_wait", "sendto", "recvfrom", "accept4"},
    "network": EVERY | {"read", "poll", "sendmsg", "recvmsg"},
    "disk": EVERY | {"read", "epoll_wait", "preadv"},
    "files": EVERY
    | {"read", "epoll_wait", "openat", "mknodat", "setfsuid", "capset", "mmap to read"}
    | {"unshare what is of the file system", "fcntl(F_DUPFD_CLOEXEC)", "prctl(PR_GET_DUMPABLE)"},
    "processor": EVERY | {"ioctl(KVM_RUN)"},
    "main": EVERY | {"read", "poll", "sendto", "recvfrom", "ioctl(TIOCGWINSZ)"},
}


def test_each_role_ends_at_what_it_may_not_do(tmp_path: Path) -> None:
    program = tmp_path / "confined"
    command = ["cc", "-std=gnu11", "-O2", "-static", "-pthread", f"-I{ROOT}/csrc", "-o", str(program)]
    subprocess.run([*command, ROOT / "tests/native/confined.c", *CONFINE], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    survived = [line.split("\t") for line in done.stdout.splitlines()]
    assert {role: {call for other, call in survived if other == role} for role in MAY} == MAY
    assert {role for role, _ in survived} == set(MAY)


@pytest.mark.needs("root")
def test_the_file_server_does_all_it_has_to(tmp_path: Path) -> None:
    """Each operation, many times."""
    program = compile_confined(tmp_path / "fuse_mount")
    with Mounted(program, tmp_path) as mounted:
        for path in (mounted.base / "top", tmp_path / "shadow/top"):
            path.mkdir(parents=True)
        with Tree(mounted.base) as one, Tree(tmp_path / "shadow") as other:
            succeeded = compare(one, other, Random(7), 1500)
    assert set(+succeeded) == set(OPERATIONS)


# ---- a true monitor, whose guest does nothing but run for ever


def forever() -> bytes:
    """The data of its machine."""
    memory = RecordedMemory(4 << 20)
    with Kvm() as kvm, opened((GUESTS / "loop").read_bytes()) as kernel:
        return image._encode(kvm, memory, boot.load(kernel, memory), 2, ALWAYS)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, rootfs: Path) -> Callable[..., mc.Spec]:
    """Makes a spec whose machine is that one."""

    def inputs(_: mc.Spec, _devices: Any, stack: Any) -> dict[str, int]:
        fds = {"machine": sealed_memfd("machine", forever()), "kvm": os.open("/dev/kvm", os.O_RDWR)}
        fds |= {f"file-{i}": os.open("/dev/null", os.O_RDONLY) for i in range(lib.MC_VMM_FILES)}
        for fd in fds.values():
            stack.callback(os.close, fd)
        fds["program"] = init.cached(monitor.PROGRAM)
        return {name: start._above(fd, stack) for name, fd in fds.items()}

    monkeypatch.setattr(start, "_inputs", inputs)
    return lambda **options: mc.Spec(("true",), rootfs=str(rootfs), isolation="kvm", **options)


Machine = Callable[..., mc.Spec]
needs_machine = pytest.mark.needs("root", "kvm")


@needs_machine
def test_the_report_of_a_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(machine(tty=True), "") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"(\d+) checks of monitor and plan: \1 pass, 0 fail, 0 skipped", lines[-1])
    seen = {words[1]: words[2] for words in (line.split(None, 2) for line in lines) if len(words) == 3}
    rights = " ".join(caps.names(monitor.RIGHTS))
    assert seen["vmm-files"].endswith(f"; capabilities: {rights}")
    for name, count in (("vmm", "1"), ("vmm-processor", "2"), ("vmm-device", r"\d+")):
        assert re.fullmatch(rf"{count}, with 1\d system calls; capabilities: none", seen[name])


def failed(spec: mc.Spec) -> set[str]:
    return {f"{check.area}: {check.name}" for check in examine(spec) if check.verdict == "fail"}


@needs_machine
def test_what_a_spec_takes_away_fails(machine: Machine) -> None:
    expected = {f"guest's program: {name}" for name in ("capabilities", "bounding-capabilities", "seccomp")}
    assert failed(machine(cap_add=("SYS_ADMIN",), seccomp="unconfined")) == expected


@needs_machine
@pytest.mark.needs("raises-limits")
def test_a_monitor_that_is_root_of_the_host_fails(machine: Machine) -> None:
    assert failed(machine(userns="host")) == {"monitor: user-namespace", "monitor: ids"}


def status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


@needs_machine
def test_a_monitor_that_was_stopped_goes_on(machine: Machine) -> None:
    """Its threads wait in poll(2), which the kernel restarts by another system call."""
    with ExitStack() as stack:
        child, _ = start.boot(machine(), (0, 1, 2), stack)
        stack.callback(child.discard)
        assert child.machine is not None
        run, pid = child.machine, child.spawn.pid
        until(lambda: run.struct.calls[lib.MC_ROLE_MAIN])
        os.kill(pid, signal.SIGSTOP)
        until(lambda: status(pid, "State") == "T")
        os.kill(pid, signal.SIGUSR1)
        assert int(status(pid, "ShdPnd"), 16)
        os.kill(pid, signal.SIGCONT)
        until(lambda: int(status(pid, "ShdPnd"), 16) == 0)
        assert status(pid, "State") in ("S", "R")


@needs_machine
def test_a_monitor_that_is_killed_ends_the_start(machine: Machine) -> None:
    """Without a report, as by its filter."""
    children: list[Any] = []

    def kill() -> None:
        until(
            lambda: bool(children) and children[0].spawn.pid > 0 and children[0].machine.struct.calls[lib.MC_ROLE_MAIN]
        )
        os.kill(children[0].spawn.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(MachineError, match="its monitor has ended"):
        start.start_machine(machine(), (0, 1, 2), prepared=children.append)
    thread.join()
