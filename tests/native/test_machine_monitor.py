"""A detached container whose program is the monitor of a machine: with a monitor that makes none (fakevmm.c), thus
without KVM, a kernel and a boot. tests/rig/test_machine_detached.py has the whole."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from box import until
from fakemachine import fake, pretend, program

import minicontainer as mc
from minicontainer.container.machine import monitor
from minicontainer.container.machine.run import MachineError
from minicontainer.detached.registered import RegisteredPopen
from minicontainer.detached.store import NotFoundError
from minicontainer.errors import Error, ProgramError, SpecError, UnsupportedError
from minicontainer.linux import caps
from minicontainer.linux.files import sealed_memfd
from minicontainer.microvm.devices import ALWAYS
from minicontainer.native import ffi, lib

__all__ = ["fake", "pretend", "program"]  # fixtures
pytestmark = pytest.mark.needs("root")

Container = mc.Container
SOCKET = lib.MC_VMM_GIVEN_FD + len(ALWAYS)  # by which the guest can be reached


def output(container: Container) -> str:
    return b"".join(entry.data for entry in container.logs()).decode()


def left() -> list[Container]:
    return mc.containers()


def test_a_start_that_returns_has_a_program_that_runs(fake: Callable[..., Container]) -> None:
    container = fake("runs", "true", name="box")
    assert container.status == "running"
    assert {event.side for event in container.timeline or ()} >= {"parent", "child"}
    container.kill("USR1")
    until(lambda: "signal 10" in output(container))
    container.stop()
    assert (container.state.exit_code, container.state.reason) == (143, "exited")
    assert output(container).endswith("terminated\n")


def await_descriptors(container: Container, *given: int) -> None:
    """The monitor closes the pipe of its report after it has written that."""
    expected = {0, 1, 2, *range(lib.MC_VMM_KVM_FD, lib.MC_VMM_GIVEN_FD), *given}
    until(lambda: {int(name) for name in os.listdir(f"/proc/{container.pid}/fd")} == expected)


def test_the_monitor_has_its_descriptors_and_no_others(fake: Callable[..., Container]) -> None:
    container = fake("runs")
    await_descriptors(container, SOCKET)


def test_an_image_is_given_to_its_device(fake: Callable[..., Container], tmp_path: Path) -> None:
    """Volumes are in a root of the monitor's own, which can be written to for them."""
    container = fake("runs", root_image="erofs", read_only=True, mounts=[mc.Mount("/not-in-rootfs", str(tmp_path))])
    disk = SOCKET + 1
    await_descriptors(container, SOCKET, disk)
    root = Path(f"/proc/{container.pid}/root")
    assert os.path.samefile(root / "minicontainer-volume-0", tmp_path)
    assert not (root / "not-in-rootfs").exists()


def test_a_terminal_is_the_monitors(fake: Callable[..., Container]) -> None:
    container = fake("runs", tty=True)
    with container.attach() as attachment:
        attachment.resize(30, 100)
    until(lambda: "signal 28" in output(container))


def test_what_is_missing_is_an_error_of_the_start(fake: Callable[..., Container]) -> None:
    with pytest.raises(ProgramError, match="/no/such") as caught:
        fake("missing", "/no/such")
    assert caught.value.exit_code == 127
    assert left() == []


@pytest.mark.parametrize(("word", "reason"), [("unable", "virtiofs"), ("killed", "ended before its program ran")])
def test_so_is_a_machine_that_cannot_run_it(fake: Callable[..., Container], word: str, reason: str) -> None:
    with pytest.raises(MachineError, match=reason):
        fake(word)
    assert left() == []


def test_a_monitor_that_its_filter_ends_is_an_end_of_the_machine(pretend: Callable[[str], None], rootfs: Path) -> None:
    pretend("forbidden")
    with mc.Popen(["true"], rootfs=str(rootfs), isolation="kvm") as process:
        assert process.wait(30) == 125
    assert process.reason == "bad-system-call"
    assert str(process.machine_error) == "machine: its monitor was ended at a system call that it may not make"


def test_a_restart_finds_the_shared_memory_as_the_first_start_did(fake: Callable[..., Container]) -> None:
    container = fake("ends", restart="on-failure:2")
    assert container.wait(30) == 5
    assert container.state.restarts == 2
    first, second, third = output(container).splitlines()
    records, size = first.split("records ")[1].split(", of ")
    assert first == f"ends: started 0, exited 0, records {records}, of {size}"
    assert int(records) > 10
    assert second == third == f"ends: started 1, exited 1, records 0, of {size}"


def test_a_program_that_the_guests_kernel_killed_for_memory(fake: Callable[..., Container]) -> None:
    """A restart forgets it."""
    container = fake("out of memory", restart="on-failure:1")
    assert container.wait(30) == 5
    assert (container.state.reason, container.state.oom_killed) == ("exited", False)
    container = fake("out of memory")
    assert container.wait(30) == 137
    assert (container.state.reason, container.state.oom_killed) == ("oom", True)


def test_so_says_the_result(pretend: Callable[[str], None], rootfs: Path) -> None:
    pretend("out of memory")
    with mc.Popen(["true"], rootfs=str(rootfs), isolation="kvm") as process:
        assert process.wait(30) == -signal.SIGKILL
    assert process.reason == "oom"


def test_created_is_started_later_and_again(fake: Callable[..., Container]) -> None:
    container = fake("runs", how=Container.create)
    assert container.status == "created"
    container.start_again()
    container.restart()
    assert container.status == "running"
    assert output(container).count("runs: started 0") == 2, "with a memory of its own"


def test_a_machine_that_boots_for_ever_can_be_interrupted(fake: Callable[..., Container]) -> None:
    timer = threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fake("hangs")
    timer.join()
    assert left() == []


@pytest.mark.parametrize("how", [Container.stop, lambda container: container.remove(force=True)])
def test_a_restart_that_boots_for_ever_can_be_stopped(
    fake: Callable[..., Container], how: Callable[[Container], None]
) -> None:
    container = fake("hangs later", restart="always", stop_timeout=0.2)
    until(lambda: output(container).count("\n") == 2)
    how(container)
    assert container not in left() or container.state.status == "exited"


def test_the_size_of_a_machine_that_runs_stays(fake: Callable[..., Container]) -> None:
    container = fake("runs")
    with pytest.raises(SpecError, match="from its start on"):
        container.update(memory="1g")


def test_a_field_that_a_machine_cannot_honour_leaves_nothing(fake: Callable[..., Container]) -> None:
    for how in (Container.start, Container.create):
        with pytest.raises(SpecError, match="privileged"):
            fake("runs", how=how, privileged=True)
    assert left() == []


def test_a_capability_that_the_caller_does_not_have_is_named(pretend: Callable[[str], None], rootfs: Path) -> None:
    """In the host's user namespace; by a thread that has less rights."""
    pretend("ends")

    def refused() -> str:
        held = caps.capabilities().permitted & ~caps.mask(("SYS_RESOURCE", "SETFCAP"))
        caps.capset(held, held, 0)
        with pytest.raises(UnsupportedError) as caught:
            mc.Popen(["true"], rootfs=str(rootfs), isolation="kvm", userns="host")
        return str(caught.value)

    with ThreadPoolExecutor(1) as pool:
        message = pool.submit(refused).result()
    assert message.startswith("isolation kvm: its monitor needs CAP_SYS_RESOURCE, CAP_SETFCAP, which"), message


# ---- a start that is under way


Begin = Callable[..., tuple[int, Container]]


@pytest.fixture
def booting(pretend: Callable[[str], None], rootfs: Path) -> Iterator[Begin]:
    """Makes a process that starts a machine which boots for ever: its pid, and the container."""
    pids: list[int] = []

    def begin(*, is_foreground: bool = False) -> tuple[int, Container]:
        pretend("hangs")
        pids.append(os.fork())
        if pids[-1] == 0:
            with suppress(Error):
                spec = mc.Spec(["true"], str(rootfs), isolation="kvm", die_with_parent=is_foreground)
                if is_foreground:
                    RegisteredPopen(spec, labels={}, on_created=str)
                Container.start(spec)
            os._exit(7)
        known = until(lambda: [c for c in left() if boots(pids[-1], c, is_foreground)])
        return pids[-1], known[0]

    yield begin
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for container in left():
        container.remove(force=True)


def boots(creator: int, container: Container, is_foreground: bool) -> bool:
    """Whether the machine's monitor was started."""
    if is_foreground:
        return bool(Path(f"/proc/{creator}/task/{creator}/children").read_text(encoding="ascii"))
    return os.path.exists(f"{container.directory}/control") and container._entry.is_owner_alive()


def test_a_start_ends_with_its_creator(booting: Begin) -> None:
    """The container stays, and can be started again."""
    pid, container = booting()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not container._entry.is_owner_alive())
    assert container.status == "created"
    assert not {"control", "cgroup", "lease", ".state"} & set(os.listdir(container.directory))


def test_a_start_can_be_stopped_by_another_process(booting: Begin) -> None:
    pid, container = booting()
    with pytest.raises(Error, match=r"is being started \(stop it first, or rm -f\)"):
        container.remove()
    container.stop()
    assert os.waitpid(pid, 0)[1] == 7 << 8
    assert left() == []


def test_a_start_can_be_ended_by_the_removal(booting: Begin) -> None:
    pid, container = booting()
    with suppress(NotFoundError):  # the creator has removed it
        container.remove(force=True)
    assert os.waitpid(pid, 0)[1] == 7 << 8
    assert left() == []


def test_a_machine_that_boots_in_the_foreground_holds_nobody_up(booting: Begin) -> None:
    _, container = booting(is_foreground=True)
    assert container.status == "created"
    with pytest.raises(Error, match=r"^stop .* boots in the foreground"):
        container.stop()
    with pytest.raises(Error, match=r"^rm .* boots in the foreground"):
        container.remove(force=True)


EXECUTE = """
import os, sys
for pair in sys.argv[2:]:
    number, fd = map(int, pair.split("="))
    os.dup2(fd, number)
os.execv(sys.argv[1], ["vmm"])
"""


def run_monitor(descriptors: dict[int, int]) -> int:
    """Executes csrc/vmm with descriptors at the numbers that it is to have; its exit code."""
    high = {number: os.dup2(fd, 100 + number) for number, fd in descriptors.items()}
    words = [f"{number}={fd}" for number, fd in high.items()]
    command = [sys.executable, "-c", EXECUTE, monitor.PROGRAM, *words]
    try:
        return subprocess.run(command, pass_fds=list(high.values()), timeout=30, check=False).returncode
    finally:
        for fd in high.values():
            os.close(fd)


def test_the_true_monitor_says_why_it_cannot_start() -> None:
    """Without KVM: what an earlier run has left is cleared, and the report has ECANCELED."""
    size, payload = ffi.sizeof("struct mc_vmm_run"), ffi.sizeof("struct mc_guest_start")
    run, machine = ffi.new("struct mc_vmm_run *"), ffi.new("struct mc_machine *", {"magic": lib.MC_MACHINE_MAGIC})
    ffi.memmove(run, b"\1" * size, size)
    run.magic, run.start, run.start_size = lib.MC_VMM_RUN_MAGIC, size, payload
    run.records, run.size = size + payload, size + payload + 3 * ffi.sizeof("struct mc_record")
    shared, read, write = os.memfd_create("run"), *os.pipe()
    data, null = sealed_memfd("machine", bytes(ffi.buffer(machine))), os.open("/dev/null", os.O_RDWR)
    os.write(shared, bytes(ffi.buffer(run)).ljust(run.size, b"\0"))
    assert run_monitor({3: write, 4: null, 5: data, 6: shared}) == 125
    report = ffi.from_buffer("struct mc_vmm_report *", os.read(read, 4096))
    ffi.memmove(run, os.pread(shared, size, 0), size)
    for fd in (shared, read, write, data, null):
        os.close(fd)
    assert report.error == errno.ECANCELED
    assert (run.started, run.failed, run.exited, run.console_size, run.nrecords) == (0, 0, 0, 0, 3)
    assert (run.error, ffi.string(run.what)) == (-errno.ENOTTY, b"KVM_CREATE_VM")
