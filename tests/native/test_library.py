"""``mc.run`` and ``mc.Popen`` beside subprocess: the same small programs, the same names, the same outcome.

Each case of the table is a function of a runner that starts a program of busybox; it is called once with subprocess on
the host and once with minicontainer, and must give the same value.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signalling import NO_CHILD, interrupting

import minicontainer as mc
from minicontainer.container import compiler
from minicontainer.plan.builder import LikePlan
from minicontainer.records import replace

pytestmark = pytest.mark.needs("root")

SH = "/bin/sh"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runner:
    """``run`` and ``Popen`` of either side."""

    def __init__(self, run: Callable[..., Any], popen: Callable[..., Any]) -> None:
        self.run, self.Popen = run, popen

    def sh(self, script: str, **keywords: Any) -> Any:
        return self.run([SH, "-c", script], **keywords)


def raised(call: Callable[[], Any], *kinds: type[BaseException]) -> dict[str, Any]:
    """The type of the exception and those of its attributes that subprocess documents."""
    with pytest.raises(kinds) as caught:
        call()
    names = ("returncode", "cmd", "output", "stdout", "stderr", "timeout")
    found = {n: getattr(caught.value, n) for n in names if hasattr(caught.value, n)}
    if found.get("timeout"):
        found["timeout"] = round(found["timeout"], 1)  # subprocess tells what was left of it
    return {"type": type(caught.value), **found}


def completed(result: Any) -> tuple[Any, ...]:
    return result.args, result.returncode, result.stdout, result.stderr


SOON = 2.0  # seconds in which a program has begun, also where each processor has ten others to run
TABLE: dict[str, Callable[[Runner, Path], Any]] = {}


def case(function: Callable[[Runner, Path], Any]) -> Callable[[Runner, Path], Any]:
    TABLE[function.__name__] = function
    return function


@case
def nothing_captured(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("exit 3"))


@case
def capture_of_bytes(r: Runner, tmp: Path) -> Any:
    return completed(r.sh(r"printf 'out\377\r\n'; printf err >&2", capture_output=True))


@case
def capture_of_text(r: Runner, tmp: Path) -> Any:
    return completed(r.sh(r"printf 'a\r\nb\rc\n\303\251'", capture_output=True, text=True))


@case
def input_of_bytes(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("cat; echo end", input=b"abc\0def\n", stdout=subprocess.PIPE))


@case
def input_of_text(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("wc -c", input="é\n", text=True, capture_output=True))


@case
def input_that_is_larger_than_a_pipe_both_ways(r: Runner, tmp: Path) -> Any:
    data = os.urandom(1 << 20)
    result = r.sh("cat; cat /dev/null >&2", input=data, capture_output=True)
    return result.stdout == data, result.stderr


@case
def input_that_nobody_reads(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("exec <&-; echo done", input=b"x" * (1 << 20), capture_output=True))[1:]


@case
def empty_input_is_end_of_file(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("cat", input=b"", capture_output=True)), completed(r.sh("cat", input="", text=True))


@case
def text_as_input_of_bytes(r: Runner, tmp: Path) -> Any:
    return raised(lambda: r.sh("cat", input="abc"), TypeError)["type"]


@case
def encoding_and_errors(r: Runner, tmp: Path) -> Any:
    strict = raised(lambda: r.sh(r"printf '\377'", stdout=subprocess.PIPE, encoding="ascii"), UnicodeDecodeError)[
        "type"
    ]
    replaced = r.sh(r"printf 'a\377'", stdout=subprocess.PIPE, encoding="ascii", errors="replace").stdout
    return strict, replaced, r.sh("cat", input="ÿ", encoding="latin-1", stdout=subprocess.PIPE).stdout


@case
def unknown_encoding(r: Runner, tmp: Path) -> Any:
    return raised(lambda: r.sh("exec sleep 9", encoding="klingon", stdout=subprocess.PIPE), LookupError)["type"]


@case
def stderr_to_stdout(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("echo a; echo b >&2; echo c", stdout=subprocess.PIPE, stderr=subprocess.STDOUT))


@case
def devnull(r: Runner, tmp: Path) -> Any:
    script = "cat; echo lost; echo lost >&2; echo $? > /dev/null"
    return completed(r.sh(script, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


@case
def files_and_descriptors(r: Runner, tmp: Path) -> Any:
    (tmp / "in").write_bytes(b"from a file\n")
    with open(tmp / "in", "rb") as source, open(tmp / "out", "wb") as sink:
        fd = os.open(tmp / "err", os.O_WRONLY | os.O_CREAT)
        try:
            code = r.sh("cat; echo fd >&2", stdin=source, stdout=sink, stderr=fd).returncode
        finally:
            os.close(fd)
    return code, (tmp / "out").read_bytes(), (tmp / "err").read_bytes()


@case
def one_file_for_both(r: Runner, tmp: Path) -> Any:
    with open(tmp / "both", "wb") as sink:
        r.sh("echo a; echo b >&2; echo c", stdout=sink, stderr=sink)
    return (tmp / "both").read_bytes()


@case
def check_raises_with_both_streams(r: Runner, tmp: Path) -> Any:
    return raised(
        lambda: r.sh("echo out; echo err >&2; exit 7", check=True, capture_output=True, text=True),
        subprocess.CalledProcessError,
    )


@case
def check_of_success(r: Runner, tmp: Path) -> Any:
    result = r.sh("true", check=True)
    return result.returncode, result.check_returncode()


@case
def check_returncode_of_a_signal(r: Runner, tmp: Path) -> Any:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        r.run([SH, "-c", "sh -c 'kill -TERM $$'; exit $?"], check=True)
    return caught.value.returncode


@case
def cwd(r: Runner, tmp: Path) -> Any:
    return r.sh("pwd", cwd="/etc", stdout=subprocess.PIPE).stdout, r.sh("pwd", cwd=Path("/"), stdout=-1).stdout


@case
def env(r: Runner, tmp: Path) -> Any:
    result = r.sh('echo "$A|$B"', env={"A": "1 2", "B": "é=", "PATH": PATH}, stdout=subprocess.PIPE, text=True)
    return result.stdout


@case
def timeout_not_reached(r: Runner, tmp: Path) -> Any:
    return completed(r.sh("echo fast", timeout=120, capture_output=True))


@case
def timeout_with_what_was_captured(r: Runner, tmp: Path) -> Any:
    script = "echo out; echo err >&2; exec sleep 60"
    return raised(lambda: r.sh(script, timeout=SOON, capture_output=True, text=True), subprocess.TimeoutExpired)


@case
def timeout_without_streams(r: Runner, tmp: Path) -> Any:
    return raised(lambda: r.sh("exec sleep 60", timeout=0.2), subprocess.TimeoutExpired)


@case
def timeout_zero_and_below(r: Runner, tmp: Path) -> Any:
    return [raised(lambda t=t: r.sh("exec sleep 60", timeout=t), subprocess.TimeoutExpired)["type"] for t in (0, -1)]  # type: ignore[misc]


@case
def arguments_that_exclude_each_other(r: Runner, tmp: Path) -> Any:
    return [
        raised(lambda: r.sh("true", capture_output=True, stdout=subprocess.PIPE), ValueError)["type"],
        raised(lambda: r.sh("true", input=b"", stdin=subprocess.DEVNULL), ValueError)["type"],
    ]


@case
def unknown_keyword(r: Runner, tmp: Path) -> Any:
    return raised(lambda: r.sh("true", colour="red"), TypeError)["type"]


@case
def popen_poll_and_wait(r: Runner, tmp: Path) -> Any:
    with r.Popen([SH, "-c", "read x; exit 5"], stdin=subprocess.PIPE) as p:
        before = p.poll()
        slow = raised(lambda: p.wait(timeout=0.05), subprocess.TimeoutExpired)
        p.stdin.write(b"go\n")
        p.stdin.close()
        return before, slow, p.wait(), p.poll(), p.returncode, p.wait(timeout=0), p.args


@case
def popen_talk_line_by_line(r: Runner, tmp: Path) -> Any:
    script = 'while read x; do echo "got $x"; done'
    with r.Popen([SH, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        answers = []
        for word in ("a", "b"):
            p.stdin.write(word + "\n")
            p.stdin.flush()
            answers.append(p.stdout.readline())
    return answers, p.returncode


@case
def popen_communicate_again_after_a_timeout(r: Runner, tmp: Path) -> Any:
    script = "echo first; sleep 4; cat; echo err >&2"
    with r.Popen([SH, "-c", script], stdin=-1, stdout=-1, stderr=-1) as p:
        early = raised(lambda: p.communicate(b"input", timeout=SOON), subprocess.TimeoutExpired)
        refused = raised(lambda: p.communicate(b"more"), ValueError)["type"]
        return early, refused, p.communicate(timeout=120), p.returncode


@case
def popen_communicate_after_a_write(r: Runner, tmp: Path) -> Any:
    with r.Popen([SH, "-c", "cat"], stdin=-1, stdout=-1) as p:
        p.stdin.write(b"first ")
        return p.communicate(b"second")


@case
def popen_communicate_without_pipes(r: Runner, tmp: Path) -> Any:
    with r.Popen([SH, "-c", "exit 2"]) as p:
        return p.communicate(), p.returncode


@case
def popen_context_closes_the_streams(r: Runner, tmp: Path) -> Any:
    with r.Popen([SH, "-c", "cat >&2"], stdin=-1, stdout=-1, stderr=-1) as p:
        pass
    return p.returncode, p.stdin.closed, p.stdout.closed, p.stderr.closed


@case
def popen_kill(r: Runner, tmp: Path) -> Any:
    with r.Popen([SH, "-c", "echo up; exec sleep 60"], stdout=-1) as p:
        p.stdout.readline()
        p.kill()
        code = p.wait()
        p.kill()
        p.terminate()
        p.send_signal(signal.SIGINT)
        return code, p.poll()


@case
def popen_attributes(r: Runner, tmp: Path) -> Any:
    with r.Popen([SH, "-c", "exit 0"], stdout=-1) as p:
        return p.pid > 1, p.stdin, p.stderr, p.args, p.stdout.read()


@case
def program_not_found(r: Runner, tmp: Path) -> Any:
    with pytest.raises(OSError) as caught:
        r.run(["/no/such/program"])
    return caught.value.errno


@case
def program_not_executable(r: Runner, tmp: Path) -> Any:
    with pytest.raises(OSError) as caught:
        r.run(["/etc/passwd"])
    return caught.value.errno


@pytest.mark.parametrize("name", TABLE)
def test_as_subprocess(name: str, rootfs: Path, tmp_path: Path) -> None:
    def run(args: Any, **keywords: Any) -> Any:
        return mc.run(args, rootfs=rootfs, **keywords)

    def popen(args: Any, **keywords: Any) -> Any:
        return mc.Popen(args, rootfs=rootfs, **keywords)

    places = [tmp_path / name for name in ("host", "container", "pool")]
    for place in places:
        place.mkdir()
    expected = TABLE[name](Runner(subprocess.run, subprocess.Popen), places[0])
    assert TABLE[name](Runner(run, popen), places[1]) == expected
    with mc.Pool(mc.Spec([SH], rootfs=str(rootfs)), size=1, thread=False) as pool:
        assert TABLE[name](Runner(pool.run, pool.Popen), places[2]) == expected


# ---- what subprocess has not


def test_signals_are_as_the_kernel_makes_them(rootfs: Path) -> None:
    """Nothing is ignored or blocked: Python ignores SIGPIPE, and whoever started us may have ignored more."""
    r = mc.run(["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], rootfs=rootfs, capture_output=True, text=True)
    assert r.stdout == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"


def test_the_example_of_the_readme(rootfs: Path) -> None:
    r = mc.run(["/bin/echo", "hi"], rootfs=rootfs, capture_output=True, text=True, timeout=60)
    assert (r.returncode, r.stdout, r.stderr, r.reason) == (0, "hi\n", "", "exited")
    assert r.usage.walltime > 0
    assert r.usage.memory_peak is None or r.usage.memory_peak > 0
    assert [e.call for e in r.timeline if e.call.startswith("execve(")] != []
    with mc.Popen(["/bin/sh"], rootfs=rootfs, stdin=mc.PIPE, stdout=mc.PIPE) as p:
        assert p.communicate(b"echo in $$\n") == (b"in 1\n", None)  # type: ignore[comparison-overlap]


@pytest.mark.needs("cgroup-memory", "cgroup-pids", "cgroup-cpu")
def test_the_example_with_limits(rootfs: Path) -> None:
    limits = mc.Limits(memory="64M", pids=32, cpus=0.5)
    r = mc.run(["/bin/echo", "hi"], rootfs=rootfs, capture_output=True, text=True, timeout=60, limits=limits)
    assert (r.returncode, r.stdout, r.reason) == (0, "hi\n", "exited")
    usage = r.usage
    assert usage.memory_peak is not None
    assert 0 < usage.memory_peak < 64 << 20
    assert usage.cputime is not None
    assert usage.pids_peak is None or usage.pids_peak >= 1  # Linux 6.1


@pytest.mark.needs("cgroup-memory")
def test_out_of_memory(rootfs: Path) -> None:
    hungry = ["/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"]
    r = mc.run(hungry, rootfs=rootfs, limits=mc.Limits(memory="16M", memory_swap="16M"), timeout=60)
    assert (r.returncode, r.reason) == (-signal.SIGKILL, "oom")
    command = ["/bin/sh", "-c", f"({hungry[2]}); exit 3"]
    r = mc.run(command, rootfs=rootfs, limits=mc.Limits(memory="16M", memory_swap="16M", oom_group=False), timeout=60)
    assert (r.returncode, r.reason) == (3, "exited")


def test_reason_and_return_code_of_a_signal(rootfs: Path) -> None:
    with mc.Popen(["/bin/sleep", "60"], rootfs=rootfs) as p:
        assert p.reason == ""
        p.kill()
        assert p.wait() == -signal.SIGKILL
    assert p.reason == "signal"


def test_reason_of_a_failure_is_exited(rootfs: Path) -> None:
    assert mc.run(["/bin/false"], rootfs=rootfs).reason == "exited"


def test_usage_of_work_done(rootfs: Path) -> None:
    r = mc.run(["/bin/sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"], rootfs=rootfs)
    assert r.usage.cputime is not None
    assert r.usage.cputime_user is not None
    assert r.usage.cputime_system is not None
    assert 0.01 < r.usage.cputime <= r.usage.walltime * (os.cpu_count() or 1) + 0.1
    assert r.usage.cputime == pytest.approx(r.usage.cputime_user + r.usage.cputime_system, abs=0.001)


def test_the_caller_s_memory_is_not_counted_as_the_container_s(rootfs: Path) -> None:
    held = bytearray(300 << 20)
    held[::4096] = b"x" * len(range(0, len(held), 4096))
    r = mc.run(["/bin/true"], rootfs=rootfs)
    assert r.usage.max_rss is None  # unknown: exec counts the shared memory as the child's
    del held


def test_a_result_as_data(rootfs: Path) -> None:
    r = mc.run(["/bin/sh", "-c", "exit 4"], rootfs=rootfs)
    data = r.meta()
    assert (data["exit_status"], data["exit_signal"], data["reason"]) == (4, None, "exited")
    assert data["usage"]["walltime"] == r.usage.walltime
    assert data["args"] == ["/bin/sh", "-c", "exit 4"]


def test_a_timeout_carries_usage_and_timeline(rootfs: Path) -> None:
    with pytest.raises(mc.TimeoutExpired) as caught:
        mc.run(["/bin/sleep", "60"], rootfs=rootfs, timeout=0.2)
    error: Any = caught.value
    assert error.usage.walltime >= 0.2
    assert len(error.timeline) > 10


def test_a_timeout_ends_what_was_daemonised(rootfs: Path) -> None:
    """A grandchild in a session of its own, its parents gone, that ignores signals."""
    script = "(setsid sh -c \"trap '' TERM HUP INT; echo up; sleep 61 & sleep 62\" &) ; sleep 63"
    with pytest.raises(mc.TimeoutExpired) as caught:
        mc.run(["/bin/sh", "-c", script], rootfs=rootfs, timeout=SOON, capture_output=True)
    assert caught.value.stdout == b"up\n"
    assert not running("sleep", "61")


@pytest.mark.needs("cgroup2")
def test_a_timeout_ends_all_of_a_container_without_a_pid_namespace(rootfs: Path) -> None:
    script = "(setsid sleep 64 &) ; sleep 65"
    with pytest.raises(mc.TimeoutExpired):
        mc.run(["/bin/sh", "-c", script], rootfs=rootfs, pid="host", timeout=SOON)
    assert not running("sleep", "64")


def running(*args: str) -> bool:
    """Whether some process of the host has these arguments."""
    wanted = b"\0".join(a.encode() for a in args) + b"\0"
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().endswith(wanted):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def test_what_is_left_when_process_1_ends_is_killed(rootfs: Path) -> None:
    r = mc.run(["/bin/sh", "-c", "(setsid sleep 66 &) ; exit 3"], rootfs=rootfs, pid="host")
    assert r.returncode == 3
    assert not running("sleep", "66")


def test_a_spec_and_changes_to_it(rootfs: Path) -> None:
    spec = mc.Spec(("/bin/hostname",), rootfs=str(rootfs), hostname="one")
    assert mc.run(spec, capture_output=True).stdout == b"one\n"
    assert mc.run(spec, capture_output=True, text=True, hostname="two").stdout == "two\n"
    assert mc.run(spec, capture_output=True).stdout == b"one\n"


def test_a_spec_is_compiled_once(rootfs: Path) -> None:
    from minicontainer.container.compilation import compile_spec

    spec = mc.Spec(("/bin/true",), rootfs=str(rootfs))
    mc.run(spec)
    plan = compile_spec(spec)[1]
    mc.run(spec)
    assert compile_spec(spec)[1] is plan


def test_a_command_never_seen_before_compiles_nothing(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mc.run(["/bin/true"], rootfs=rootfs)
    monkeypatch.setattr(compiler, "compile", lambda *_: pytest.fail("compiled again"))
    kept: list[Any] = []
    for number in range(300):
        spec = mc.Spec(["sh", "-c", 'echo "$0 $A $(pwd) $(hostname)"', str(number)], rootfs=str(rootfs))
        kept.append(replace(spec, env={"A": f"a{number}"}, cwd=("/", "/tmp")[number % 2], hostname=f"h{number}"))
    assert len({id(spec.family) for spec in kept}) == 1
    for number in (0, 1, 299):
        shown = mc.run(kept[number], capture_output=True, text=True).stdout
        assert shown == f"{number} a{number} {('/', '/tmp')[number % 2]} h{number}\n"
    assert mc.run(["echo", "x"], rootfs=rootfs, capture_output=True, limits={}).stdout == b"x\n"


def test_many_commands_leave_no_plans(rootfs: Path) -> None:
    """Whoever keeps their specs and results keeps no encoded plan of each."""
    specs = [mc.Spec(["echo", str(number)], rootfs=str(rootfs)) for number in range(30)]
    results = [mc.run(spec, capture_output=True) for spec in specs]
    gc.collect()
    plans = [thing for thing in gc.get_objects() if isinstance(thing, LikePlan)]
    assert sum(plan.__dict__["_encoded"] is not None for plan in plans) <= 5
    assert [result.stdout for result in results] == [b"%d\n" % number for number in range(30)]
    assert f'"echo", "{29}"' in results[29].timeline.format()
    assert all(result.usage.walltime > 0 for result in results)


def test_no_limits_is_as_none_given(rootfs: Path) -> None:
    assert mc.run(["/bin/true"], rootfs=rootfs, limits=mc.Limits()).returncode == 0


def test_environment_is_not_inherited(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    out = mc.run(["env"], rootfs=rootfs, capture_output=True, text=True, env={"A": "1"}).stdout
    assert sorted(line.partition("=")[0] for line in out.splitlines()) == ["A", "HOME", "HOSTNAME", "PATH"]


def test_errors_leave_nothing_behind(rootfs: Path) -> None:
    """The leak check of every test here is the assertion; these are the ways to fail."""
    for fields in (
        {"args": ["/no"], "stdin": mc.PIPE, "stdout": mc.PIPE},
        {"args": ["/bin/true"], "cwd": "/no/such"},
        {"args": ["/bin/true"], "stdout": mc.PIPE, "stderr": 10**6},
        {"args": ["/bin/true"], "stdout": mc.PIPE, "stderr": object()},
        {"args": ["/bin/true"], "stdin": mc.PIPE, "encoding": "klingon"},
        {"args": ["/bin/true"], "network": "ns:/etc/passwd"},
        {"args": ["/bin/true"], "user": "nobody-known"},
    ):
        with pytest.raises((mc.Error, OSError, TypeError, LookupError)):
            mc.Popen(rootfs=rootfs, **fields)


def test_input_is_checked_before_anything_is_started(rootfs: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'memory'"):
        mc.run(["/bin/true"], rootfs=rootfs, memory="1G")  # type: ignore[call-overload]
    with pytest.raises(mc.SpecError, match=r"args .*must be a sequence, as a list, not str"):
        mc.run("/bin/true", rootfs=rootfs)


# ---- what a run may not do to its caller

CALLER = """
import os, resource, signal, sys
import minicontainer as mc
def once(**keywords):
    return mc.run(["/bin/true"], rootfs=sys.argv[1], **keywords)
"""


def caller(rootfs: Path, code: str, *, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """A process of its own that uses the library."""
    import sys

    command = [sys.executable, "-c", CALLER + code, str(rootfs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **keywords)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_three_hundred_runs_leave_descriptors_and_memory_flat(rootfs: Path) -> None:
    code = """
def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096
spec = mc.Spec(("/bin/echo", "x"), rootfs=sys.argv[1])
for _ in range(60):
    mc.run(spec, capture_output=True)
fds, before = len(os.listdir("/proc/self/fd")), rss()
for _ in range(300):
    mc.run(spec, capture_output=True)
print(len(os.listdir("/proc/self/fd")) - fds, rss() - before)
"""
    more_fds, more_bytes = map(int, caller(rootfs, code).stdout.split())
    assert more_fds == 0
    assert more_bytes < 1 << 20


def test_a_large_caller_does_not_grow(rootfs: Path) -> None:
    """2 GiB touched: the child shares them, nothing is copied, and no page is lost or doubled."""
    code = """
import mmap
held = mmap.mmap(-1, 2 << 30)
for at in range(0, len(held), 4096):
    held[at] = 1
def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096
once()
before, faults = rss(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    once()
print(rss() - before, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""
    grown, faults = map(int, caller(rootfs, code).stdout.split())
    assert abs(grown) < 4 << 20
    assert faults < 20_000  # a fork would have cost half a million for one copy of the page tables alone


@pytest.mark.needs("userns")
def test_signal_mask_handlers_and_dumpable_stay(rootfs: Path) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None)
PR_GET_DUMPABLE = 3
def state():
    mask = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return mask, signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGPIPE), libc.prctl(PR_GET_DUMPABLE)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.signal(signal.SIGUSR1, lambda *a: None)
before = state()
once()
once(userns="private")
once(user="1000:1000")
with mc.Popen(["/bin/sleep", "5"], rootfs=sys.argv[1]) as p:
    once(pid=f"pid:{p.pid}", network=f"pid:{p.pid}")
    p.kill()
assert state() == before, (before, state())
assert before[3] == 1
print(os.readlink("/proc/self/exe") != "")
"""
    assert caller(rootfs, code).stdout == "True\n"


def test_an_undumpable_caller_stays_so(rootfs: Path) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None)
libc.prctl(4, 0)
once(user="1000")
print(libc.prctl(3))
"""
    assert caller(rootfs, code).stdout == "0\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("how", ["", "capture_output=True", "tty=True", "init=True"])
def test_standard_descriptors_closed_in_the_caller(
    rootfs: Path, tmp_path: Path, closed: tuple[int, ...], how: str
) -> None:
    """They are /dev/null inside, whatever has got their numbers meanwhile."""
    (tmp_path / "root").mkdir()
    script = (
        "for i in 0 1 2; do stat -Lc %F.%t.%T /proc/self/fd/$i; readlink /proc/self/fd/$i; done > /shared/seen;"
        "ls /proc/self/fd | wc -l >> /shared/seen"
    )
    code = f"""
for fd in {closed}:
    os.close(fd)
r = mc.run(["/bin/sh", "-c", {script!r}], rootfs=sys.argv[1], mounts=[mc.Mount("/shared", {str(tmp_path)!r})], {how})
sys.exit(r.returncode)
"""
    done = caller(rootfs, code, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    *streams, count = (tmp_path / "seen").read_text().splitlines()
    assert int(count) == 4  # the three, and that of the listing
    if how == "tty=True":
        assert streams[1::4] == ["/dev/pts/0", "/dev/pts/0"]
        return
    for number, seen in enumerate(streams[::2]):
        if number == 1:  # redirected to look
            continue
        if number == 2 and (2 not in closed or how == "capture_output=True"):
            assert seen.startswith("fifo.")
        else:
            assert seen == "character special file.1.3"  # null(4)


def test_sigchld_handler(rootfs: Path) -> None:
    code = """
seen = []
signal.signal(signal.SIGCHLD, lambda *a: seen.append(1))
assert [once().returncode for _ in range(5)] == [0] * 5
print(len(seen) >= 1)
"""
    assert caller(rootfs, code).stdout == "True\n"


def test_sigchld_ignored_is_an_error_that_says_so_and_leaves_nothing(rootfs: Path) -> None:
    """The kernel then throws the status away: it is not to be guessed."""
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(2):
    try:
        once()
    except OSError as e:
        print(e)
p = mc.Popen(["/bin/true"], rootfs=sys.argv[1])
try:
    p.wait()
except OSError:
    print(p.returncode, p.poll(), p.cgroup)
p.close()
try:
    mc.run(["/no"], rootfs=sys.argv[1])
except mc.ProgramError as e:
    print(e)
"""
    lines = caller(rootfs, code).stdout.splitlines()
    assert "No child processes (another wait took its status: SIGCHLD is ignored" in lines[0]
    assert lines[2:] == ["255 255 None", "program /no: not found in the container"]


def test_a_python_signal_handler_runs_during_wait(rootfs: Path) -> None:
    code = """
read, write = os.pipe()
signal.signal(signal.SIGALRM, lambda *a: os.write(write, b"x"))
signal.setitimer(signal.ITIMER_REAL, 0.2)
print(mc.run(["head", "-c", "1"], rootfs=sys.argv[1], stdin=read, timeout=60).returncode)
"""
    assert caller(rootfs, code).stdout == "x0\n"


def test_a_signal_handler_may_use_the_popen_that_is_waited_for(rootfs: Path) -> None:
    code = """
signal.signal(signal.SIGALRM, lambda *a: (p.poll(), p.usage(), p.kill()))
with mc.Popen(["/bin/sleep", "60"], rootfs=sys.argv[1]) as p:
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.001)
    print(p.wait())
    signal.setitimer(signal.ITIMER_REAL, 0)
"""
    assert caller(rootfs, code).stdout == "-9\n"


def test_an_exception_from_a_signal_handler_leaves_no_container(rootfs: Path) -> None:
    """At any moment of a run, Ctrl-C for one: 60 interrupted runs, then a good one, and no child is left."""
    call = 'mc.run(["/bin/sleep", "0.001"], rootfs=sys.argv[1], capture_output=True)'
    code = f"once()\n{interrupting(call, 0.006)}\nassert once().returncode == 0\n{NO_CHILD}"
    assert caller(rootfs, code).stdout == "no child is left\n"


@pytest.mark.parametrize("number", range(3))
def test_a_closed_stream_that_was_asked_for_is_named(rootfs: Path, number: int) -> None:
    name = ("stdin", "stdout", "stderr")[number]
    code = f"""
kept = os.dup({number})
os.close({number})
try:
    once({name}={number})
except OSError as error:
    said = str(error)
os.dup2(kept, {number})
print(said)
"""
    assert caller(rootfs, code).stdout == f"{name}: descriptor {number}: Bad file descriptor\n"


AT_EACH_LINE = """
class Interrupt(Exception):
    pass

def raise_at(number):
    left = [number]
    def trace(frame, event, _):
        if "minicontainer" not in frame.f_code.co_filename or frame.f_code.co_name == "__del__":
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise Interrupt
        return trace
    sys.settrace(trace)
    try:
        mc.run(["/bin/true"], rootfs=sys.argv[1])
    except Interrupt:
        return True
    finally:
        sys.settrace(None)
    return left[0] <= 0

streams = [os.fstat(fd)[:3] for fd in range(3)]
for number in range(1, 601):
    raised = raise_at(number)
    assert raised or number > 300, number
    assert [os.fstat(fd)[:3] for fd in range(3)] == streams, number
assert once().returncode == 0
"""


def test_an_exception_at_any_line_of_a_run_closes_no_stream_of_the_caller(rootfs: Path) -> None:
    warm = "for _ in range(3):  # until its plan is kept\n    once()\n"
    assert caller(rootfs, warm + AT_EACH_LINE + NO_CHILD).stdout == "no child is left\n"


# ---- max_output

PRINTS = "i=0; while [ $i -lt 200 ]; do echo 0123456789012345678901234567890123456789012345678; i=$((i+1)); done"


@pytest.mark.parametrize("limit", [0, 1, 100, 9_999, 10_000, 20_000, "1k"])
def test_max_output_bounds_what_is_kept_and_counts_the_rest(rootfs: Path, limit: int | str) -> None:
    bytes_ = 1024 if isinstance(limit, str) else limit
    r = mc.run([SH, "-c", f"{PRINTS}; ({PRINTS}) >&2"], rootfs=rootfs, capture_output=True, max_output=limit)
    for data, lost in ((r.stdout, r.stdout_lost), (r.stderr, r.stderr_lost)):
        assert (len(data), lost) == (min(bytes_, 10_000), max(0, 10_000 - bytes_))
    assert r.as_dict()["stdout_lost"] == r.stdout_lost


def test_max_output_of_text_cuts_no_character(rootfs: Path) -> None:
    r = mc.run(["printf", "aé\\r\\né"], rootfs=rootfs, capture_output=True, text=True, max_output=2)
    assert (r.stdout, r.stdout_lost) == ("a", 5)
    r = mc.run(["printf", "aé"], rootfs=rootfs, capture_output=True, text=True, max_output=3)
    assert (r.stdout, r.stdout_lost) == ("aé", 0)


def test_max_output_with_a_timeout_and_with_communicate(rootfs: Path) -> None:
    with pytest.raises(mc.TimeoutExpired) as caught:
        mc.run([SH, "-c", f"{PRINTS}; exec sleep 60"], rootfs=rootfs, stdout=mc.PIPE, max_output=10, timeout=1)
    assert caught.value.stdout == b"0123456789"
    assert caught.value.lost["stdout"] == 9_990  # type: ignore[attr-defined]
    with mc.Popen([SH, "-c", PRINTS], rootfs=rootfs, stdout=mc.PIPE, max_output=10) as p:
        assert p.communicate() == (b"0123456789", None)  # type: ignore[comparison-overlap]
        assert p.lost == {"stdout": 9_990, "stderr": 0}


def test_max_output_where_nothing_is_captured_is_a_mistake(rootfs: Path) -> None:
    with pytest.raises(ValueError, match="max_output needs capture_output, or a pipe"):
        mc.run(["true"], rootfs=rootfs, max_output=10)
    with pytest.raises(mc.SpecError, match="max_output"):
        mc.run(["true"], rootfs=rootfs, max_output=-1, capture_output=True)


def test_a_timeout_that_is_no_number_is_named(rootfs: Path) -> None:
    kept = mc.Container.start(["/bin/sleep", "1000"], rootfs=rootfs)
    with mc.Popen(["/bin/sleep", "1000"], rootfs=rootfs) as process:
        calls: list[Callable[[Any], object]] = [
            lambda soon: mc.run(["/bin/sleep", "1000"], rootfs=rootfs, timeout=soon),
            lambda soon: kept.run(["/bin/sleep", "1000"], timeout=soon),
            process.wait,
            lambda soon: process.communicate(timeout=soon),
            kept.wait,
            kept.stop,
            kept.restart,
        ]
        for soon, says in (("1", "1: must be a number of seconds, or None, not str"), (math.nan, "nan: is no number")):
            for call in calls:
                with pytest.raises(mc.SpecError, match=f"timeout {says}"):
                    call(soon)
        process.kill()
        kept.remove(force=True)


def test_what_prints_without_end_takes_no_memory(rootfs: Path) -> None:
    """Its caller grows by what it keeps."""
    code = """
import resource
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
once()
before = peak()
try:
    mc.run(["cat", "/dev/zero"], rootfs=sys.argv[1], capture_output=True, max_output="1M", timeout=1)
except mc.TimeoutExpired as e:
    print(len(e.stdout), e.lost["stdout"] > 50 << 20, peak() - before < 16 << 10)
"""
    assert caller(rootfs, code).stdout == f"{1 << 20} True True\n"
