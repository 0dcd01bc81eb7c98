"""Immutable and append-only files (chattr(1)), and mount points: the error names the file and the remedy, the
container keeps its state, and the same command works after the remedy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from box import CLI, Box, Operator, refusal, until
from supplies import Run

from minicontainer import runtime, volumes
from minicontainer.network import networks, store

pytestmark = pytest.mark.needs("immutable")


@contextmanager
def fixed(path: Path, letter: str = "i") -> Iterator[str]:
    """With that attribute; the command that takes it away."""
    subprocess.run(["chattr", f"+{letter}", path], check=True)
    try:
        yield f"chattr -{letter} {path}"
    finally:
        subprocess.run(["chattr", f"-{letter}", path], check=True)


@contextmanager
def covered(path: Path, _letter: str) -> Iterator[str]:
    """With something mounted on it; the command that takes it away."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        yield f"umount {path}"
    finally:
        subprocess.run(["umount", path], check=True)


def directory(identifier: str) -> Path:
    return Path(runtime.directory(), "containers", identifier)


def listed(run: Run) -> dict[str, str]:
    """The state of each container, by id."""
    lines = run("ps", "-a", "--no-trunc", "--format", "json").stdout.splitlines()
    return {one["ID"]: one["State"] for one in map(json.loads, lines)}


@pytest.mark.parametrize("name", ["config.json", "state", "log", ""])
@pytest.mark.parametrize(("hold", "letter"), [(fixed, "i"), (fixed, "a"), (covered, "")])
def test_the_directory_of_a_container(
    op: Operator,
    minicontainer_cli: Run,
    hold: Callable[[Path, str], AbstractContextManager[str]],
    letter: str,
    name: str,
) -> None:
    one = op.run("echo", "hi")
    assert op.do("wait", one).stdout == "0\n"
    with hold(directory(one) / name, letter) as remedy:
        for command in (["rm", one], ["rm", "-f", one], ["prune", "-f"]):
            refused = refusal(minicontainer_cli(*command), code=1, says=[one[:12], str(directory(one) / name)])
            assert f"({remedy})" in refused
            assert listed(minicontainer_cli)[one] == "exited"
        assert op.do("logs", one).stdout == "hi\n"
    assert op.do("rm", one).stdout == f"{one}\n"
    assert one not in listed(minicontainer_cli)


def test_a_container_that_is_to_remove_itself(op: Operator, minicontainer_cli: Run) -> None:
    one = op.run("sh", "-c", "read line; exit 3", options=("--rm", "-i", "--name", "pinned"))
    with fixed(directory(one) / "config.json") as remedy:
        minicontainer_cli("stop", "-t", "0", one)
        until(lambda: listed(minicontainer_cli)[one] == "exited")
        assert "(chattr" not in op.do("ps", "-a").stdout
        refusal(minicontainer_cli("prune", "-f"), code=1, says=[f"({remedy})"])
    assert op.do("rm", "pinned").stdout == "pinned\n"
    assert one not in listed(minicontainer_cli)


def test_a_container_in_the_foreground(box: Box, minicontainer_cli: Run, tmp_path: Path) -> None:
    """Its maker says why it stays."""
    words = ["run", "--cidfile", str(tmp_path / "id"), "-v", f"{tmp_path}:/told", str(box.rootfs)]
    waiting = subprocess.Popen(
        [*CLI, *words, "sh", "-c", "until [ -e /told/go ]; do sleep 0.05; done; exit 3"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: (tmp_path / "id").exists() and (tmp_path / "id").read_text())
    one = (tmp_path / "id").read_text().strip()
    with fixed(directory(one) / "config.json") as remedy:
        (tmp_path / "go").touch()
        _, said = waiting.communicate(timeout=120)
        assert f"({remedy})" in said
        assert waiting.returncode == 125
        assert listed(minicontainer_cli)[one] == "exited"
    assert minicontainer_cli("rm", one).returncode == 0
    assert listed(minicontainer_cli).get(one) is None


def as_told(refused: str) -> None:
    """Does what the error says."""
    subprocess.run(refused.rpartition("(")[2].rstrip(")").split(), check=True)


@pytest.mark.parametrize("name", ["_data/a/file", "_data/a", "_data", "volume.json", "users", ""])
@pytest.mark.parametrize("letter", ["i", "a"])
def test_a_volume(minicontainer_cli: Run, name: str, letter: str) -> None:
    """What a directory in it held may have been moved to the top by then: the error says where it is."""
    volume = volumes.create("pinned")
    Path(volume.path, "a").mkdir()
    Path(volume.path, "a/file").write_text("kept")
    subprocess.run(["chattr", f"+{letter}", Path(volume.path).parent / name], check=True)
    says = ["volume pinned: remove ", "Operation not permitted", f"(chattr -{letter} "]
    refusal(minicontainer_cli("volume", "rm", "pinned"), code=1, says=says)
    refused = refusal(minicontainer_cli("volume", "rm", "pinned"), code=1, says=says)
    assert minicontainer_cli("volume", "ls", "-q").stdout.split() == ["pinned"]
    as_told(refused)
    assert minicontainer_cli("volume", "rm", "pinned").stdout == "pinned\n"


@pytest.mark.needs("bridge")
@pytest.mark.parametrize("name", ["config.json", "hosts", "hosts/names", ""])
@pytest.mark.usefixtures("no_network_stays")
def test_a_network(minicontainer_cli: Run, name: str) -> None:
    network = networks.create("pinned")
    with fixed(Path(store.path("pinned"), name)) as remedy:
        refusal(minicontainer_cli("network", "rm", "pinned"), code=1, says=["network pinned: remove ", f"({remedy})"])
        assert networks.ensure("pinned") == network
    assert minicontainer_cli("network", "rm", "pinned").stdout == "pinned\n"


def test_a_file_that_an_archive_replaces(minicontainer_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/file").write_text("new")
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", "-C", tmp_path / "from", "file"], check=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("old")
    with fixed(root / "file") as remedy:
        refusal(minicontainer_cli("rootfs", "tar", tmp_path / "a.tar", root), says=[str(root / "file"), f"({remedy})"])
        assert (root / "file").read_text() == "old"


@pytest.mark.parametrize("options", [[], ["--ephemeral"]])
def test_a_directory_of_the_root_that_a_mount_point_is_missing_in(own_box: Box, options: list[str]) -> None:
    held = own_box.rootfs / "held"
    held.mkdir()
    with fixed(held):
        words = [*options, "-v", "/tmp:/held/new"]
        own_box.refused("true", options=words, says=["/held/new", "chattr -i the directory"])
