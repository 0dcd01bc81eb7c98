"""``minicontainer run`` beyond its options for the container: reports, timeouts, streams, help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from box import CLI, Box, processes, refusal, until
from supplies import Run

pytestmark = pytest.mark.needs("root")

# ---- --explain, --dry-run, --meta


def test_explain(box: Box) -> None:
    """Both sides of the clone, in the order done, each call as a man page writes it, and the sum of each phase."""
    done = box.run("echo", "hi", options=["--explain", "--hostname", "shown"])
    assert (done.returncode, done.stdout) == (0, "hi\n")
    told = done.stderr
    for call in (
        "clone3(CLONE_VM|CLONE_VFORK",
        'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)',
        'pivot_root(".", ".")',
        'umount2(".", MNT_DETACH)',
        'sethostname("shown", 5)',
        "prctl(PR_SET_NO_NEW_PRIVS, 1",
        "execve([",
        "waitid(P_PIDFD",
    ):
        assert call in told, call
    lines = [line.split(None, 3) for line in told.partition("\n\n")[0].splitlines()[1:]]
    starts = [float(line[0]) for line in lines]
    assert starts == sorted(starts)
    assert {line[2] for line in lines} == {"parent", "child"}
    assert told.index("clone3(") < told.index("pivot_root(") < told.index("execve(") < told.index("waitid(")
    sums = [line.split(None, 2) for line in told.partition("\n\n")[2].splitlines()[1:]]
    assert {"root", "/dev", "confine", "execute", "wait"} <= {line[2].strip() for line in sums}
    assert all(float(line[0]) >= 0 for line in sums)


def test_explain_as_data(box: Box, tmp_path: Path) -> None:
    path = tmp_path / "a file.json"
    done = box.run("true", options=[f"--explain=json:{path}", "--hostname", "explained"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    events = json.loads(path.read_text(encoding="utf-8"))
    calls = [event["call"].partition("(")[0] for event in events]
    assert calls.index("clone3") < calls.index("pivot_root") < calls.index("execve") < calls.index("waitid")
    for event in events:
        assert set(event) == {"side", "phase", "call", "at_us", "took_us", "result", "error"}
        assert event["took_us"] is not None
        assert (event["error"] is None) or event["result"] is None


def test_dry_run(box: Box, tmp_path: Path) -> None:
    """The plan, and nothing done: no file is made, no name taken, no program looked for."""
    options = ["--dry-run", "--name", "not-taken", "-v", f"{tmp_path}:/x", "--meta", tmp_path / "meta", "-m", "64m"]
    before = sorted(str(path) for path in box.rootfs.rglob("*"))
    done = box.run("/none", b"\xff".decode("utf-8", "surrogateescape"), options=options)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        'write("memory.max", "67108864")',
        "clone3(",
        'pivot_root(".", ".")',
        'execve(["/none"]',
        str(tmp_path),
    ):
        assert words in done.stdout, words
    assert sorted(str(path) for path in box.rootfs.rglob("*")) == before
    assert not list(tmp_path.iterdir())
    box.refused("true", options=["--dry-run", "-v", "/none:/x"], says=["/none"])


def meta_of(box: Box, path: Path, *words: str, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """The exit code and the record of a run."""
    done = box.run(*words, options=["--meta", path, *options])
    return done.returncode, json.loads(path.read_text(encoding="utf-8"))


def test_meta(box: Box, tmp_path: Path) -> None:
    code, meta = meta_of(box, tmp_path / "meta", "sh", "-c", "exit 3", options=("--name", "measured"))
    assert code == 3
    assert meta["args"] == ["sh", "-c", "exit 3"]
    assert (meta["name"], len(meta["id"])) == ("measured", 12)
    assert (meta["returncode"], meta["exit_status"], meta["exit_signal"], meta["reason"]) == (3, 3, None, "exited")
    assert 0 < meta["usage"]["walltime"] < 60
    assert meta["usage"]["cputime"] is None or 0 <= meta["usage"]["cputime"] < 60


def test_meta_of_a_signal(box: Box, tmp_path: Path) -> None:
    code, meta = meta_of(box, tmp_path / "meta", "sh", "-c", "kill -USR1 $$", options=("--pid", "host"))
    assert code == 138
    assert (meta["returncode"], meta["exit_signal"], meta["reason"]) == (-10, 10, "signal")


def test_meta_measures(box: Box, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 0.3"
    _, meta = meta_of(box, tmp_path / "meta", "sh", "-c", script)
    usage = meta["usage"]
    assert usage["walltime"] >= 0.3
    assert usage["cputime"] is None or 0.01 < usage["cputime"] < usage["walltime"]


# ---- --timeout


@pytest.mark.parametrize("init", [[], ["--init"]], ids=["plain", "init"])
def test_timeout(box: Box, tmp_path: Path, init: list[str]) -> None:
    """The whole container dies, with what made itself a daemon; exit code 124."""
    seconds = f"77{os.getpid()}"
    script = f"(setsid sleep {seconds} </dev/null >/dev/null 2>&1 &) ; trap '' TERM INT HUP; sleep {seconds}"
    options = ["--timeout", "0.5", "--meta", tmp_path / "meta", *init]
    done = box.run("sh", "-c", script, options=options)
    refusal(done, 124, ["--timeout 0.5", "killed"])
    assert json.loads((tmp_path / "meta").read_text(encoding="utf-8"))["reason"] == "timeout"
    until(lambda: not processes(f"sleep\0{seconds}"))


def test_a_timeout_that_is_not_reached(box: Box) -> None:
    assert box.run("sh", "-c", "exit 4", options=["--timeout", "999999999"]).returncode == 4


# ---- streams


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("init", ["", "--init "], ids=["plain", "init"])
def test_closed_streams(rootfs: Path, tmp_path: Path, closed: str, init: str) -> None:
    """What was closed is /dev/null inside; no descriptor of ours is there in its place."""
    (tmp_path / "out").touch()
    script = 'for n in 0 1 2; do seen="$seen $(stat -Lc %t:%T /proc/$$/fd/$n)"; done; echo $seen >/out'
    words = ["run", *init.split(), "-v", f"{tmp_path}/out:/out", str(rootfs), "sh", "-c", script]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *CLI, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shown = (tmp_path / "out").read_text(encoding="ascii").split()
    assert len(shown) == 3
    null, pipe = "1:3", "0:0"
    for number, sign in enumerate(("<&-", ">&-", "2>&-")):
        gone = sign in closed.split()
        assert shown[number] == (null if gone or number == 0 else pipe)


def test_errors_with_closed_streams(rootfs: Path) -> None:
    for closed, said in (("<&-", True), (">&-", True), ("2>&-", False)):
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", *CLI, "run", str(rootfs), "/none"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (127, "")
        assert ("not found" in done.stderr) == said


def test_a_reader_that_goes_away(rootfs: Path) -> None:
    """As a pipeline does it: quiet, and no longer than the program."""
    inside = " ".join([*CLI, "run", str(rootfs)])
    done = subprocess.run(
        ["sh", "-c", f"{inside} yes | head -n 1; {inside} sh -c 'yes; exit 3' | :; {' '.join(CLI)} run --help | :"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "y\n"
    assert "Traceback" not in done.stderr
    assert "minicontainer:" not in done.stderr


def test_stdout_that_is_full(minicontainer_cli: Run) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        done = minicontainer_cli("run", "--help", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125
    assert done.stderr.splitlines() == ["minicontainer: stdout: No space left on device"]


def test_large_input_and_output(box: Box) -> None:
    done = box.run("sh", "-c", "cat; head -c 3000000 /dev/zero | tr '\\0' x", input="y" * 2_000_000)
    assert done.stdout == "y" * 2_000_000 + "x" * 3_000_000


# ---- help, speed of the way there


def test_help(minicontainer_cli: Run) -> None:
    """``--help`` is the only help option: ``-h`` is the host name."""
    told = minicontainer_cli("run", "--help").stdout
    names = """-i -t --name --rm -e --env --env-file -w --workdir -u --user --group-add -h --hostname -v --volume
        --mount --tmpfs --read-only --shm-size --device --init --entrypoint -m --memory --memory-swap
        --memory-reservation --cpus --cpu-shares --cpuset-cpus --pids-limit --blkio-weight --device-read-bps
        --device-write-bps --device-read-iops --device-write-iops --ulimit --sysctl --cap-add --cap-drop --security-opt
        --privileged --network --pid --ipc --uts --userns --cgroupns --stop-signal --stop-timeout --oom-score-adj
        --net -P --publish-all --expose
        --umask --timeout --ephemeral --explain --dry-run --meta --no-tty"""
    words = set(told.replace(",", " ").split())
    assert not set(names.split()) - words
    refusal(minicontainer_cli("-h"), says=["-h"])
    assert "run" in minicontainer_cli("--help").stdout
    assert minicontainer_cli().stdout == minicontainer_cli("--help").stdout


MODULES = """
import os, sys
import click
before = set(sys.modules)  # it is not ours what click takes (before Python 3.11, by uuid, subprocess)
from minicontainer.__main__ import main
leave = os._exit
os._exit = lambda code: leave(print(*set(sys.modules) - before, flush=True) or code)
main()
"""


def test_what_a_plain_run_does_not_import(rootfs: Path) -> None:
    command = [CLI[0], "-c", MODULES, "run", str(rootfs), "true"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    imported = set(done.stdout.split())
    assert "minicontainer.cli.foreground" in imported
    for heavy in (
        "pyroute2",
        "prctl",
        "asyncio",
        "subprocess",
        "tempfile",
        "json",
        "logging",
        "pathlib",
        "socket",
        "shutil",
    ):
        assert heavy not in imported, heavy
    assert not imported & {"minicontainer.container.explain", "minicontainer.spec.parts", "minicontainer.doctor"}


# ---- the parent dies


def test_the_container_dies_with_its_parent(rootfs: Path) -> None:
    """kill -9 of the command line: nothing of the container goes on."""
    seconds = f"78{os.getpid()}"
    command = [*CLI, "run", str(rootfs), "sh", "-c", f"(setsid sleep {seconds} &) ; echo here; exec sleep {seconds}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    until(lambda: not processes(f"sleep\0{seconds}"))
    clean = "from minicontainer.container.cgroup import orphans; orphans.clean()"
    subprocess.run([CLI[0], "-c", clean], check=True)
