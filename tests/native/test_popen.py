"""What Popen adds to subprocess's: the whole container as one thing that can be looked at, stopped and ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import pytest

import minicontainer as mc
from minicontainer.linux.cgroup import Cgroup

pytestmark = pytest.mark.needs("root")

COUNT = "i=0; while :; do i=$((i+1)); echo $i; done"


def line(p: mc.Popen[bytes]) -> bytes:
    return bytes(cast("IO[bytes]", p.stdout).readline())


def until(condition: Callable[[], Any], timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def lives(pid: int) -> bool:
    """Whether it runs; an orphan that its new parent has not buried yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- pidfd


def test_the_pidfd_works_with_select(rootfs: Path) -> None:
    with mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE) as p:
        assert select.select([p.pidfd], [], [], 0.05)[0] == []
        assert p.stdin is not None
        p.stdin.close()
        assert select.select([p.pidfd], [], [], 10)[0] == [p.pidfd]
        assert p.returncode is None  # nobody has asked yet
        assert p.poll() == 0


def test_the_pidfd_is_close_on_exec_and_of_this_pid(rootfs: Path) -> None:
    with mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE) as p:
        assert not os.get_inheritable(p.pidfd)
        info = Path(f"/proc/self/fdinfo/{p.pidfd}").read_text(encoding="ascii")
        assert f"Pid:\t{p.pid}\n" in info
        comm = Path(f"/proc/{p.pid}/comm")
        assert until(lambda: comm.read_text(encoding="ascii") == "cat\n")  # set after the vfork's end (Linux fs/exec.c)


def test_many_are_waited_for_at_once(rootfs: Path) -> None:
    running = [mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE) for _ in range(3)]
    poller = select.poll()
    for p in running:
        poller.register(p.pidfd, select.POLLIN)
    for p in (running[1], running[2], running[0]):
        assert poller.poll(20) == []
        assert p.stdin is not None
        p.stdin.close()
        assert [fd for fd, _ in poller.poll(20_000)] == [p.pidfd]
        poller.unregister(p.pidfd)
        assert p.poll() == 0
    for p in running:
        p.close()
        assert p.pidfd == -1


# ---- while it runs


def test_usage_grows_while_it_runs(rootfs: Path) -> None:
    with mc.Popen(["/bin/sh", "-c", "while :; do :; done"], rootfs=rootfs) as p:
        first = p.usage()
        assert first.cputime is not None
        assert until(lambda: (p.usage().cputime or 0) > (first.cputime or 0) + 0.05)
        assert p.usage().walltime > first.walltime
        p.kill()
        p.wait()
        assert p.usage() == p.usage()  # it has ended: the figures are final


@pytest.mark.needs("cgroup2")
def test_freeze_and_thaw(rootfs: Path) -> None:
    with mc.Popen(["/bin/sh", "-c", f"({COUNT}) | cat"], rootfs=rootfs, stdout=mc.PIPE) as p:
        line(p)
        p.freeze()
        assert p.stdout is not None
        os.set_blocking(p.stdout.fileno(), False)
        while p.stdout.read(1 << 20):  # what was in the pipe
            pass
        time.sleep(0.2)
        assert not p.stdout.read(1)
        p.thaw()
        assert until(lambda: p.stdout is not None and p.stdout.read(1))
        p.kill()


@pytest.mark.needs("cgroup2")
def test_a_frozen_container_can_be_killed(rootfs: Path) -> None:
    with mc.Popen(["/bin/sleep", "60"], rootfs=rootfs) as p:
        p.freeze()
        p.kill()
        assert p.wait(timeout=60) == -signal.SIGKILL


@pytest.mark.needs("cgroup2")
def test_kill_ends_every_process(rootfs: Path) -> None:
    script = "(setsid sleep 67 &) ; (setsid sleep 68 &) ; echo up; exec sleep 69"
    with mc.Popen(["/bin/sh", "-c", script], rootfs=rootfs, pid="host", stdout=mc.PIPE) as p:
        line(p)
        assert until(lambda: len(p.cgroup.procs) == 3)
        members = p.cgroup.procs
        assert p.pid in members
        p.kill()
        assert p.wait() == -signal.SIGKILL
    assert until(lambda: not [pid for pid in members if lives(pid)])


@pytest.mark.needs("cgroup2")
def test_the_cgroup_is_there_as_long_as_the_container(rootfs: Path) -> None:
    with mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE) as p:
        path = p.cgroup.path
        assert p.cgroup.procs == [p.pid]
        assert os.path.isdir(path)
    assert p.cgroup is None
    assert not os.path.exists(path)
    for call in (p.freeze, p.thaw):
        with pytest.raises(mc.Error, match="the container has ended"):
            call()


def test_terminate_sends_the_stop_signal(rootfs: Path) -> None:
    script = "trap 'echo got usr1; exit 9' USR1; echo up; while :; do sleep 0.05; done"
    with mc.Popen(["/bin/sh", "-c", script], rootfs=rootfs, stop_signal="USR1", stdout=mc.PIPE) as p:
        line(p)
        p.terminate()
        assert p.wait(timeout=60) == 9
        assert line(p) == b"got usr1\n"


def test_an_exception_within_the_context_ends_the_container(rootfs: Path) -> None:
    with pytest.raises(KeyError), mc.Popen(["/bin/sleep", "60"], rootfs=rootfs) as p:
        raise KeyError
    assert p.returncode == -signal.SIGKILL


def test_who_drops_a_running_container_is_warned_and_lets_it_run(rootfs: Path) -> None:
    p = mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE, stdout=mc.PIPE)
    assert p.stdin is not None
    assert p.stdout is not None
    pid, cgroup, write, read = p.pid, p.cgroup, os.dup(p.stdin.fileno()), os.dup(p.stdout.fileno())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del p
        said = [(w.category, str(w.message)) for w in caught]
        caught.clear()  # a warning holds its source
    assert said == [(ResourceWarning, f"container {pid} is still running")]
    os.write(write, b"alive")
    assert os.read(read, 5) == b"alive"
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert until(lambda: not lives(pid))
    mc.run(["/bin/true"], rootfs=rootfs)
    assert not Path(f"/proc/{pid}").exists()
    assert cgroup is None or not os.path.exists(cgroup.path)


def test_those_that_were_dropped_are_reaped_by_the_next_start(rootfs: Path) -> None:
    """As subprocess's: neither zombies nor cgroups pile up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        born = []
        for _ in range(30):
            p = mc.Popen(["/bin/true"], rootfs=rootfs)
            born.append((p.pid, p.cgroup.path if p.cgroup else ""))
        del p
    assert until(lambda: not any(lives(pid) for pid, _ in born))
    mc.run(["/bin/true"], rootfs=rootfs)
    assert [pid for pid, _ in born if os.path.exists(f"/proc/{pid}")] == []
    assert [path for _, path in born if path and os.path.exists(path)] == []


def test_the_next_start_lets_a_dropped_one_run(rootfs: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        p = mc.Popen(["/bin/sleep", "60"], rootfs=rootfs)
        pid = p.pid
        del p
    mc.run(["/bin/true"], rootfs=rootfs)
    if (child := os.fork()) == 0:  # what the parent dropped is not the child's to bury
        mc.run(["/bin/true"], rootfs=rootfs)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert lives(pid)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not lives(pid))
    mc.run(["/bin/true"], rootfs=rootfs)
    assert not os.path.exists(f"/proc/{pid}")


def test_the_end_of_python_lets_a_dropped_one_run(rootfs: Path) -> None:
    code = """
import sys, minicontainer as mc
p = mc.Popen(["/bin/sleep", "60"], rootfs=sys.argv[1], stdout=mc.DEVNULL, stderr=mc.DEVNULL)
print(p.pid, p.cgroup and p.cgroup.path)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(rootfs)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    pid, cgroup = int(done.stdout.split()[0]), done.stdout.split()[1]
    assert lives(pid)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not lives(pid))
    if cgroup != "None":
        Cgroup.open(cgroup).remove(kill=True)


def test_repr_and_id(rootfs: Path) -> None:
    with mc.Popen(["/bin/true"], rootfs=rootfs) as p:
        assert len(p.id) == 12
        p.wait()
        assert repr(p) == "<minicontainer.Popen: returncode: 0 args: ['/bin/true']>"


def test_the_timeline_grows_to_the_end(rootfs: Path) -> None:
    with mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE) as p:
        early = len(p.timeline)
        p.communicate()
        calls = [(e.side, e.call.partition("(")[0]) for e in p.timeline]
    assert early < len(calls)
    for wanted in (("parent", "clone3"), ("child", "pivot_root"), ("child", "execve"), ("parent", "waitid")):
        assert wanted in calls
    assert [c for c in calls if c[0] == "child"][-1] == ("child", "execve")


# ---- threads on one container


def test_many_threads_wait_for_one_container(rootfs: Path) -> None:
    with mc.Popen(["/bin/sleep", "0.3"], rootfs=rootfs) as p:
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(p.wait())) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(20)
        assert codes == [0] * 8


def test_kill_from_another_thread_while_communicating(rootfs: Path) -> None:
    with mc.Popen(["/bin/sh", "-c", "echo up; exec sleep 60"], rootfs=rootfs, stdout=mc.PIPE) as p:
        timer = threading.Timer(0.2, p.kill)
        timer.start()
        assert p.communicate(timeout=60) == (b"up\n", None)  # type: ignore[comparison-overlap]
        assert p.returncode == -signal.SIGKILL
        timer.join()


def test_everything_at_once_on_one_container(rootfs: Path) -> None:
    """No method may fail, hang, or touch another container's descriptor while others use or end it."""
    for _ in range(15):
        errors: list[BaseException] = []
        with mc.Popen(["/bin/sleep", "0.02"], rootfs=rootfs) as p:

            def use(call: Callable[[], Any], errors: list[BaseException] = errors) -> None:
                try:
                    for _ in range(30):
                        call()
                except BaseException as e:
                    errors.append(e)

            calls = (
                p.poll,
                p.usage,
                p.kill,
                lambda: p.send_signal(0),
                lambda: p.reason,
                p.wait,
                lambda: len(p.timeline),
            )
            threads = [threading.Thread(target=use, args=(call,)) for call in calls]
            for t in threads:
                t.start()
            for t in threads:
                t.join(20)
        assert not errors
        assert p.returncode in (0, -signal.SIGKILL)


# ---- --init


def test_init_is_process_1_and_the_program_leads_a_group(rootfs: Path) -> None:
    script = "echo $$; readlink /proc/1/exe; cut -d' ' -f5 /proc/$$/stat"
    r = mc.run(["/bin/sh", "-c", script], rootfs=rootfs, init=True, capture_output=True, text=True)
    pid, exe, group = r.stdout.splitlines()
    assert pid == group == "2"
    assert "memfd:" in exe


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)]
)
def test_init_ends_as_the_program_did(rootfs: Path, script: str, code: int) -> None:
    assert mc.run(["/bin/sh", "-c", script], rootfs=rootfs, init=True).returncode == code


def test_init_reaps_orphans(rootfs: Path) -> None:
    script = """
        i=0; while [ $i -lt 20 ]; do (true & ) ; i=$((i+1)); done; sleep 0.2
        grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"""
    r = mc.run(["/bin/sh", "-c", script], rootfs=rootfs, init=True, capture_output=True, text=True)
    assert r.stdout.strip() == "0"


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "WINCH", "URG"])
def test_init_forwards(rootfs: Path, name: str) -> None:
    script = f"trap 'echo {name}; exit 3' {name}; echo up; while :; do sleep 0.02; done"
    with mc.Popen(["/bin/sh", "-c", script], rootfs=rootfs, init=True, stdout=mc.PIPE) as p:
        line(p)
        p.send_signal(getattr(signal, f"SIG{name}"))
        assert p.wait(timeout=60) == 3
        assert line(p) == f"{name}\n".encode()


def test_init_lets_a_default_action_end_the_program(rootfs: Path) -> None:
    """As process 1 the program itself would ignore it."""
    with mc.Popen(["/bin/sh", "-c", "echo up; exec sleep 60"], rootfs=rootfs, init=True, stdout=mc.PIPE) as p:
        line(p)
        p.terminate()
        assert p.wait(timeout=60) == 128 + signal.SIGTERM


def test_init_gives_the_program_a_clean_mask_and_no_descriptor(rootfs: Path) -> None:
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l"
    r = mc.run(["/bin/sh", "-c", script], rootfs=rootfs, init=True, capture_output=True, text=True)
    blocked, ignored, count = r.stdout.splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert int(count) == 4


def test_init_passes_arguments_and_environment(rootfs: Path) -> None:
    args = ["sh", "-c", 'echo "$0|$1|$A|$#"', "zero", "one two", "", "é"]
    r = mc.run(args, rootfs=rootfs, init=True, env={"A": "b c"}, capture_output=True, text=True)
    assert r.stdout == "zero|one two|b c|3\n"


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("/no/such", 127, "program /no/such: not found in the container"),
        ("nowhere", 127, "program nowhere: not found in the container (in no directory of its PATH)"),
        ("/etc", 126, "program /etc: is a directory"),
        ("/etc/passwd", 126, "program /etc/passwd: is not executable (chmod +x)"),
    ],
)
def test_init_reports_why_the_program_did_not_start(rootfs: Path, program: str, code: int, said: str) -> None:
    for with_init in (True, False):  # the same words
        with pytest.raises(mc.ProgramError) as caught:
            mc.run([program], rootfs=rootfs, init=with_init)
        assert (caught.value.exit_code, str(caught.value)) == (code, said)


def test_init_is_small() -> None:
    """It is written to a memfd at each start."""
    import minicontainer

    program = Path(minicontainer.__file__).parent / "libexec/init"
    assert program.stat().st_size < 16 << 10
