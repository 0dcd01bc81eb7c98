"""A container whose monitor was killed, and whose process was not told of that: it has changed its ids, which clears
the signal at its parent's death. Who sees it next ends it; its ids and its address are nobody else's before."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box import copy_of, refusal, until
from supplies import Run

import minicontainer as mc
from minicontainer.container.cgroup import limits
from minicontainer.container.ids import ranges
from minicontainer.detached.container import Container
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux.process import Process, stat
from minicontainer.network import networks

pytestmark = pytest.mark.needs("root")

Make = Callable[..., Container]
CHOSEN = ranges.Range(1_900_000_000, 1_900_000_000)  # above those of `auto`


@pytest.fixture
def outlive(make: Make, rootfs: Path, tmp_path: Path) -> Callable[..., tuple[Container, Process]]:
    """Starts one, and kills its monitor; it, and its process, which runs on."""
    own = copy_of(rootfs, tmp_path / "root")
    (own / "etc").mkdir(exist_ok=True)
    (own / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")

    def start(**options: Any) -> tuple[Container, Process]:
        c = make("su", "nobody", "-c", "exec sleep 1000", rootfs=str(own), **options)
        monitor, process = c.state.monitor, c.state.process
        assert monitor is not None
        assert process is not None
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"))
        os.kill(monitor.pid, 9)
        until(lambda: not monitor.is_alive())
        assert process.is_alive()
        return c, process

    return start


COMMANDS = [
    ["ps", "-a"],
    ["inspect"],
    ["stop"],
    ["start"],
    ["wait"],
    ["exec", "true"],
    ["logs"],
    ["rm"],
    ["rm", "-f"],
    ["doctor", "--clean"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_next_command_ends_it(
    outlive: Callable[..., tuple[Container, Process]], minicontainer_cli: Run, words: list[str]
) -> None:
    c, process = outlive()
    own = [] if words[0] in ("ps", "doctor") else [c.id]
    command = [words[0], *own, *words[1:]] if words[0] == "exec" else [*words, *own]
    minicontainer_cli(*command)
    assert not process.is_alive()


OTHERS = [
    ["stop", "other"],
    ["top", "other"],
    ["exec", "other", "true"],
    ["stats", "--no-stream"],
    ["prune", "-f"],
    ["info"],
    ["events", "--until", "0"],
    ["network", "ls"],
    ["volume", "prune", "-f"],
]


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_so_does_one_about_another(
    outlive: Callable[..., tuple[Container, Process]], make: Make, minicontainer_cli: Run, words: list[str]
) -> None:
    make("sleep", "1000", name="other")
    _, process = outlive()
    minicontainer_cli(*words)
    assert not process.is_alive()


NAMERS = [["run", "--name"], ["run", "-d", "--name"], ["create", "--name"], ["rename", "other"]]


@pytest.mark.parametrize("words", NAMERS, ids=" ".join)
def test_so_does_one_that_wants_its_name(
    outlive: Callable[..., tuple[Container, Process]],
    make: Make,
    minicontainer_cli: Run,
    rootfs: Path,
    words: list[str],
) -> None:
    """And is refused, as by one that has ended in order: ``rm`` frees it."""
    other = make("sleep", "1000", name="other")
    c, process = outlive(name="wanted")
    command = [*words, "wanted", *([] if words[0] == "rename" else [str(rootfs), "true"])]
    told = refusal(minicontainer_cli(*command)).replace(": --", ": ")
    assert told == f"minicontainer: name wanted: already exists (container {c.id[:12]}) (minicontainer rm or rename it)"
    assert not process.is_alive()
    assert (c.status, Container(other.id).name) == ("dead", "other")
    assert minicontainer_cli("rm", "wanted").returncode == 0
    done = minicontainer_cli(*command)
    assert (done.returncode, done.stderr) == (0, "")
    minicontainer_cli("rm", "-f", "wanted")


def test_so_does_the_library_that_wants_its_name(
    outlive: Callable[..., tuple[Container, Process]], rootfs: Path
) -> None:
    _, process = outlive(name="wanted")
    with pytest.raises(SpecError, match="name wanted: already exists"):
        Container.start(["true"], rootfs=str(rootfs), name="wanted")
    assert not process.is_alive()


@pytest.mark.parametrize("start", [mc.run, mc.Popen])
def test_so_does_the_library_that_wants_its_name_in_the_foreground(
    outlive: Callable[..., tuple[Container, Process]], rootfs: Path, start: Callable[..., object]
) -> None:
    _, process = outlive(name="wanted")
    with pytest.raises(SpecError, match="name wanted: already exists"):
        start(["true"], rootfs=str(rootfs), name="wanted")
    assert not process.is_alive()


def test_the_next_command_ends_it_where_it_has_no_cgroup(
    outlive: Callable[..., tuple[Container, Process]], minicontainer_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(limits, "place", lambda *_, **__: None)
        c, process = outlive()
    assert c.open_cgroup() is None
    minicontainer_cli("volume", "ls")
    assert not process.is_alive()
    assert c.status == "dead"


def test_the_library_ends_it(outlive: Callable[..., tuple[Container, Process]]) -> None:
    c, process = outlive()
    assert c.id in [found.id for found in mc.containers()]
    assert not process.is_alive()


def give_back(lease: ranges.Lease) -> None:
    lease.set_byte(0)
    lease.close()


def test_its_ids_are_nobody_else_s(outlive: Callable[..., tuple[Container, Process]]) -> None:
    c, process = outlive()
    had = Path(f"/proc/{process.pid}/uid_map").read_text().split()
    first = int(had[1])
    assert ranges._try_allocate(ranges.Range(first, first)) is None
    with pytest.raises(UnsupportedError, match="a running container was given some of these ids"):
        ranges.allocate_shared(ranges.Range(first + 1, first + 1, 10))
    c.remove(force=True)
    give_back(until(lambda: ranges._try_allocate(ranges.Range(first, first))))


def test_ids_that_were_chosen_are_given_to_nobody(outlive: Callable[..., tuple[Container, Process]]) -> None:
    c, process = outlive(userns=f"{CHOSEN.uid}:{CHOSEN.gid}:{CHOSEN.width}")
    for uid in (CHOSEN.uid - 5, CHOSEN.uid, CHOSEN.uid + CHOSEN.width - 1):
        assert ranges._try_allocate(ranges.Range(uid, uid)) is None
    ranges.allocate_shared(CHOSEN).release()  # who chooses may choose the same
    c.remove(force=True)
    assert not process.is_alive()
    give_back(until(lambda: ranges._try_allocate(CHOSEN)))


@pytest.mark.needs("bridge")
def test_its_address_is_free_when_it_has_ended(
    outlive: Callable[..., tuple[Container, Process]], make: Make, rootfs: Path
) -> None:
    networks.create("test-outlive", subnet="10.213.77.0/29")
    try:
        c, process = outlive(network="test-outlive", ip="10.213.77.2")
        other = make("sleep", "1000", network="test-outlive", ip="10.213.77.2")
        assert not process.is_alive()
        other.remove(force=True)
        c.remove(force=True)
    finally:
        networks.remove("test-outlive")


def test_nothing_is_taken_for_it(outlive: Callable[..., tuple[Container, Process]]) -> None:
    """A second look ends nobody."""
    c, process = outlive()
    c.stop()
    assert stat(os.getpid()).state
    assert Container.find(c.id).status == "dead"
    assert not process.is_alive()
