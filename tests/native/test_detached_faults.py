"""kill -9 of who makes, keeps or removes a detached container, after each of its steps: nothing is left, or one `rm -f`
or `doctor --clean` takes it."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from box import until

import minicontainer as mc
from minicontainer import doctor, runtime
from minicontainer.container.ids import ranges
from minicontainer.detached import store

pytestmark = pytest.mark.needs("root")

ROOT = Path(__file__).resolve().parents[2]


def points(kind: str) -> list[str]:
    """All that the sources name: of the manager in Python, of the monitor in C."""
    pattern, suffix = ("minicontainer", "*.py") if kind == "manager" else ("csrc/monitor", "*.c")
    paths = [path for path in sorted((ROOT / pattern).rglob(suffix)) if path.parent.name != "network"]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return sorted({name for text in texts for name in re.findall(r'failpoint\("([a-z ]+)"\)', text)})


LIFE = """
import sys
import minicontainer as mc
c = mc.Container.start(["sh", "-c", sys.argv[2]], rootfs=sys.argv[1], name="fault", remove=sys.argv[3] == "remove",
                       restart="on-failure:1")
if sys.argv[3] == "restart":
    c.restart(0)
    c.rename("fault-2")
if sys.argv[3] != "restart":
    try:
        c.wait(60)
    except FileNotFoundError:
        pass
c.remove(force=True)
"""


def live(rootfs: Path, point: str, script: str, kind: str) -> int:
    """A container's life in another process that dies at a point; its status."""
    command = [sys.executable, "-c", LIFE, str(rootfs), script, kind]
    env = {**os.environ, "MINICONTAINER_FAILPOINT": point}
    return subprocess.run(command, env=env, check=False, capture_output=True, timeout=60).returncode


@pytest.fixture(autouse=True)
def nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory without a config is left behind at once, not after ten seconds."""
    monkeypatch.setattr(store, "LOCK_GRACE", 0.0)
    yield
    for container in left():
        container.remove(force=True)


def left() -> list[mc.Container]:
    """Those of these tests."""
    found = []
    for container in mc.containers():
        try:
            ours = container.name.startswith("fault")
        except mc.Error:
            ours = True
        if ours:
            found.append(container)
    return found


def clean(by: str) -> None:
    """Removes what is left, in one of two ways. What runs, or has ended as it should, was not left behind: the doctor
    keeps it."""
    if by == "doctor":
        until(lambda: not any(container.directory for container in left() if _is_starting(container)))
        doctor.clean(".")
        assert all(container.status in ("running", "restarting", "exited") for container in left())
    for container in left():
        container.remove(force=True)
    if by == "rm":
        doctor.clean(".")  # cgroups and names of what has no directory yet, or no more


def _is_starting(container: mc.Container) -> bool:
    try:
        return container.status == "created" and container._entry.is_locked()
    except mc.Error:
        return False


def check_nothing_is_left() -> None:
    """Of containers, names, cgroups (the leak fixture looks at these again) and ranges of ids."""
    assert left() == []
    assert not [name for name in os.listdir(f"{runtime.directory()}/names") if name.startswith("fault")]
    lease = ranges.allocate()
    lease.release()


@pytest.mark.parametrize("by", ["rm", "doctor"])
@pytest.mark.parametrize("point", points("manager"))
def test_the_manager_dies(rootfs: Path, point: str, by: str) -> None:
    status = live(rootfs, f"manager:{point}", "sleep 1000", "restart")
    assert status == -9, f"{point} was not come to"
    clean(by)
    check_nothing_is_left()


# Where the monitor dies only when it restarts, or removes all; the others are come to by any end.
KINDS = {"emptied": "remove", "name released": "remove", "restarting": "wait", "starting again": "wait"}


@pytest.mark.parametrize("by", ["rm", "doctor"])
@pytest.mark.parametrize("point", points("monitor"))
def test_the_monitor_dies(rootfs: Path, point: str, by: str) -> None:
    live(rootfs, f"monitor:{point}", "exit 1", KINDS.get(point, "wait"))
    clean(by)
    check_nothing_is_left()


@pytest.mark.parametrize("point", points("monitor"))
def test_every_point_of_the_monitor_is_come_to(rootfs: Path, point: str) -> None:
    """It dies there: its container is not seen to its end."""
    script = (
        "import sys, minicontainer as mc\n"
        f"c = mc.Container.start(['sh', '-c', 'exit 1'], rootfs={str(rootfs)!r}, name='fault',"
        f" remove={KINDS.get(point) == 'remove'}, restart='on-failure:1')\n"
        "c.wait(60); print(c.status)"
    )
    env = {**os.environ, "MINICONTAINER_FAILPOINT": f"monitor:{point}"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    if point in ("entry", "listening", "started"):
        assert "monitor: it was killed before the container ran" in done.stderr
    elif KINDS.get(point) == "remove":
        assert (
            done.returncode == 0 or "config.json" in done.stderr or "is gone" in done.stderr or "missing" in done.stderr
        )
    else:
        assert done.stdout == ("exited\n" if point == "exited" else "dead\n"), done
    clean("rm")


def test_a_killed_monitor_takes_its_container_along(rootfs: Path) -> None:
    c = mc.Container.start(["sleep", "1000"], rootfs=str(rootfs), name="fault", restart="always")
    monitor, process = c.state.monitor, c.state.process
    assert monitor is not None
    assert process is not None
    os.kill(monitor.pid, 9)
    until(lambda: not process.is_alive())
    assert c.status == "dead"
    assert c.wait(1) == 255
    c.start_again()
    assert c.status == "running"
    c.remove(force=True)


def test_an_end_is_never_taken_for_a_death(make: Callable[..., mc.Container]) -> None:
    """However the monitor's last word and its own end fall between our looks."""
    for number in range(20):
        c, seen = make("usleep", str(number * 500)), {""}
        while (status := c.status) != "exited":
            seen.add(status)
        assert seen <= {"", "running"}


def test_eight_want_the_same_name(rootfs: Path) -> None:
    code = (
        "import sys, minicontainer as mc\n"
        "sys.stdin.read(1)\n"
        f"c = mc.Container.start(['sleep', '1000'], rootfs={str(rootfs)!r}, name='fault-same')\nprint(c.id)"
    )
    pipe = subprocess.PIPE
    creators = [
        subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(8)
    ]
    said = []
    for creator in creators:
        assert creator.stdin is not None
        creator.stdin.close()
    for creator in creators:
        assert creator.stdout is not None
        assert creator.stderr is not None
        said.append((creator.stdout.read(), creator.stderr.read()))
        creator.wait()
        creator.stdout.close()
        creator.stderr.close()
    won = [out.strip() for out, _ in said if out]
    assert len(won) == 1
    assert sum("already exists" in err for _, err in said) == 7
    assert mc.Container.find("fault-same").id == won[0]


def test_a_reboot_is_seen(rootfs: Path) -> None:
    """What was running then has ended, whoever has its numbers now."""
    c = mc.Container.start(["sleep", "1000"], rootfs=str(rootfs), name="fault")
    path = Path(c.directory, "state")
    as_it_was = path.read_text()
    path.write_text(as_it_was.replace(store_boot(), "0" * 8 + "-0000-0000-0000-" + "0" * 12))
    assert (c.status, c.pid) == ("dead", 0)
    path.write_text(as_it_was)
    assert c.status == "running"


def store_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def test_a_number_that_is_another_s_by_now(rootfs: Path) -> None:
    """Nobody who has the number of a dead process 1, or of a dead monitor, is ever taken for it."""
    c = mc.Container.start(["sleep", "1000"], rootfs=str(rootfs), name="fault")
    monitor = c.state.monitor
    assert monitor is not None
    os.kill(monitor.pid, 9)
    until(lambda: c.status == "dead")
    time.sleep(0.05)  # times of starts are told in hundredths of a second
    with subprocess.Popen(["sleep", "1000"]) as other:
        path = Path(c.directory, "state")
        path.write_text(re.sub(r'"process": \[\d+', f'"process": [{other.pid}', path.read_text()))
        path.write_text(re.sub(r'"monitor": \[\d+', f'"monitor": [{other.pid}', path.read_text()))
        c.remove(force=True)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_a_frozen_container_ends(rootfs: Path, end: str) -> None:
    c = mc.Container.start(["sh", "-c", "sleep 1000"], rootfs=str(rootfs), name="fault")
    c.pause()
    if end == "remove":
        c.remove(force=True)
        assert not os.path.isdir(c.directory)
        return
    c.stop(0) if end == "stop" else c.kill()
    assert c.wait(60) == 137


FULL = """
import os, time
import minicontainer as mc
c = mc.Container.start(["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; seq 1 100; "
                        "while [ -e /tmp/go ]; do sleep 0.02; done; echo after"], rootfs=ROOTFS)
ballast = os.environ["MINICONTAINER_ROOT"] + "/ballast"
with open(ballast, "wb", buffering=0) as f:
    try:
        while True:
            f.write(bytes(4096))
    except OSError:
        pass
open(ROOTFS + "/tmp/go", "w").close()
time.sleep(0.5)
assert c.state.is_running
os.unlink(ballast)
os.unlink(ROOTFS + "/tmp/go")
code = c.wait(60)
print(code, [(e.stream, e.data) for e in c.logs()], c.state.log_lost)
c.remove()
"""


def test_a_full_disk_under_the_log(rootfs: Path, tmp_path: Path) -> None:
    """The program goes on; when there is room again the log says what is missing."""
    from box import copy_of

    own = copy_of(rootfs, tmp_path / "root")
    code = FULL.replace("ROOTFS", repr(str(own)))
    inside = 'mount -t tmpfs -o size=256k,mode=700 none "$MINICONTAINER_ROOT" && exec "$0" -c "$1"'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", inside, sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lost = len("".join(f"{n}\n" for n in range(1, 101)))
    told = f"('lost', b'{lost} bytes: errno 28\\n'), ('stdout', b'after\\n')"
    assert done.stdout == f"0 [{told}] 0\n", done


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/full", path)])
def test_what_is_in_the_place_of_the_next_state(make: Callable[..., mc.Container], put: Callable[[str], None]) -> None:
    """Is not waited for, or followed: a start is refused by name."""
    container = make("/bin/true")
    container.wait(120)
    put(f"{container.directory}/.state")
    with pytest.raises(mc.Error, match=r"/state\): "):
        container.start_again()
    container.remove()


def test_random_kills() -> None:
    """Of 40 rounds here; `python tests/killing.py 1000` is the same."""
    command = [sys.executable, str(ROOT / "tests/killing.py"), "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 left after 40 rounds" in done.stdout


def enter_for_ever(container: mc.Container, *, tty: bool) -> None:
    while True:
        container.run(["/bin/true"], tty=tty, stdout=mc.DEVNULL)


def test_exec_that_meets_the_end_of_the_container_says_so(make: Callable[..., mc.Container]) -> None:
    """At whatever step: 40 containers killed while others go in."""
    said = set()
    for n in range(40):
        container = make("/bin/sleep", "60")
        killer = threading.Timer(random.Random(n).uniform(0, 0.02), container.kill)
        killer.start()
        with pytest.raises(mc.Error) as caught:
            enter_for_ever(container, tty=n % 4 == 0)
        killer.join()
        said.add(str(caught.value).replace(container.id[:12], "ID"))
        container.remove(force=True)
    words = ("the container has ended", "is not running")
    assert [text for text in said if not any(word in text for word in words)] == []
    assert any("has ended" in text for text in said)
