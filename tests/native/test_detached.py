"""Detached containers by the library: started under a monitor, looked at, stopped, started again, removed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from box import until

import minicontainer as mc
from minicontainer import runtime
from minicontainer.container.registry import names
from minicontainer.detached import finalstate, store
from minicontainer.detached.container import Container, containers

pytestmark = pytest.mark.needs("root")

Make = Callable[..., Container]
HEEDING = "trap 'echo stopped; exit 5' TERM; echo ready; while :; do sleep 0.05; done"


def said(container: Container, stream: str = "stdout") -> str:
    return b"".join(entry.data for entry in container.logs() if entry.stream == stream).decode()


def is_ready(container: Container) -> bool:
    return "ready\n" in said(container)


def test_it_runs_on_and_its_end_is_kept(make: Make) -> None:
    c = make("sh", "-c", "echo out; echo err >&2; exit 3", labels={"a": "b"}, name="box-1")
    assert c.wait(60) == 3
    state = c.state
    assert (state.status, state.exit_code, state.reason, state.process, c.pid) == ("exited", 3, "exited", None, 0)
    assert state.started is not None
    assert state.finished is not None
    assert 0 <= state.finished - state.started < 20
    assert (said(c), said(c, "stderr")) == ("out\n", "err\n")
    assert (c.name, dict(c.config.labels), c.config.restart) == ("box-1", {"a": "b"}, "no")
    assert sorted(os.listdir(c.directory)) == ["config.json", "log", "state"]


def test_what_stays_beside_it_is_small_and_nobody_s_child(make: Make) -> None:
    c = make("sleep", "1000")
    monitor = c.state.monitor
    assert monitor is not None
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{monitor.pid}/status").read_text().splitlines())
    assert int(status["VmRSS"].split()[0]) < 1024  # KiB
    assert int(status["PPid"]) != os.getpid()
    assert Path(f"/proc/{monitor.pid}/exe").readlink().name == "monitor"
    fds = [os.readlink(f"/proc/{monitor.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{monitor.pid}/fd")]
    assert not [path for path in fds if "pytest" in path]
    assert os.getsid(monitor.pid) == monitor.pid
    assert os.getsid(c.pid) == c.pid


def test_it_is_confined_as_others_are(make: Make, rootfs: Path) -> None:
    script = "cat /proc/self/uid_map; grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l"
    c = make("sh", "-c", script)
    assert c.wait(60) == 0
    lines = said(c).splitlines()
    own = mc.run(["sh", "-c", script], rootfs=str(rootfs), capture_output=True, text=True).stdout.splitlines()
    assert lines[0].split()[0] == "0"
    assert lines[0].split()[2] == "65536"
    assert lines[1:] == own[1:]


@pytest.mark.parametrize(
    ("args", "fields", "error", "words"),
    [
        (["/nope"], {}, mc.ProgramError, "program /nope: not found in the container"),
        (["/nope"], {"userns": "host"}, mc.ProgramError, "program /nope: not found in the container"),
        (["/nope"], {"init": True}, mc.ProgramError, "program /nope: not found in the container"),
        (["/etc"], {}, mc.ProgramError, "is a directory"),
        (["sh"], {"cwd": "/no/where"}, mc.SpecError, "cwd /no/where"),
        (["sh"], {"rootfs": "/no/where"}, mc.SpecError, "no such directory"),
        (["sh"], {"user": "nobody-knows"}, mc.SpecError, "is not in the container's /etc/passwd"),
        (["sh"], {"restart": "sometimes"}, mc.SpecError, "must be no, on-failure"),
        (["sh"], {"log": {"max-size": "1"}}, mc.SpecError, "max-size"),
        (["sh"], {"log": {"size": "1m"}}, mc.SpecError, "must be max-size=SIZE or max-file=N"),
        (["sh"], {"labels": {"a=b": "c"}}, mc.SpecError, "a name cannot hold ="),
    ],
)
def test_what_cannot_start_leaves_nothing(
    rootfs: Path, args: list[str], fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = names.ids()
    with pytest.raises(error, match=words):
        Container.start(args, **{"rootfs": str(rootfs), "name": "fails", **fields})
    assert names.ids() == before
    with pytest.raises(store.NotFoundError):
        Container.find("fails")


def test_stop_sends_the_stop_signal_and_kills_later(make: Make) -> None:
    c = make("sh", "-c", HEEDING)
    until(lambda: is_ready(c))
    c.stop()
    assert (c.state.status, c.state.exit_code) == ("exited", 5)
    assert said(c) == "ready\nstopped\n"
    deaf = make("sleep", "1000")  # process 1 has no handler
    deaf.stop(0.2)
    assert (deaf.state.exit_code, deaf.state.reason) == (137, "signal")
    deaf.stop()  # nothing happens
    other = make("sh", "-c", HEEDING.replace("TERM", "USR1"), stop_signal="USR1")
    until(lambda: is_ready(other))
    other.stop()
    assert other.state.exit_code == 5


def test_kill_sends_any_signal(make: Make) -> None:
    c = make("sh", "-c", "trap 'echo got' USR1; echo ready; while :; do sleep 0.05; done")
    until(lambda: is_ready(c))
    c.kill("USR1")
    until(lambda: "got" in said(c))
    assert c.status == "running"
    c.kill(signal.SIGKILL)
    assert c.wait(60) == 137
    with pytest.raises(mc.Error, match="is not running"):
        c.kill()


def test_the_signal_of_who_ends_the_monitor_is_a_stop(make: Make) -> None:
    c = make("sh", "-c", HEEDING, restart="always")
    until(lambda: is_ready(c))
    monitor = c.state.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGTERM)
    assert c.wait(60) == 5


def test_it_is_started_again_as_it_was(make: Make) -> None:
    c = make("sh", "-c", "echo $A; " + HEEDING, env={"A": "x"})
    until(lambda: is_ready(c))
    first = c.pid
    c.restart()
    assert c.status == "running"
    assert c.pid not in (0, first)
    until(lambda: said(c).count("x\nready\n") == 2)
    c.start_again()  # nothing happens
    c.stop()
    c.start_again()
    until(lambda: said(c).count("x\nready\n") == 3)


def test_restarts(make: Make) -> None:
    c = make("sh", "-c", "echo run; exit 1", restart="on-failure:2")
    assert c.wait(60) == 1
    assert (c.state.restarts, said(c)) == (2, "run\nrun\nrun\n")
    fine = make("true", restart="on-failure")
    assert (fine.wait(60), fine.state.restarts) == (0, 0)
    ever = make("sh", "-c", "echo run", restart="always")
    until(lambda: said(ever).count("run") >= 3)
    until(lambda: ever.status == "restarting")
    ever.stop()
    assert ever.status == "exited"
    count = said(ever).count("run")
    ever.update(restart="no")
    ever.start_again()
    ever.wait(60)
    assert said(ever).count("run") == count + 1


def test_a_restart_finds_no_leftovers(make: Make) -> None:
    """Also where what it left has no first process that ends it (pid=host)."""
    c = make("sh", "-c", "sleep 997 & echo run; exit 1", pid="host", restart="on-failure:1")
    assert c.wait(60) == 1
    assert said(c) == "run\nrun\n"
    assert not [p for p in os.listdir("/proc") if p.isdigit() and _command(p) == b"sleep\x00997\x00"]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_the_end_of_one_that_removes_itself_is_told(make: Make) -> None:
    c = make("sh", "-c", "read x; exit 6", interactive=True, remove=True)
    with ThreadPoolExecutor(3) as pool, c.attach() as attached:
        waited = [pool.submit(Container(c.id).wait, 60) for _ in range(3)]
        until(lambda: held(f"{c.directory}/state") == 4)  # what they and ``attached`` wait with
        attached.send(b"\n")
        assert [one.result() for one in waited] == [6, 6, 6]
        assert attached.end_code() == 6


def held(path: str) -> int:
    """Our descriptors of a file."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link) == path for link in links if os.path.lexists(link))


def test_the_final_state_is_read_while_the_monitor_writes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two files change places: who opens them just then has both all the same."""
    c = make("sleep", "1000")
    monitor, paths = c.state.monitor, [f"{c.directory}/{name}" for name in ("state", ".state")]
    assert monitor is not None
    numbers, real, exchanges = {os.stat(path).st_ino for path in paths}, os.open, iter([True, False, True])

    def opened(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = real(path, flags, mode, dir_fd=dir_fd)
        if next(exchanges, False):
            os.rename(paths[0], f"{paths[0]}.between")
            os.rename(paths[1], paths[0])
            os.rename(f"{paths[0]}.between", paths[1])
        return fd

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opened)
        last = finalstate.FinalState(c.directory, monitor)
    with last:
        assert {os.fstat(fd).st_ino for fd in last._fds} == numbers


def test_nothing_is_started_in_one_that_is_paused(make: Make) -> None:
    c = make("sleep", "1000")
    c.pause()
    with pytest.raises(mc.Error, match="is paused"):
        c.exec(["true"])
    c.unpause()
    assert c.run(["true"], stdin=mc.DEVNULL).returncode == 0


def test_pause_and_unpause(make: Make) -> None:
    c = make("sh", "-c", HEEDING)
    until(lambda: is_ready(c))
    c.pause()
    assert c.status == "paused"
    c.unpause()
    assert c.status == "running"
    c.pause()
    c.stop()  # what stands still goes on, to heed the signal
    assert c.state.exit_code == 5
    with pytest.raises(mc.Error, match="is not running"):
        c.pause()
    again = make("sleep", "1000")
    again.pause()
    again.remove(force=True)
    assert not os.path.exists(again.directory)


def test_timeout(make: Make) -> None:
    c = make("sleep", "1000", timeout=0.3)
    assert c.wait(60) == 137
    assert c.state.reason == "timeout"


def test_wait_has_a_limit(make: Make) -> None:
    c = make("sleep", "1000")
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.1 seconds"):
        c.wait(0.1)


def test_removal(make: Make) -> None:
    c = make("sleep", "1000", name="gone")
    with pytest.raises(mc.Error, match=r"is running \(stop it first, or rm -f\)"):
        c.remove()
    c.remove(force=True)
    with pytest.raises(store.NotFoundError):
        Container.find("gone")
    with pytest.raises(store.NotFoundError):
        _ = c.state
    c = make("true", remove=True, name="gone")
    c.wait(60)
    until(lambda: not os.path.exists(c.directory))
    make("true", name="gone").wait(60)


def test_by_id_by_its_beginning_by_name(make: Make) -> None:
    first, second = make("true", name="first"), make("true")
    assert Container.find(first.id).id == first.id
    assert Container.find("first").id == first.id
    assert Container.find(second.id[:12]).id == second.id
    assert {first.id, second.id} <= {c.id for c in containers()}
    ids = [c.id for c in containers()]
    assert ids.index(second.id) < ids.index(first.id)  # the newest first
    for word in ("", "second", "f" * 63, "../" + first.id, first.id + "0"):
        with pytest.raises(store.NotFoundError, match="there is no such container"):
            Container.find(word)


def test_a_beginning_that_several_have(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ids", lambda: ["ab" + "0" * 62, "ab" + "1" * 62])
    with pytest.raises(mc.SpecError, match="could be any of 2"):
        Container.find("ab")


def test_names(make: Make, rootfs: Path) -> None:
    c = make("true", name="taken")
    with pytest.raises(mc.SpecError, match=f"already exists \\(container {c.id[:12]}\\)"):
        make("true", name="taken")
    with pytest.raises(mc.SpecError, match="already exists"):
        mc.run(["true"], rootfs=str(rootfs), name="taken")
    c.wait(60)
    c.rename("free")
    assert (c.name, Container.find("free").id) == ("free", c.id)
    with pytest.raises(mc.SpecError, match="must match"):
        c.rename("a b")
    other = make("true", name="taken")
    with pytest.raises(mc.SpecError, match="already exists"):
        other.rename("free")
    c.start_again()


def test_an_unnamed_one_is_called_by_its_id(make: Make) -> None:
    """Also what enters it, when it was started again, and when it has been given a name."""
    c = make("sleep", "1000")
    words = ["sh", "-c", "hostname; echo $HOSTNAME"]
    assert c.run(words, capture_output=True, text=True).stdout.split() == [c.id[:12]] * 2
    c.rename("given")
    c.restart(0)
    assert mc.Container.find("given").run(words, capture_output=True, text=True).stdout.split() == [c.id[:12]] * 2


def test_one_with_the_hosts_name_can_be_renamed(make: Make) -> None:
    c = make("sleep", "1000", name="first", uts="host")
    c.rename("second")
    c.restart(0)
    assert c.run(["hostname"], capture_output=True, text=True).stdout.strip() == os.uname().nodename


def test_a_renamed_one_that_removes_itself_frees_its_name(make: Make) -> None:
    c = make("sh", "-c", HEEDING, name="one", remove=True)
    c.rename("two")
    assert said(c) or until(lambda: is_ready(c))
    c.stop()
    until(lambda: not os.path.exists(c.directory))
    assert not os.path.exists(f"{runtime.directory()}/names/two")


def test_ten_at_once_in_threads(make: Make) -> None:
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda n: make("sh", "-c", f"exit {n}"), range(10)))
    assert [c.wait(60) for c in made] == list(range(10))


def test_input_stays_open_where_it_is_asked_for(make: Make) -> None:
    assert make("cat").wait(60) == 0  # /dev/null
    c = make("sh", "-c", "read x; echo got $x; exit 4", interactive=True)
    assert c.status == "running"
    with c.attach() as attached:
        attached.send(b"hello\n")
    assert c.wait(60) == 4
    assert said(c) == "got hello\n"
