"""The files of the state directory, whatever lies there: read within bounds, and `ps` shows the rest."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer import runtime
from minicontainer.container.registry import names
from minicontainer.detached import store
from minicontainer.detached.container import Container, containers
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.errors import SpecError
from minicontainer.linux.process import boot_id
from minicontainer.network import members
from minicontainer.network.record import CorruptNetworkError
from minicontainer.network.store import read as read_network
from minicontainer.records import replace
from minicontainer.spec import Spec

BAD, GOOD = "b" * 64, "a" * 64


def socket_at(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # no path is too long so
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path.name)
    os.chdir(here)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def text(what: str) -> Callable[[Path], None]:
    def write_it(path: Path) -> None:
        path.write_text(what, encoding="utf-8")

    return write_it


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text("{}", encoding="utf-8")
    path.symlink_to(target)


KINDS: dict[str, Callable[[Path], None]] = {
    "a fifo": os.mkfifo,
    "a link": link,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
    "a socket": socket_at,
    "3 GiB": sparse,
    "empty": text(""),
    "no text": no_text,
    "a list": text("[]"),
    "deep": text("[" * 100_000),
    "deep object": text('{"a":' * 100_000),
    "a huge number": text('{"version": ' + "9" * 100_000 + "}"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a container that has ended."""
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "home"))
    write(GOOD)
    return tmp_path / "home"


def config(identifier: str) -> str:
    return Config(identifier, Spec(("x",), "/srv", name=f"n{identifier[0]}"), time.time()).to_json()


STATE = {"boot": "", "status": "exited", "monitor": None, "process": None, "started": 1, "finished": 2, "exit_code": 0,
         "reason": "exited", "oom_killed": False, "restarts": 0, "log_lost": 0, "upper": None}  # fmt: skip


def write(identifier: str) -> Path:
    place = Path(names.detached(identifier))
    place.mkdir(parents=True)
    (place / "config.json").write_text(config(identifier), encoding="utf-8")
    (place / "state").write_text(json.dumps({**STATE, "boot": boot_id()}), encoding="utf-8")
    Path(names.directory()).mkdir(exist_ok=True)
    Path(names.directory(), f"n{identifier[0]}").write_text(f"1 {identifier}\n", encoding="ascii")
    return place


def ps(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minicontainer", "ps", "-a", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("file", ["config.json", "state"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_container(home: Path, file: str, kind: str) -> None:
    place = write(BAD)
    (place / file).unlink()
    KINDS[kind](place / file)
    container = Container(BAD)
    with pytest.raises(CorruptError) as caught:
        container.config if file == "config.json" else container.state  # noqa: B018
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert {c.id for c in containers()} == {GOOD, BAD}
    container.remove()
    assert [c.id for c in containers()] == [GOOD]


@pytest.mark.parametrize("kind", ["a fifo", "3 GiB", "deep"])
def test_ps_says_which_is_corrupt_and_goes_on(home: Path, kind: str) -> None:
    for identifier, file in ((BAD, "config.json"), ("c" * 64, "state")):
        path = write(identifier) / file
        path.unlink()
        KINDS[kind](path)
    done = ps()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Corrupt: ") == 2
    assert "Exited (0)" in done.stdout


@pytest.mark.parametrize(("foreground", "status"), [(True, "dead"), (False, "created")])
def test_a_start_whose_process_is_gone(home: Path, foreground: bool, status: str) -> None:
    """It has not written the state. One in the foreground cannot be started again."""
    entry = store.Entry(GOOD)
    entry.write_config(replace(entry.config(), foreground=foreground))
    Path(names.detached(GOOD), "state").unlink()
    if not foreground:  # a start in the foreground is waited for
        lock = entry.lock()
        assert entry.state() == State("created")
        assert store.left_behind() == []
        os.close(lock)
    assert entry.state() == State(status)
    assert [left.id for left in store.left_behind()] == [GOOD]
    assert Container(GOOD).remove_left_behind()  # who removes it holds the lock
    assert not Path(names.detached(GOOD)).exists()


@pytest.mark.parametrize("link_name", ["cgroup", "lease"])
@pytest.mark.parametrize("kind", KINDS)
def test_its_links(home: Path, link_name: str, kind: str) -> None:
    """Where one is no link, or leads to something else: as if it were not there."""
    place = write(BAD)
    KINDS[kind](place / "target")
    for make in (KINDS[kind], lambda path: path.symlink_to(place / "target")):
        make(place / link_name)
        container = Container(BAD)
        assert container.status == "exited"
        assert not container._entry.is_frozen()
        assert container.lease() is None
        assert ps().returncode == 0
        remove(place / link_name)


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    path.with_name("elsewhere").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("empty", "3 GiB")])
def test_names(home: Path, kind: str) -> None:
    path = Path(names.directory(), "other")
    KINDS[kind](path)
    assert names.owner("other") == ""
    with pytest.raises(SpecError, match="there is no such container"):
        store.find("other")
    assert set(names.stale()) <= {str(path), str(path.with_name("elsewhere"))}
    store.forget_name("other", GOOD)
    if path.is_file() and not path.is_symlink():
        os.close(names.reserve("other", GOOD))
    else:
        with pytest.raises(SpecError, match="is no regular file \\(remove it\\)"):
            names.reserve("other", GOOD)


def test_a_name_that_cannot_be_written_is_not_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        names.reserve("other", GOOD)
    assert not Path(names.directory(), "other").exists()


NO_NUMBERS = ["Infinity", "-Infinity", "NaN", "1e999", "1e400", "-1", "true", '"1"', "[1]", "{}", "9" * 400]


@pytest.mark.parametrize("field", ["created", "log_size", "log_files", "timeout", "version"])
@pytest.mark.parametrize("number", NO_NUMBERS)
def test_numbers_of_a_config(field: str, number: str) -> None:
    if (field, number) == ("version", "true"):
        return  # Python's True is 1
    data = {**json.loads(config(GOOD)), field: "HERE"}
    with pytest.raises(CorruptError):
        Config.from_json(json.dumps(data).replace('"HERE"', number))


@pytest.mark.parametrize("field", [name for name in STATE if name not in ("boot", "status")])
@pytest.mark.parametrize("value", ["Infinity", "NaN", "1e999", '{"a": 1}', "9" * 400])
def test_values_of_a_state(field: str, value: str) -> None:
    data = {**STATE, "boot": boot_id(), field: "HERE"}
    with pytest.raises(CorruptError):
        State.from_json(json.dumps(data).replace('"HERE"', value), owner_alive=True)


LEASE = {"owner": "x", "address": "10.0.0.2", "names": "a b", "ports": [], "lines": [1], "private": False, "six": None}


@pytest.mark.parametrize("field", ["owner", "address", "names", "ports", "lines"])
@pytest.mark.parametrize("value", ["Infinity", "NaN", "[Infinity]", '""', "[-1]", "{}", "9" * 400, "[[]]"])
def test_values_of_a_lease(tmp_path: Path, field: str, value: str) -> None:
    if (field, value) in (("owner", '""'), ("ports", "{}"), ("lines", "{}"), ("ports", '""'), ("lines", '""')):
        return  # no ports, no lines
    path = tmp_path / "lease"
    path.write_text(json.dumps({**LEASE, field: "HERE"}).replace('"HERE"', value), encoding="utf-8")
    assert members.at(str(path)) is None
    path.write_text(json.dumps(LEASE), encoding="utf-8")
    assert members.at(str(path)) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_network(home: Path, kind: str) -> None:
    place = home / "networks" / "net"
    (place / "leases").mkdir(parents=True)
    KINDS[kind](place / "config.json")
    with pytest.raises(CorruptNetworkError):
        read_network("net")
    lease = place / "leases" / "10.0.0.2"
    KINDS[kind](lease)
    assert members.of("net") == []
    assert members.is_dead(str(lease)) == (lease.is_file() and not lease.is_symlink())
