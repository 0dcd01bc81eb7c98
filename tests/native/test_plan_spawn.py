"""The middle layer: plans built by hand and spawned; what is said when a step fails or the child dies in one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import linux
from minicontainer import plan as p
from minicontainer.errors import SpecError, StepError
from minicontainer.linux import namespaces
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.plan.spawn import Spawn

pytestmark = pytest.mark.needs("root")

TRUE = p.execve(["/bin/true", "/usr/bin/true"], ["true"], [])


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC)
    yield ends
    for fd in ends:
        os.close(fd)


def outcome(plan: Plan, flags: str = "0", **inputs: int) -> int:
    """The status of a plan's child."""
    with Spawn(plan) as child:
        child.start(flags, inputs)
        return child.wait()


def output(steps: list[p.Step], pipe: tuple[int, int], flags: str = "0") -> bytes:
    """What a program says after ``steps``."""
    assert outcome(Plan([p.dup3(Slot("out"), 1), *steps], ["out"]), flags, out=pipe[1]) == 0
    return os.read(pipe[0], 65536)


def test_a_host_name_of_its_own(pipe: tuple[int, int]) -> None:
    before = os.uname().nodename
    program = p.execve(["/bin/uname", "/usr/bin/uname"], ["uname", "-n"], [])
    assert output([p.sethostname("box"), program], pipe, "CLONE_NEWUTS") == b"box\n"
    assert os.uname().nodename == before


def test_clone3_is_the_public_entry() -> None:
    pid, pidfd = linux.clone3(Plan([TRUE]), "CLONE_NEWUTS|CLONE_NEWIPC")
    os.close(pidfd)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_namespaces_are_those_asked_for(pipe: tuple[int, int]) -> None:
    shown = output(
        [p.execve(["/bin/ls", "/usr/bin/ls"], ["ls", "-l", "/proc/self/ns"], [])], pipe, "CLONE_NEWNET"
    ).decode()
    inside = {line.split(" -> ")[0].split()[-1]: line.split(" -> ")[1] for line in shown.splitlines() if " -> " in line}
    own = namespaces.namespaces()
    assert inside["net"] != own["net"]
    assert inside["uts"] == own["uts"]


def test_a_plan_without_exec_ends_with_0(pipe: tuple[int, int]) -> None:
    assert outcome(Plan([p.write(Slot("out"), "hello")], ["out"]), out=pipe[1]) == 0
    assert os.read(pipe[0], 16) == b"hello"


def test_an_empty_plan_ends_with_0() -> None:
    assert outcome(Plan([])) == 0


def test_a_plan_may_be_spawned_again_and_again(pipe: tuple[int, int]) -> None:
    plan = Plan([p.write(Slot("out"), "x")], ["out"])
    for _ in range(20):
        assert outcome(plan, out=pipe[1]) == 0
    assert os.read(pipe[0], 64) == b"x" * 20


def test_descriptors_by_slot(pipe: tuple[int, int], tmp_path: Path) -> None:
    fd = Slot("file")
    flags = "O_WRONLY|O_CREAT|O_CLOEXEC"
    steps = [p.openat(str(tmp_path / "made"), flags, fd, mode=0o600), p.write(fd, "text"), p.close(fd)]
    assert outcome(Plan(steps)) == 0
    assert (tmp_path / "made").read_text(encoding="ascii") == "text"


def test_the_caller_s_descriptors_are_not_the_child_s(pipe: tuple[int, int]) -> None:
    """The table of descriptors is a copy: what a step closes or opens, only the child has."""
    before = sorted(os.listdir("/proc/self/fd"))
    assert outcome(Plan([p.close_range(0)])) == 0
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_cwd_and_umask_are_the_child_s_own() -> None:
    before = os.getcwd()
    assert outcome(Plan([p.call("chdir", "/"), p.call("umask", 0o777)])) == 0
    assert os.getcwd() == before
    mask = os.umask(0o22)
    os.umask(mask)
    assert mask != 0o777


# ---- a step that fails


def test_a_step_that_fails_names_itself() -> None:
    with Spawn(Plan([p.call("getpid"), p.chdir("/no/such"), TRUE])) as child:
        with pytest.raises(StepError) as caught:
            child.start()
        assert child.failed == 1
        assert child.pidfd == -1  # reaped and closed
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == 'chdir("/no/such"): No such file or directory'
    assert isinstance(caught.value, OSError)


def test_the_steps_after_a_failure_are_not_done(pipe: tuple[int, int]) -> None:
    with Spawn(Plan([p.chdir("/no/such"), p.write(Slot("out"), "x")], ["out"])) as child:
        with pytest.raises(StepError):
            child.start("0", {"out": pipe[1]})
        assert [(e.call.partition("(")[0], e.result) for e in child.timeline() if e.side == "child"] == [
            ("chdir", -errno.ENOENT)
        ]
    os.write(pipe[1], b"y")
    assert os.read(pipe[0], 8) == b"y"


@pytest.mark.parametrize(
    ("step", "number", "hint"),
    [
        (p.pivot_root("/proc/self", "/proc/self"), errno.EINVAL, "must be a mount point that is not shared"),
        (p.setns(Slot("source"), "CLONE_NEWUTS"), errno.EINVAL, ""),
        (p.call("fsopen", "nonesuch", 0), errno.ENODEV, ""),
        (p.idmap(Slot("source"), Slot("source")), errno.EINVAL, ""),
        (p.send_fd(Slot("source"), Slot("source")), errno.ENOTSOCK, ""),
        (p.seccomp(b"\0" * 8), errno.EINVAL, ""),
        (p.execveat(Slot("source"), ["x"], []), errno.EACCES, ""),
        (p.execve(["/no", "/no/such"], ["x"], []), errno.ENOENT, ""),
        (p.prctl("PR_CAP_AMBIENT", 99), errno.EINVAL, ""),
    ],
)
def test_what_a_failed_step_says(step: p.Step, number: int, hint: str, pipe: tuple[int, int]) -> None:
    plan = Plan([p.call("unshare", p.const("CLONE_NEWNS")), step], ["source"])
    with pytest.raises(StepError) as caught:
        outcome(plan, source=pipe[0])
    assert caught.value.errno == number
    assert str(caught.value).startswith(step.describe() + ": ")
    assert hint in str(caught.value)


def test_a_clone_that_fails_names_its_flags() -> None:
    with pytest.raises(StepError, match=r"^clone3\(CLONE_NEWNS\|CLONE_FS\): Invalid argument") as caught:
        outcome(Plan([TRUE]), "CLONE_NEWNS|CLONE_FS")
    assert caught.value.errno == errno.EINVAL


def test_an_input_that_was_not_given() -> None:
    with pytest.raises(SpecError, match="plan input out: was not given"):
        outcome(Plan([p.close(Slot("out"))], ["out"]))


# ---- tolerated errors


def test_a_tolerated_error_leaves_out_what_depends_on_it(pipe: tuple[int, int]) -> None:
    b = Builder()
    out, fd = b.input("out"), Slot("fd")
    b.optional(p.openat("/no/such", "O_RDONLY", fd), p.close(fd), p.write(out, "never"), missing=(errno.ENOENT,))
    b.add(p.write(out, "after"))
    assert outcome(b.plan(), out=pipe[1]) == 0
    assert os.read(pipe[0], 16) == b"after"


def test_without_the_error_nothing_is_left_out(pipe: tuple[int, int]) -> None:
    b = Builder()
    out, fd = b.input("out"), Slot("fd")
    b.optional(p.openat("/", "O_RDONLY", fd), p.close(fd), p.write(out, "1"), missing=(errno.ENOENT, errno.EACCES))
    b.add(p.write(out, "2"))
    assert outcome(b.plan(), out=pipe[1]) == 0
    assert os.read(pipe[0], 16) == b"12"


def test_another_error_is_not_tolerated() -> None:
    with pytest.raises(StepError) as caught:
        outcome(Plan([p.call("chdir", "/etc/passwd/x", tolerate=(errno.ENOENT,))]))
    assert caught.value.errno == errno.ENOTDIR


def test_a_slot_that_was_left_empty_is_no_descriptor() -> None:
    """Not 0, which is the caller's standard input."""
    fd = Slot("fd")
    with pytest.raises(StepError, match=r"^close\(<fd>\): Bad file descriptor"):
        outcome(Plan([p.call("openat", p.FDCWD, "/no", 0, into="fd", tolerate=(errno.ENOENT,)), p.close(fd)]))


# ---- a child that dies in a step


def deadly(signal_number: int) -> p.Step:
    """kill(0, ...) of the step's own process group would take us along: it leads one of its own."""
    return p.call("kill", 0, signal_number)


def test_a_child_killed_in_a_step_is_reported_as_such() -> None:
    with Spawn(Plan([p.call("setsid"), deadly(signal.SIGKILL), TRUE])) as child:
        with pytest.raises(StepError) as caught:
            child.start()
        assert (child.failed, child.interrupted) == (None, 1)
    assert str(caught.value) == "kill(0, 9): Operation canceled (the child was killed in it by signal 9)"


def test_other_signals_are_held_until_exec() -> None:
    with Spawn(Plan([p.call("setsid"), deadly(signal.SIGTERM), p.call("getpid"), TRUE])) as child:
        child.start()
        assert child.wait() == -signal.SIGTERM


def test_without_reset_signals_the_program_has_the_mask_of_the_caller(pipe: tuple[int, int]) -> None:
    grep = p.execve(["/bin/grep", "/usr/bin/grep"], ["grep", "^SigBlk", "/proc/self/status"], [])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        assert int(output([grep], pipe).split()[1], 16) == 1 << (signal.SIGUSR1 - 1)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_child_that_seccomp_kills_is_reported_as_such() -> None:
    kill_process = b"\x06\0\0\0" + (0x80000000).to_bytes(4, "little")  # BPF_RET|BPF_K, SECCOMP_RET_KILL_PROCESS
    plan = Plan([p.prctl("PR_SET_NO_NEW_PRIVS", 1), p.seccomp(kill_process), p.call("getpid"), TRUE])
    with pytest.raises(StepError, match=rf"^getpid\(\): .*killed in it by signal {int(signal.SIGSYS)}\)$"):
        outcome(plan)


def test_a_child_that_leaves_within_a_plan_is_reported_as_such() -> None:
    exit_group = p.Step("exit_group", (3,), nr={"x86_64": 231, "aarch64": 94}[os.uname().machine])
    with pytest.raises(StepError, match=r"^exit_group\(3\): .*\(the child ended in it with status 3\)$"):
        outcome(Plan([exit_group, TRUE]))


def test_a_program_that_dies_at_once_is_no_failed_step() -> None:
    shell = p.execve(["/bin/sh"], ["sh", "-c", "kill -KILL $$"], [])
    assert outcome(Plan([shell])) == -signal.SIGKILL


# ---- the parent-side plan, the sibling


def test_the_child_waits_for_its_parent(pipe: tuple[int, int]) -> None:
    import threading

    ready, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    seen = []

    def parent() -> None:
        seen.append((os.read(ready[0], 1), child.struct.pid))
        os.write(go[1], b"g")

    plan = Plan(
        [p.write(Slot("ready"), "r"), p.wait_for_parent(Slot("go")), p.write(Slot("out"), "on")], ["ready", "go", "out"]
    )
    with Spawn(plan) as child:
        thread = threading.Thread(target=parent)
        thread.start()
        pid = child.start("0", {"ready": ready[1], "go": go[0], "out": pipe[1]})
        thread.join()
        assert child.wait() == 0
    assert seen == [(b"r", pid)]
    assert os.read(pipe[0], 8) == b"on"
    for fd in (*ready, *go):
        os.close(fd)


@pytest.mark.parametrize("answer", [b"x", b""])
def test_a_child_that_is_refused_or_forgotten_goes_on_no_further(answer: bytes) -> None:
    ready, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    os.write(go[1], answer)
    steps = [p.close(Slot("unused")), p.write(Slot("ready"), "r"), p.wait_for_parent(Slot("go")), TRUE]
    go_write = os.dup(go[1])
    os.close(go[1])
    plan = Plan(steps, ["ready", "go", "unused"])
    if not answer:
        os.close(go_write)
        go_write = os.dup(go[0])
    with pytest.raises(StepError) as caught:
        outcome(plan, ready=ready[1], go=go[0], unused=go_write)
    assert caught.value.errno == errno.ECANCELED
    for fd in (*ready, go[0], go_write):
        os.close(fd)


def test_a_sibling_walks_the_rest_and_is_a_child_of_the_caller(pipe: tuple[int, int]) -> None:
    """Needed to join a pid namespace: unshare or setns of it holds for children alone."""
    out = Slot("out")
    shell = p.execve(["/bin/sh"], ["sh", "-c", "echo $$"], [])
    plan = Plan([p.unshare("CLONE_NEWPID"), p.fork_sibling(), p.dup3(out, 1), shell], ["out"])
    with Spawn(plan) as child:
        pid = child.start("0", {"out": pipe[1]})
        assert child.wait() == 0
    assert os.read(pipe[0], 16) == b"1\n"
    assert pid == child.pid
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # neither of the two is left


def test_a_sibling_that_fails_is_reported() -> None:
    with pytest.raises(StepError, match=r'^chdir\("/no"\): '):
        outcome(Plan([p.fork_sibling(), p.chdir("/no"), TRUE]))
    with pytest.raises(StepError, match=r"killed in it by signal 9\)$"):
        outcome(Plan([p.fork_sibling(), p.call("setsid"), deadly(signal.SIGKILL), TRUE]))


# ---- opcodes of more than one call


def test_signals_are_reset(pipe: tuple[int, int]) -> None:
    grep = p.execve(["/bin/grep", "/usr/bin/grep"], ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], [])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        text = output([p.reset_signals(1 << (signal.SIGHUP - 1)), grep], pipe)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    assert text == b"SigBlk:\t0000000000000001\nSigIgn:\t0000000000000000\n"


def test_capabilities_are_dropped_from_the_bounding_set(pipe: tuple[int, int]) -> None:
    grep = p.execve(["/bin/grep", "/usr/bin/grep"], ["grep", "-E", "^Cap(Bnd|Eff)", "/proc/self/status"], [])
    keep = 0x21
    text = output([p.capbset_drop_all_but(keep), p.capset(keep, keep, 0), grep], pipe).decode()
    assert [int(line.split()[1], 16) for line in text.splitlines()] == [keep, keep]


def test_chdir_refuses_a_place_outside_the_root(tmp_path: Path) -> None:
    """CVE-2024-21626: a descriptor of a directory outside leads there through /proc/self/fd."""
    (tmp_path / "proc").mkdir()
    proc = p.mount("proc", str(tmp_path / "proc"), "proc")
    enter = [p.call("chroot", str(tmp_path)), p.call("chdir", "/")]
    plan = Plan([p.mount(None, "/", None, "MS_REC|MS_PRIVATE"), proc, *enter, p.chdir("/proc/self/fd/9")], ["dir"])
    steps = [p.dup3(Slot("dir"), 9), *plan.steps]
    fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with pytest.raises(StepError) as caught:
            outcome(Plan(steps, ["dir"]), "CLONE_NEWNS", dir=fd)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EXDEV


def test_a_descriptor_is_handed_over() -> None:
    import socket

    ours, theirs = socket.socketpair()
    fd = Slot("file")
    steps = [p.openat("/etc/passwd", "O_RDONLY|O_CLOEXEC", fd), p.send_fd(Slot("socket"), fd)]
    with ours, theirs:
        assert outcome(Plan(steps, ["socket"]), socket=theirs.fileno()) == 0
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        assert os.readlink(f"/proc/self/fd/{fds[0]}") == "/etc/passwd"
        os.close(fds[0])


def test_the_timeline_of_a_plan_of_one_s_own() -> None:
    with Spawn(Plan([p.call("setsid"), TRUE])) as child:
        child.start("CLONE_NEWUTS")
        child.wait()
        events = list(child.timeline())
    assert [(e.side, e.call.partition("(")[0]) for e in events] == [
        ("parent", "clone3"),
        ("child", "setsid"),
        ("child", "execve"),
    ]
    assert all(0 < e.start <= e.end for e in events)
    assert events[1].result == child.pid


@pytest.mark.parametrize("argument", ["x" * (128 << 10), "x" * ((128 << 10) - 1)])
def test_arguments_up_to_the_kernel_s_limit(argument: str) -> None:
    plan = Plan([p.execve(["/bin/true", "/usr/bin/true"], ["true", argument], [])])
    if len(argument) == 128 << 10:
        with pytest.raises(StepError) as caught:
            outcome(plan)
        assert caught.value.errno == errno.E2BIG
    else:
        assert outcome(plan) == 0


def test_many_arguments() -> None:
    count = 5000
    script = 'test $# = "$1" && test "$2" = ""'
    args = ["sh", "-c", script, "sh", str(count), *[""] * (count - 1)]
    assert outcome(Plan([p.execve(["/bin/sh"], args, [f"V{n}=x" for n in range(count)])])) == 0


def test_the_examples_of_the_modules_run() -> None:
    code = """
from minicontainer import plan as p
from minicontainer.plan.spawn import Spawn
with Spawn(p.Plan([p.sethostname("box"), p.execve(["/bin/hostname", "/bin/uname"], ["uname", "-n"][:1], [])])) as child:
    child.start("CLONE_NEWUTS")
    print(child.wait())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


def test_a_time_namespace_is_no_flag_of_a_clone_that_shares_memory() -> None:
    """Kernels before 6.3 would leave its clock page in our memory: clock_gettime would spin, once it is gone."""
    with Spawn(p.Plan([p.call("getpid")])) as child, pytest.raises(SpecError, match="CLONE_NEWTIME"):
        child.start("CLONE_NEWTIME")
    with Spawn(p.Plan([p.unshare("CLONE_NEWTIME")])) as child:
        child.start()
        assert child.wait() == 0
