"""The leak check: one leak of each kind is made, seen, and seen to be gone; and the fixture fails such a test."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import leaks
import pytest
from abilities import cgroup2_mounts

TESTS = Path(leaks.__file__).parent
TUNSETIFF = 0x400454CA  # Linux include/uapi/linux/if_tun.h
IFF_TUN = 1


@contextmanager
def descriptor(tmp_path: Path) -> Iterator[str]:
    with open(tmp_path / "held", "wb") as file:
        yield f"descriptor {file.fileno()} ({tmp_path}/held)"


@contextmanager
def child(_: Path) -> Iterator[str]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield f"child {process.pid} (sleep)"
        process.kill()


@contextmanager
def zombie(_: Path) -> Iterator[str]:
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield f"zombie {pid} (true)"
    os.waitpid(pid, 0)


@contextmanager
def state_file(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "minicontainer/names/someone"
    path.parent.mkdir(parents=True)
    path.touch()
    yield f"state file {path}"
    path.unlink()


@contextmanager
def mount(tmp_path: Path) -> Iterator[str]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    yield f"mount {tmp_path} (tmpfs, id "
    subprocess.run(["umount", tmp_path], check=True)


@contextmanager
def cgroup(_: Path) -> Iterator[str]:
    home = cgroup2_mounts()[0] / leaks.homes()[0]
    home.mkdir(exist_ok=True)
    path = home / f"leak-{os.getpid()}"
    path.mkdir()
    yield f"cgroup {path}"
    path.rmdir()


@contextmanager
def interface(_: Path) -> Iterator[str]:
    with open("/dev/net/tun", "r+b", buffering=0) as tun:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"leak%d", IFF_TUN))
        yield "interface leak0"


@contextmanager
def network_namespace(_: Path) -> Iterator[str]:
    name = f"leak-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"network namespace /run/netns/{name}"
    subprocess.run(["ip", "netns", "delete", name], check=True)


PRIVILEGED = [mount, cgroup, interface, network_namespace]
KINDS = [
    *(descriptor, child, zombie, state_file),
    *(pytest.param(kind, marks=pytest.mark.needs("root", "cgroup2")) for kind in PRIVILEGED),
]


@pytest.mark.parametrize("leak", KINDS)
def test_each_kind_is_seen(
    leak: Callable[[Path], AbstractContextManager[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    before = leaks.snapshot()
    with leak(tmp_path) as expected:
        assert [line for line in leaks.leaked_since(before, settle=0) if line.startswith(expected)]
    assert leaks.leaked_since(before) == []


def test_what_goes_away_by_itself_is_no_leak() -> None:
    before = leaks.snapshot()
    with subprocess.Popen(["sleep", "0.2"]) as process:
        assert leaks.leaked_since(before, settle=0)
    assert process.returncode == 0
    assert leaks.leaked_since(before) == []


@pytest.mark.needs("root", "cgroup2")
def test_one_descriptor_of_the_home_is_kept() -> None:
    before = leaks.snapshot()
    first = os.open(cgroup2_mounts()[0], os.O_RDONLY | os.O_DIRECTORY)
    second = os.open(cgroup2_mounts()[0], os.O_RDONLY | os.O_DIRECTORY)
    leaked = leaks.leaked_since(before, settle=0)
    os.close(first)
    os.close(second)
    assert len(leaked) in (1, 2)  # two if the library holds one already


def test_the_fixture_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "unit").mkdir()
    source = "import os\n\ndef test_it(): os.open('/dev/zero', os.O_RDONLY)\ndef test_other(): pass\n"
    (tmp_path / "native/test_leaky.py").write_text(source, encoding="ascii")
    (tmp_path / "unit/test_unwatched.py").write_text(source, encoding="ascii")
    command = [sys.executable, "-m", "pytest", "-p", "abilities", "-p", "leaks", "-p", "no:cacheprovider", "-rA", "."]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed, 1 error" in done.stdout
    assert "ERROR native/test_leaky.py::test_it - Failed: leaked: descriptor" in done.stdout
    assert "(/dev/zero)" in done.stdout
