"""Safe from many threads at once: no leak, no cross-talk, no deadlock, also beside forks of other threads."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import minicontainer as mc
from minicontainer import plan as p
from minicontainer.linux.cgroup import Cgroup
from minicontainer.plan import Slot
from minicontainer.plan.spawn import ParentPlan, ParentRun, Spawn

pytestmark = pytest.mark.needs("root")


def echo(rootfs: Path, word: str, **fields: Any) -> str:
    """What a container says that is given a word on each of its ways in."""
    script = 'read line; echo "$0 $WORD $(hostname) $line"; echo "$0" >&2; exit 7'
    r = mc.run(
        ["/bin/sh", "-c", script, word],
        rootfs=rootfs,
        env={"WORD": word},
        hostname=word,
        input=f"{word}\n",
        capture_output=True,
        text=True,
        **fields,
    )
    assert (r.returncode, r.stderr) == (7, f"{word}\n")
    return str(r.stdout)


def test_eight_threads_with_fifty_containers_each(rootfs: Path) -> None:
    def work(thread: int) -> list[str]:
        return [echo(rootfs, f"t{thread}n{n}") for n in range(50)]

    echo(rootfs, "first")  # what is kept for the next container is there now
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    for thread, lines in enumerate(results):
        assert lines == [" ".join([f"t{thread}n{n}"] * 4) + "\n" for n in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_spec_from_many_threads(rootfs: Path) -> None:
    spec = mc.Spec(("/bin/echo", "x"), rootfs=str(rootfs))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: mc.run(spec, capture_output=True).stdout, range(100)))
    assert set(results) == {b"x\n"}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"userns": "private"}, marks=pytest.mark.needs("userns")),
        {"init": True},
        {"tty": True},
        {"ephemeral": True},
    ],
    ids=str,
)
def test_with_a_parent_side_plan_and_descriptors_of_its_own(rootfs: Path, fields: dict[str, Any]) -> None:
    def work(_: int) -> int:
        return mc.run(["/bin/sh", "-c", "exit 5"], rootfs=rootfs, **fields).returncode

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(work, range(48))) == {5}


def test_failures_among_successes(rootfs: Path) -> None:
    def work(n: int) -> Any:
        if n % 3 == 0:
            with pytest.raises(mc.ProgramError, match=f"/no/such/{n}"):
                mc.run([f"/no/such/{n}"], rootfs=rootfs, capture_output=True)
            return "missing"
        if n % 3 == 1:
            with pytest.raises(mc.TimeoutExpired):
                mc.run(["/bin/sleep", "60"], rootfs=rootfs, timeout=0.05, capture_output=True)
            return "timeout"
        return mc.run(["/bin/echo", str(n)], rootfs=rootfs, capture_output=True).stdout

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(60)))
    assert found == [("missing", "timeout", f"{n}\n".encode())[n % 3] for n in range(60)]


def test_beside_forks_and_subprocesses_of_other_threads(rootfs: Path) -> None:
    """A fork copies whatever is locked at that moment: the forked process must be able to start containers too."""
    mc.run(["/bin/true"], rootfs=rootfs)  # what is imported now needs no import lock in the forked process
    stop, errors = threading.Event(), []

    def guard(call: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                call()
        except BaseException as e:
            errors.append(e)

    def forks() -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.alarm(60)  # a deadlock ends here
                code = mc.run(["/bin/true"], rootfs=rootfs).returncode
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0

    def spawns() -> None:
        done = subprocess.run(["/bin/echo", "x"], stdout=subprocess.PIPE, check=True)
        assert done.stdout == b"x\n"

    def containers() -> None:
        assert echo(rootfs, "w").startswith("w w w w")

    threads = [threading.Thread(target=guard, args=(call,)) for call in (forks, spawns, containers, containers)]
    for t in threads:
        t.start()
    time.sleep(3)
    stop.set()
    for t in threads:
        t.join(60)
    assert not any(t.is_alive() for t in threads)
    assert not errors


def test_in_a_thread_with_a_small_stack(rootfs: Path) -> None:
    code = """
import sys, threading
import minicontainer as mc
threading.stack_size(256 << 10)
found = []
t = threading.Thread(target=lambda: found.append(mc.run(["/bin/echo", "x"], rootfs=sys.argv[1], capture_output=True)))
t.start()
t.join()
print(found[0].stdout)
"""
    done = subprocess.run([sys.executable, "-c", code, str(rootfs)], capture_output=True, text=True, check=True)
    assert done.stdout == "b'x\\n'\n"


def test_a_container_outlives_the_thread_that_started_it(rootfs: Path) -> None:
    """A parent-death signal would follow the creating thread: it is not asked for by default."""
    started: list[mc.Popen[bytes]] = []
    thread = threading.Thread(
        target=lambda: started.append(mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE, stdout=mc.PIPE))
    )
    thread.start()
    thread.join()
    with started[0] as p:
        time.sleep(0.1)
        assert p.poll() is None
        assert p.communicate(b"still here") == (b"still here", None)  # type: ignore[comparison-overlap]


def test_dumpable_is_put_back_after_overlapping_starts(rootfs: Path) -> None:
    """A change of ids in a child that shares our memory makes us undumpable for that while."""
    code = """
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
import minicontainer as mc
prctl = ctypes.CDLL(None).prctl
def work(n):
    return mc.run(["/bin/true"], rootfs=sys.argv[1], user=str(1000 + n)).returncode
with ThreadPoolExecutor(8) as pool:
    assert set(pool.map(work, range(80))) == {0}
print(prctl(3))
"""
    done = subprocess.run([sys.executable, "-c", code, str(rootfs)], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_signals_while_threads_start_containers(rootfs: Path) -> None:
    """A storm of signals with a Python handler: blocked around the clone, none is lost, none runs in a child."""
    code = """
import os, signal, sys, threading
import minicontainer as mc
seen, me = [], os.getpid()
signal.signal(signal.SIGUSR1, lambda *a: seen.append(os.getpid()))
stop = threading.Event()
def storm():
    while not stop.wait(0.0005):
        os.kill(me, signal.SIGUSR1)
def work(out):
    for n in range(25):
        out.append(mc.run(["/bin/echo", str(n)], rootfs=sys.argv[1], capture_output=True).stdout)
outs = [[] for _ in range(4)]
threads = [threading.Thread(target=work, args=(o,)) for o in outs]
sender = threading.Thread(target=storm)
sender.start()
for t in threads: t.start()
work(mine := [])
for t in threads: t.join()
stop.set()
sender.join()
assert all(o == [b"%d\\n" % n for n in range(25)] for o in [*outs, mine])
assert set(seen) == {me} and len(seen) > 10
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", code, str(rootfs)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_kills_at_any_moment(rootfs: Path) -> None:
    """Random kills from another thread: run ends, says what happened, and leaves nothing."""
    rng = random.Random(3)
    for _ in range(20):
        with mc.Popen(["/bin/sh", "-c", "sleep 0.03; sleep 0.03"], rootfs=rootfs, stdout=mc.PIPE) as p:
            timer = threading.Timer(rng.uniform(0, 0.08), p.kill)
            timer.start()
            p.communicate(timeout=120)
            timer.join()
        assert (p.returncode, p.reason) in ((0, "exited"), (-signal.SIGKILL, "signal"))


def test_a_clone_that_fails_does_not_wait_for_who_was_forked_meanwhile() -> None:
    """Such a process has the pipes of the parent-side plan too, and keeps them open."""
    child = p.Plan([p.wait_for_parent(Slot("go"))], ["ready", "go", "go-write"])
    template = ParentPlan(p.Plan([p.await_child()], ["pid", "answer"]), child)
    stop = threading.Event()
    forked: list[int] = []

    def forks() -> None:
        while not stop.is_set() and len(forked) < 100:
            pid = os.fork()
            if pid == 0:
                time.sleep(100)
                os._exit(0)
            forked.append(pid)

    thread = threading.Thread(target=forks)
    thread.start()
    try:
        for _ in range(300):
            with Spawn(child) as spawn:
                parent = ParentRun(template, {"pid": -1, "answer": -1})
                assert spawn.clone(int(p.const("CLONE_NEWNS|CLONE_FS")), {}, parent=parent) == -errno.EINVAL
    finally:
        stop.set()
        thread.join()
        for pid in forked:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---- die_with_parent


def test_who_is_to_die_with_the_process_outlives_the_thread_that_started_it(rootfs: Path) -> None:
    started: list[mc.Popen[bytes]] = []
    worker = threading.Thread(
        target=lambda: started.append(mc.Popen(["/bin/cat"], rootfs=rootfs, stdin=mc.PIPE, die_with_parent=True))
    )
    worker.start()
    worker.join()
    with started[0] as popen:
        assert not select.select([popen.pidfd], [], [], 0.3)[0]
        assert popen.communicate(b"") == (None, None)  # type: ignore[comparison-overlap]
        assert popen.returncode == 0
    assert threading.active_count() == 1


def test_its_thread_has_what_its_caller_s_thread_has(rootfs: Path) -> None:
    """The processors that it may use, for one."""
    seen: list[str] = []

    def work() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        args = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]
        seen.extend(
            mc.run(args, rootfs=rootfs, die_with_parent=is_so, capture_output=True, text=True).stdout
            for is_so in (True, False)
        )

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen[0] == seen[1] != ""


def test_a_start_that_fails_there_is_the_caller_s_error(rootfs: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(mc.run, ["/no/such"], rootfs=rootfs, die_with_parent=True)
        with pytest.raises(mc.ProgramError, match="not found in the container"):
            failing.result()


@pytest.mark.parametrize("where", ["thread", "here"])
def test_who_is_to_die_with_the_process_does_so(rootfs: Path, where: str) -> None:
    code = """
import os, sys, threading, minicontainer as mc
def start():
    p = mc.Popen(["/bin/sleep", "60"], rootfs=sys.argv[1], die_with_parent=True)
    print(p.pid, p.cgroup and p.cgroup.path, flush=True)
if sys.argv[2] == "thread":
    worker = threading.Thread(target=start)
    worker.start()
    worker.join()
else:
    start()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(rootfs), where], check=False, capture_output=True, timeout=60
    )
    pid, cgroup = done.stdout.decode().split()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if cgroup != "None":
        Cgroup.open(cgroup).remove(kill=True)
