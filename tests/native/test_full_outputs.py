"""What cannot be written to since nothing is free there: one line that names it, and nothing is left running."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import Operator, refusal
from supplies import Run

pytestmark = pytest.mark.needs("root")

FULL = "No space left on device"


@pytest.mark.parametrize(
    "words",
    [
        ["ps", "-a"],
        ["ps", "--format", "json"],
        ["inspect", "BOX"],
        ["logs", "BOX"],
        ["events", "--since", "1h", "--until", "0s"],
        ["stats", "--no-stream"],
        ["top", "BOX"],
        ["port", "BOX"],
        ["export", "BOX"],
        ["network", "ls"],
        ["volume", "ls"],
        ["doctor"],
        ["info"],
        ["version"],
        ["--help"],
        ["manual"],
        ["completion", "bash"],
        ["run", "--dry-run", "ROOTFS", "true"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.usefixtures("no_network_stays")
def test_stdout(op: Operator, minicontainer_cli: Run, rootfs: Path, words: list[str], unbuffered: str) -> None:
    box = op.run("sh", "-c", "echo hello; exec sleep 1000", options=("-p", "127.0.0.1::80/tcp") * ("port" in words))
    given = [{"BOX": box, "ROOTFS": str(rootfs)}.get(word, word) for word in words]
    with open("/dev/full", "w") as full:
        done = minicontainer_cli(
            *given,
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert "stdout: no space left on device" in refusal(done).lower()


@pytest.mark.parametrize("what", [["run", "-d"], ["create"]], ids=" ".join)
def test_an_id_that_nobody_gets(minicontainer_cli: Run, rootfs: Path, what: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = minicontainer_cli(*what, rootfs, "sleep", "1000", stdout=full, stderr=subprocess.PIPE)
    assert f"stdout: {FULL}" in refusal(done)
    assert minicontainer_cli("ps", "-aq").stdout == ""


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A directory in which a file can be made, and nothing written to it."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=20", "none", place], check=True)
    try:
        (place / "ballast").write_bytes(bytes(4096))
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("what", [["run"], ["run", "-d"], ["create"]], ids=" ".join)
def test_a_file_of_an_id(minicontainer_cli: Run, rootfs: Path, full: Path, what: list[str]) -> None:
    done = minicontainer_cli(*what, f"--cidfile={full}/id", rootfs, "sleep", "1000")
    assert f"{full}/id: {FULL}" in refusal(done)
    assert minicontainer_cli("ps", "-aq").stdout == ""
    assert os.listdir(full) == ["ballast"]


@pytest.mark.parametrize("option", ["--meta=", "--explain=json:"])
def test_a_report(minicontainer_cli: Run, rootfs: Path, full: Path, option: str) -> None:
    for path in (f"{full}/report", "/dev/full"):
        assert f"{path}: {FULL}" in refusal(minicontainer_cli("run", f"{option}{path}", rootfs, "true"))


def test_the_reason_of_an_end(minicontainer_cli: Run, rootfs: Path) -> None:
    """The exit code says it, too."""
    with open("/dev/full", "w") as full:
        done = minicontainer_cli("run", "--timeout", "0.2", rootfs, "sleep", "1000", stderr=full)
    assert done.returncode == 124


def test_an_archive(op: Operator, minicontainer_cli: Run, full: Path) -> None:
    box = op.run("sleep", "1000")
    for path in (f"{full}/box.tar", "/dev/full"):
        assert f"export {path}: {FULL.lower()}" in refusal(minicontainer_cli("export", "-o", path, box))
    assert os.listdir(full) == ["ballast"]


@pytest.mark.needs("kvm")
@pytest.mark.parametrize("option", ["--trace", "--meta", "--serial"])
def test_of_a_machine(minicontainer_cli: Run, option: str) -> None:
    done = minicontainer_cli("kvm-boot", f"{option}=/dev/full", "hello")
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert line.endswith(FULL)
    assert ("serial output" if option == "--serial" else "/dev/full") in line


def test_what_cp_copies(op: Operator, minicontainer_cli: Run, full: Path, tmp_path: Path) -> None:
    """The destination is named, whichever side is full."""
    box = op.run("sh", "-c", "mkdir /full/d; exec sleep 1000", options=("-v", f"{full}:/full"))
    (tmp_path / "from").mkdir()
    (tmp_path / "from/file").write_bytes(bytes(range(256)) * 16)
    assert f"cp {full}/profile: {FULL.lower()}" in refusal(
        minicontainer_cli("cp", f"{box}:/bin/busybox", f"{full}/profile")
    )
    for source, target, name in (
        (tmp_path / "from/file", "/full/new", "/full/new"),
        (tmp_path / "from/file", "/full", "/full/file"),
        (tmp_path / "from", "/full", "/full/from/file"),
        (f"{tmp_path}/from/.", "/full", "/full/file"),
    ):
        assert f"cp {name}: {FULL.lower()}" in refusal(minicontainer_cli("cp", source, f"{box}:{target}"))


@pytest.mark.needs("kvm")
def test_the_serial_port(minicontainer_cli: Run, full: Path) -> None:
    for path in (f"{full}/serial", "/dev/full"):
        assert f"write(serial output {path}): {FULL}" in refusal(
            minicontainer_cli("kvm-boot", "hello", "--serial", path)
        )
