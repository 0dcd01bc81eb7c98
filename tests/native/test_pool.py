"""Pools: what a program gets in a container that waited for it is what it gets from ``run``; a container serves one
program; and nothing is left of a pool, however it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from box import copy_of, until
from signalling import NO_CHILD, interrupting
from supplies import Run

import minicontainer as mc
from minicontainer.container.cgroup import orphans
from minicontainer.errors import Error
from minicontainer.native import LIBEXEC, lib
from minicontainer.pool.stock import Stock
from minicontainer.records import replace

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("cgroup2")]

# What a program can see of itself and around it.
LOOK = r"""
cd /proc/self
for f in status limits environ cgroup mountinfo oom_score_adj coredump_filter timens_offsets uid_map gid_map setgroups \
        loginuid sessionid personality comm cmdline; do
    echo "== $f"; tr '\0' '\n' < $f
done
echo "== stat"; awk '{print $1 == $5, $1 == $6, $7, $8, $18, $19}' /proc/$$/stat
for fd in 0 1 2 3 4 5 6 7 8 9; do [ -e fd/$fd ] && echo fd $fd; done
echo "== rest"; umask; hostname; pwd; id; ls -l / /dev | awk '{print $1, $3, $4, $NF}'
ls -l ns | sed 's/.* //' | cut -d : -f 1
"""
CHANGES = re.compile(
    r"^(State|Vm|Rss|Hugetlb|voluntary|nonvoluntary|SigQ|THP|untag|Pid:|Tgid:|Ngid:|PPid:|NS\w+:).*\n",
    re.MULTILINE,
)


def seen(text: str) -> str:
    """What LOOK has printed, without ids of the container, of mounts and devices."""
    text = CHANGES.sub("", text)
    text = re.sub(r"\b[0-9a-f]{12}(-[0-9a-f]{8})?\b", "ID", text)
    text = re.sub(r"^\d+ \d+ (\d+:\d+) ", "M ", text, flags=re.MULTILINE)
    text = re.sub(r"(lower|upper|work)dir=\S+|\bidmapped\b", "", text)
    return re.sub(r"\w{3} +\d+ \d\d:\d\d", "TIME", text)


PROFILE = {  # forbids calls of csrc/helpers/ready.c, which then loads the filter itself
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["recvmsg", "prctl", "sendto", "vmsplice", "seccomp"], "action": "SCMP_ACT_ERRNO"}],
}
SPECS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "user": {"user": "1000:1000", "group_add": ["7"], "cap_add": ["NET_RAW"]},
    "new-privileges": {"no_new_privileges": False, "user": "1000"},
    "privileged": {"privileged": True},
    "host-ids": {"userns": "host"},
    "keep-id": {"userns": "keep-id"},
    "unconfined": {"seccomp": "unconfined"},
    "limits": {"ulimits": ["nofile=64:128", "as=268435456", "fsize=1048576", "core=0"], "umask": 0o77},
    "read-only": {"read_only": True, "no_new_suid": True},
    "ephemeral": {"ephemeral": True, "mounts": [mc.Mount("/tmp", type="tmpfs")]},
    "host-namespaces": {"pid": "host", "ipc": "host", "uts": "host", "network": "host"},
    "names": {"hostname": "box", "env": {"A": "1", "PATH": "/bin"}, "cwd": "/tmp", "oom_score_adj": 500},
    "parent": {"die_with_parent": True},
}


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE))
    return str(path)


@pytest.fixture
def spec(rootfs: Path) -> mc.Spec:
    return mc.Spec(["true"], rootfs=str(rootfs))


@pytest.fixture
def pool(spec: mc.Spec) -> Iterator[mc.Pool]:
    """A pool that is filled by calls."""
    with mc.Pool(spec, size=2, thread=False) as pool:
        yield pool


def pids(pool: mc.Pool) -> list[int]:
    return [waiting.child.spawn.pid for waiting in stock(pool)._waiting]


def stock(pool: mc.Pool) -> Stock:
    return pool._stock


# ---- as run


@pytest.mark.parametrize("name", SPECS)
def test_a_program_sees_what_it_sees_of_run(rootfs: Path, name: str) -> None:
    spec = mc.Spec(["sh", "-c", LOOK], rootfs=str(rootfs), **SPECS[name])
    keywords: Any = {"stdin": mc.DEVNULL, "capture_output": True, "text": True}
    expected = mc.run(spec, **keywords)
    assert "Seccomp" in expected.stdout
    with mc.Pool(spec, size=1, thread=False) as pool:
        found = pool.run(**keywords)
    assert found.timeline.events[0].phase == "request"
    assert seen(found.stdout).splitlines() == seen(expected.stdout).splitlines()
    assert seen(found.stderr) == seen(expected.stderr)


@pytest.mark.parametrize("more", [{}, {"no_new_privileges": False, "user": "1000"}, {"ulimits": ["nofile=64:128"]}])
def test_a_profile_that_forbids_what_the_helper_does(rootfs: Path, profile: str, more: dict[str, Any]) -> None:
    spec = mc.Spec(["sh", "-c", LOOK], rootfs=str(rootfs), seccomp=profile, **more)
    keywords: Any = {"stdin": mc.DEVNULL, "capture_output": True, "text": True}
    expected = mc.run(spec, **keywords)
    with mc.Pool(spec, size=1, thread=False) as pool:
        found = pool.run(**keywords)
        with pytest.raises(mc.ProgramError, match="not found in the container"):
            pool.run(["/no"])
    assert seen(found.stdout).splitlines() == seen(expected.stdout).splitlines()
    assert seen(found.stderr) == seen(expected.stderr)
    assert "Seccomp:\t2" in found.stdout


WRONG: dict[str, dict[str, Any]] = {
    "missing": {"args": ["nothing"]},
    "missing path": {"args": ["/bin/nothing"]},
    "directory": {"args": ["/etc"]},
    "no program": {"args": ["/etc/passwd"]},
    "empty": {"args": [""]},
    "long": {"args": ["true", "x" * (128 << 10)]},
    "too many": {"args": ["true", *["x" * 1000] * 7000]},
    "more than any exec takes": {"args": ["true", *["x" * 1000] * 10000]},
    "directory missing": {"cwd": "/nowhere"},
    "directory outside": {"cwd": "/proc/self/fd/0"},
    "relative directory": {"cwd": "tmp"},
    "environment": {"env": {"": "x"}},
    "path": {"env": {"PATH": "/sbin/nowhere"}},
    "NUL": {"args": ["true", "a\0b"]},
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_run(pool: mc.Pool, spec: mc.Spec, name: str) -> None:
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(Error) as expected:
            mc.run(**{"args": ["true"], "rootfs": spec.rootfs, "stdin": outside, **WRONG[name]})
        with pytest.raises(Error) as found:
            pool.run(stdin=outside, **WRONG[name])
    finally:
        os.close(outside)
    assert type(found.value) is type(expected.value)
    assert str(found.value) == str(expected.value)
    assert pool.run().returncode == 0


def test_arguments_as_long_as_the_kernel_takes(pool: mc.Pool, spec: mc.Spec) -> None:
    args = ["sh", "-c", "echo $# ${#1}; env | wc -c", "sh", *["x" * 100_000] * 15]
    env = {f"V{n}": "y" * 50_000 for n in range(5)}
    expected = mc.run(args, rootfs=spec.rootfs, env=env, capture_output=True)
    assert expected.stdout.startswith(b"15 100000\n2")
    assert pool.run(args, env=env, capture_output=True).stdout == expected.stdout


def test_requests_about_as_long_as_the_room_that_the_helper_has(rootfs: Path) -> None:
    """For strings and pointers; a longer request is in memory of its own."""
    spec = mc.Spec(["sh"], rootfs=str(rootfs))
    with mc.Pool(spec, size=8) as pool:
        for length in [*range(lib.MC_HANDOVER_ROOM - 400, lib.MC_HANDOVER_ROOM + 40, 8), 131_000]:
            args = ["sh", "-c", "echo ${#1} $2; env", "sh", "x" * length, "last"]
            found = pool.run(args, env={"LAST": "1"}, capture_output=True, text=True).stdout
            assert found.startswith(f"{length} last\n")
            assert "LAST=1\n" in found
        most = lib.MC_HANDOVER_ROOM // 12  # of 4 bytes, and 8 for the pointer
        for count in range(most - 40, most + 8, 2):
            found = pool.run(["sh", "-c", "echo $# $1", "sh", *["abc"] * count], capture_output=True, text=True).stdout
            assert found == f"{count} abc\n"


def test_the_probe_finds_the_same(rootfs: Path, tmp_path: Path) -> None:
    """Each control that it measures (csrc/probe), in a container that waited."""
    root = copy_of(rootfs, tmp_path / "root")
    shutil.copy(f"{LIBEXEC}/probe", root / "probe")
    spec = mc.Spec(["/probe"], rootfs=str(root))
    keywords: Any = {"stdin": mc.DEVNULL, "capture_output": True, "text": True}
    expected = mc.run(spec, **keywords)
    assert expected.stdout.count("\tpass\t") > 50
    with mc.Pool(spec, size=1, thread=False) as pool:
        found = pool.run(**keywords)
    assert found.stdout.splitlines() == expected.stdout.splitlines()


def test_others_of_a_shared_pid_namespace_cannot_trace_what_waits(rootfs: Path) -> None:
    """What belongs to a process that is not dumpable is root's (proc(5)): they could take its socket."""
    spec = mc.Spec(["sleep", "1000"], rootfs=str(rootfs), user="1000:1000", userns="host", pid="host")
    with mc.Pool(spec, size=1, thread=False) as pool:
        (pid,) = pids(pool)
        until(lambda: Path(f"/proc/{pid}/comm").read_text() == "ready\n")
        assert "Uid:\t1000\t" in Path(f"/proc/{pid}/status").read_text()
        until(lambda: os.stat(f"/proc/{pid}/fd").st_uid == 0)
        with pool.Popen() as process:
            assert process.pid == pid
            assert os.stat(f"/proc/{pid}/fd").st_uid == 1000
            process.kill()


def test_the_program_has_no_descriptor_but_its_streams(pool: mc.Pool) -> None:
    found = pool.run(["ls", "/proc/self/fd"], stdin=mc.DEVNULL, capture_output=True, text=True)
    assert found.stdout.split() == ["0", "1", "2", "3"]  # 3: of the listing


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_standard_descriptors_closed_in_the_caller(rootfs: Path, closed: tuple[int, ...]) -> None:
    script = "for i in 0 1 2; do stat -Lc %F.%t.%T /proc/self/fd/$i; done"
    code = f"""
with mc.Pool(mc.Spec(["true"], rootfs=sys.argv[1]), size=1, thread=False) as pool:
    for fd in {closed}:
        os.close(fd)
    pool.fill()
    result = pool.run(["sh", "-c", {script!r}], stdout=mc.PIPE)
first, _, third = result.stdout.decode().splitlines()
assert first == "character special file.1.3"
assert third == ("character special file.1.3" if 2 in {closed} else "fifo.0.0")
"""
    caller(rootfs, code, stdin=subprocess.DEVNULL)


def test_each_container_serves_one_program(rootfs: Path) -> None:
    spec = mc.Spec(["sh", "-c", "cat /tmp/mark; echo mark > /tmp/mark; hostname"], rootfs=str(rootfs), ephemeral=True)
    with mc.Pool(spec, size=3) as pool:
        found = [pool.run(capture_output=True, text=True) for _ in range(10)]
    assert len({result.stdout for result in found}) == 10
    assert all("can't open" in result.stderr for result in found)


def test_the_timeline_begins_with_the_request_and_tells_the_exec(pool: mc.Pool) -> None:
    timeline = pool.run(["sh", "-c", "exit 0"]).timeline
    assert [event.call.partition("(")[0] for event in timeline][:4] == ["sendmsg", "chdir", "execve", "waitid"]
    assert "clone" not in {event.phase for event in timeline}
    exec_ = timeline[2]
    assert timeline[0].start < exec_.start < exec_.end < timeline[3].end


def test_the_walltime_counts_from_the_request(pool: mc.Pool) -> None:
    before = stock(pool)._waiting[0].child.spawn.struct.end_ns
    result = pool.run()
    assert result.timeline[0].start > before
    assert result.usage.walltime * 1e9 < result.timeline[-1].end - before


def test_a_timeout_ends_the_container(pool: mc.Pool) -> None:
    with pytest.raises(mc.TimeoutExpired) as caught:
        pool.run(["sh", "-c", "echo out; sleep 1000 & sleep 1000"], timeout=0.2, capture_output=True)
    assert caught.value.stdout == b"out\n"
    assert caught.value.usage.walltime > 0  # type: ignore[attr-defined]


def test_popen_of_a_pool(pool: mc.Pool) -> None:
    with pool.Popen(["cat"], stdin=mc.PIPE, stdout=mc.PIPE, text=True) as process:
        assert process.cgroup.procs == [process.pid]
        assert process.communicate("text")[0] == "text"
    assert (process.returncode, process.reason) == (0, "exited")
    with pool.Popen(["sleep", "1000"]) as sleeping:
        sleeping.kill()
        assert sleeping.wait() == -signal.SIGKILL


# ---- what is refused


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tty": True}, "tty"),
        ({"init": True, "name": "box"}, "init, name"),
        ({"network": "bridge"}, "network"),
        ({"network": "container:other"}, "network"),
        ({"executable": "/bin/true"}, "executable"),
    ],
)
def test_what_a_pool_cannot_have_is_refused_by_name(rootfs: Path, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(mc.SpecError, match=f"^{named} .*containers of a pool"):
        mc.Pool(mc.Spec(["true"], rootfs=str(rootfs), **fields))


@pytest.mark.parametrize("size", [0, -1, 5000, True, "8"])
def test_sizes(spec: mc.Spec, size: Any) -> None:
    with pytest.raises(mc.SpecError, match=r"^size "):
        mc.Pool(spec, size=size)


def test_a_pool_is_of_a_spec(rootfs: Path) -> None:
    with pytest.raises(TypeError):
        mc.Pool(["true"])  # type: ignore[arg-type]


def test_a_stream_that_is_no_descriptor(pool: mc.Pool) -> None:
    with pytest.raises(OSError, match=r"^sendmsg\(SCM_RIGHTS\): Bad file descriptor") as caught:
        pool.run(stdout=9999)
    assert isinstance(caught.value, Error)
    assert pool.run().returncode == 0


def test_other_fields_than_env_and_cwd_are_refused(pool: mc.Pool) -> None:
    with pytest.raises(TypeError, match="'rootfs' is the same in all containers of a pool"):
        pool.run(rootfs="/")  # type: ignore[call-overload]
    assert len(pool) == 1


def test_a_pool_that_cannot_be_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(mc.SpecError, match="no such directory"):
        mc.Pool(mc.Spec(["true"], rootfs=str(tmp_path / "nowhere")))


# ---- filling


def test_fill_makes_as_many_as_its_size(pool: mc.Pool) -> None:
    assert len(pool) == 1
    pool.fill()
    assert len(pool) == 2
    pool.fill()
    assert len(pool) == 2
    assert repr(pool) == "<minicontainer.Pool: 2 of 2 wait>"


def test_the_thread_keeps_it_full(spec: mc.Spec) -> None:
    with mc.Pool(spec, size=4) as pool:
        until(lambda: len(pool) == 4)
        for _ in range(10):
            assert pool.run().returncode == 0
        until(lambda: len(pool) == 4)
        assert pool.failure is None


def test_an_empty_pool_makes_one_for_the_request(pool: mc.Pool) -> None:
    results = [pool.run() for _ in range(3)]
    assert len(pool) == 0
    assert all(result.timeline[0].phase == "request" for result in results)


def test_many_threads(spec: mc.Spec) -> None:
    with mc.Pool(spec, size=4) as pool, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: pool.run(["echo", str(n)], capture_output=True), range(60)))
    assert [result.stdout for result in results] == [b"%d\n" % n for n in range(60)]


def test_a_container_that_was_killed_is_not_handed_out(pool: mc.Pool) -> None:
    pool.fill()
    for pid in pids(pool):
        os.kill(pid, signal.SIGKILL)
    assert pool.run(["echo", "hi"], capture_output=True).stdout == b"hi\n"
    pool.fill()
    assert len(pool) == 2


def test_the_thread_replaces_what_was_killed(spec: mc.Spec) -> None:
    with mc.Pool(spec, size=2) as pool:
        until(lambda: len(pool) == 2)
        first = pids(pool)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(pool) == 2 and first[0] not in pids(pool))


def test_containers_that_end_with_each_request_are_not_tried_for_ever(
    pool: mc.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a memory limit ends them: an ordinary start then tells what happens."""
    real, killed = stock(pool)._take, []

    def take() -> Any:
        waiting = real()
        killed.append(waiting.child.spawn.pid)
        os.kill(killed[-1], signal.SIGSTOP)
        os.kill(killed[-1], signal.SIGKILL)
        until(waiting.has_ended)
        return waiting

    monkeypatch.setattr(stock(pool), "_take", take)
    result = pool.run(["echo", "hi"], capture_output=True)
    assert result.stdout == b"hi\n"
    assert len(killed) == 3
    assert "clone" in {event.phase for event in result.timeline}


def test_a_pool_that_the_host_has_no_room_for(rootfs: Path) -> None:
    """It says so, and leaves room for others."""
    code = """
import resource
spec = mc.Spec(["true"], rootfs=sys.argv[1])
mc.run(spec)
resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))
with mc.Pool(spec, size=60, thread=False) as pool:
    for _ in range(3):
        try:
            pool.fill()
        except OSError as e:
            print(type(e).__name__, e)
        assert type(pool.failure).__name__ == "StepError"
        assert mc.run(spec).returncode == pool.run().returncode == 0
with mc.Pool(spec, size=60) as pool:
    while not pool.failure:
        pass
    for _ in range(10):
        assert pool.run().returncode == 0
    print(pool.failure)
"""
    lines = caller(rootfs, code).splitlines()
    assert len(lines) == 4
    assert not [line for line in lines if "Too many open files" not in line]


@pytest.mark.needs("cgroup-pids")
def test_a_pool_and_the_processes_that_the_host_permits(rootfs: Path) -> None:
    code = """
from minicontainer.container.cgroup import orphans, placement
from minicontainer.linux.cgroup import Cgroup
spec = mc.Spec(["true"], rootfs=sys.argv[1])
with placement.place("c0de00000000", {"pids": ("pids", 1)}).group as group:
    parent = Cgroup.open(os.path.dirname(group.path))
parent.pids_max = 6
try:
    with mc.Pool(spec, size=30, thread=False) as pool:
        try:
            pool.fill()
        except BlockingIOError as e:
            print(e)
        assert 0 < len(pool) < 6
        assert mc.run(spec).returncode == pool.run().returncode == 0
finally:
    parent.pids_max = None
"""
    assert "Resource temporarily unavailable" in caller(rootfs, code)


@pytest.mark.needs("cgroup-memory")
def test_arguments_that_a_memory_limit_does_not_permit(rootfs: Path) -> None:
    """What takes them ends as it would without a pool."""
    spec = mc.Spec(["true"], rootfs=str(rootfs), limits=mc.Limits(memory="3M", memory_swap="3M"))
    args = ["true", *["x" * 100_000] * 15]
    with mc.Pool(spec, size=2) as pool:
        found, expected = (_outcome(run, args) for run in (pool.run, lambda args: mc.run(replace(spec, args=args))))
        assert found == expected
        assert pool.run().returncode == 0


def _outcome(run: Callable[[list[str]], Any], args: list[str]) -> object:
    try:
        result = run(args)
    except Error as e:
        return type(e), str(e)
    return result.returncode, result.reason


@pytest.mark.needs("cgroup-memory")
def test_what_waits_takes_next_to_no_memory(rootfs: Path) -> None:
    spec = mc.Spec(["true"], rootfs=str(rootfs))
    with mc.Pool(spec, size=1, thread=False) as pool:
        found, expected = pool.run().usage.memory_peak, mc.run(spec).usage.memory_peak
    assert found is not None
    assert expected is not None
    assert found < expected + (512 << 10)


@pytest.mark.needs("user", "userns")
def test_a_pool_of_an_ordinary_user(as_user: Run, rootfs: Path) -> None:
    code = """
import os, sys
import minicontainer as mc
spec = mc.Spec(["sh", "-c", "id -u; cat; exit 3"], rootfs=sys.argv[1])
with mc.Pool(spec, size=3) as pool:
    pids = [waiting.child.spawn.pid for waiting in pool._stock._waiting]
    os.kill(pids[0], 9)
    for _ in range(10):
        found = pool.run(input=b"in", capture_output=True)
        assert (found.stdout, found.returncode) == (b"0\\nin", 3), found
    try:
        pool.run(["nothing"])
    except mc.ProgramError as e:
        print(e)
    expected = mc.run(spec, input=b"in", capture_output=True)
    assert (found.stdout, found.returncode) == (expected.stdout, expected.returncode)
"""
    done = as_user([sys.executable, "-c", code, rootfs])
    assert (done.returncode, done.stderr) == (0, "")
    assert "not found in the container" in done.stdout


# ---- the end


def test_a_closed_pool(spec: mc.Spec) -> None:
    pool = mc.Pool(spec)
    running = pool.Popen(["cat"], stdin=mc.PIPE, stdout=mc.PIPE)
    with pool:
        pass
    pool.close()
    assert len(pool) == 0
    for call in (pool.run, pool.fill, pool.Popen):
        with pytest.raises(Error, match=r"^pool: is closed$"):
            call()
    assert running.communicate(b"on")[0] == b"on"  # what was handed a program goes on
    running.close()


def test_a_close_that_was_interrupted_can_be_called_again(spec: mc.Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = mc.Pool(spec, size=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.close()
    assert len(pool) > 0
    pool.close()
    assert len(pool) == 0


@pytest.mark.parametrize("before", ["start_thread", "thread", "made"])
def test_a_pool_whose_creation_is_interrupted_leaves_nothing(
    spec: mc.Spec, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    places: dict[str, tuple[type, str]] = {
        "start_thread": (Stock, "start_thread"),
        "thread": (threading.Thread, "start"),
        "made": (Stock, "_add"),
    }
    monkeypatch.setattr(*places[before], interrupted)
    with pytest.raises(KeyboardInterrupt):
        mc.Pool(spec)  # the fixture no_leaks counts what is left


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_pool_that_is_not_closed_ends_with_its_last_reference(spec: mc.Spec) -> None:
    pool = mc.Pool(spec)
    before = pids(pool)
    assert before
    del pool  # the fixture no_leaks counts what is left


def caller(rootfs: Path, code: str, **options: Any) -> str:
    """The output of a process that uses the library."""
    program = f"import os, signal, sys, threading, time\nimport minicontainer as mc\n{code}"
    options.setdefault("stdin", subprocess.DEVNULL)
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-c", program, str(rootfs)], capture_output=True, text=True, timeout=120,
        check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_pool_that_is_open_at_the_interpreter_s_end(rootfs: Path) -> None:
    caller(rootfs, "pool = mc.Pool(mc.Spec(['true'], rootfs=sys.argv[1]))\npool.run()")


def test_sigchld_ignored_is_an_error_that_says_so(rootfs: Path) -> None:
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with mc.Pool(mc.Spec(["true"], rootfs=sys.argv[1]), size=2) as pool:
    for _ in range(3):
        try:
            pool.run()
        except OSError as e:
            print(e)
"""
    assert caller(rootfs, code).count("another wait took its status: SIGCHLD is ignored") == 3


def test_an_exception_from_a_signal_handler_leaves_no_container(rootfs: Path) -> None:
    code = f"""
with mc.Pool(mc.Spec(["sleep", "0.001"], rootfs=sys.argv[1]), size=3) as pool:
    pool.run()
{textwrap.indent(interrupting("pool.run(capture_output=True)", 0.004), "    ")}
    assert pool.run().returncode == 0
{NO_CHILD}"""
    assert caller(rootfs, code) == "no child is left\n"


OWNER = """
import os, sys, time
import minicontainer as mc
pool = mc.Pool(mc.Spec(["true"], rootfs=sys.argv[1]), size=3)
while len(pool) < 3:
    time.sleep(0.001)
"""


@contextmanager
def owner(rootfs: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a full pool, which is killed at the end."""
    program = [sys.executable, "-c", OWNER + code, str(rootfs)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
            orphans.clean()


def waiting_of(process: subprocess.Popen[str]) -> list[int]:
    """The waiting containers that the process has made."""
    found = []
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            with suppress(FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text() == "ready\n":
                    found.append(int(pid))
    return sorted(found)


def test_containers_end_with_their_owner(rootfs: Path) -> None:
    with owner(rootfs, "print('full', flush=True); time.sleep(1000)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        until(lambda: len(waiting_of(process)) == 3)
        left = waiting_of(process)
        process.kill()
        process.wait()
        until(lambda: not any(map(_runs, left)))
        assert len(orphans.clean()) >= 3
        assert orphans.find() == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_forked_process_does_not_keep_them_alive_nor_use_them(rootfs: Path) -> None:
    code = """
def say(what):
    os.write(1, f"{what}\\n".encode())  # at once: two processes write
if (child := os.fork()) == 0:
    for call in (pool.run, pool.fill):
        try:
            call()
        except mc.Error as e:
            say(e)
    pool.close()
    del pool
    own = mc.Pool(mc.Spec(["true"], rootfs=sys.argv[1]), size=1)
    status = own.run().returncode
    own.close()
    say(status)
    time.sleep(1000)
say(f"{child} {pool.run().returncode}")
time.sleep(1000)
"""
    with owner(rootfs, code) as process:
        assert process.stdout is not None
        lines = sorted(process.stdout.readline() for _ in range(4))
        child = int(next(line for line in lines if re.fullmatch(r"\d+ 0\n", line)).split()[0])
        assert sum(f"belongs to process {process.pid}" in line for line in lines) == 2
        until(lambda: len(waiting_of(process)) == 3)
        left = waiting_of(process)
        process.kill()
        process.wait()
        until(lambda: not any(map(_runs, left)))
        assert _runs(child)
        os.kill(child, signal.SIGKILL)
        until(lambda: not _runs(child))


def test_forks_at_any_moment_keep_none_alive(rootfs: Path) -> None:
    """While the thread makes containers, whose sockets it opens."""
    code = """
for _ in range(40):
    pool.run()
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(1000)
os.write(1, b"0\\n")
time.sleep(1000)
"""
    with owner(rootfs, code) as process:
        assert process.stdout is not None
        forked = [int(process.stdout.readline()) for _ in range(41)]
        until(lambda: len(waiting_of(process)) == 3)
        left = waiting_of(process)
        process.kill()
        process.wait()
        until(lambda: not any(map(_runs, left)))
        assert all(map(_runs, filter(None, forked)))
        for pid in filter(None, forked):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(_runs, filter(None, forked))))


def test_ends_at_random(tmp_path: Path) -> None:
    """kill -9 of owners, of waiting containers and of programs: one clean-up leaves nothing."""
    program = Path(__file__).parents[1] / "killing.py"
    done = subprocess.run(
        [sys.executable, str(program), "--pools", "20"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
