"""Where something that is always there is missing, or is another's: the doctor says what does not work, and what is
asked for is done, or refused in a line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from box import CLI, refusal

pytestmark = pytest.mark.needs("root")

ROOT = 'mount --rbind / "$0" && umount -l "$0/proc" "$0/sys" && exec chroot "$0" "$@"'
GONE = {name: ["unshare", "-m", "sh", "-c", f'umount -l {name} && exec "$@"', "sh"] for name in ("/proc", "/sys")}
PLACES = {
    "a pid namespace with the outer proc": ["unshare", "-p", "-f"],
    "a pid namespace": ["unshare", "-p", "-f", "--mount-proc"],
    "a network namespace": ["unshare", "-n"],
    "a mount namespace": ["unshare", "-m"],
    "a cgroup namespace": ["unshare", "-C"],
    "a user namespace": ["unshare", "-U", "-r"],
    "a user namespace, as nobody": ["unshare", "-U"],
    "a user and a pid namespace with the outer proc": ["unshare", "-U", "-r", "-p", "-f"],
    "no proc": GONE["/proc"],
    "no sys": GONE["/sys"],
    "a bare chroot": ["unshare", "-m", "sh", "-c", ROOT],
}


def at(place: str, tmp_path: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line there."""
    before = [*PLACES[place], *([str(tmp_path)] if place == "a bare chroot" else [])]
    command = [*before, *CLI, *map(str, words)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300, cwd="/"
    )


@pytest.mark.parametrize("place", PLACES)
def test_no_probe_crashes(place: str, tmp_path: Path, rootfs: Path) -> None:
    done = at(place, tmp_path, "doctor", "--format", "json", rootfs)
    assert done.returncode in (0, 1), done
    found = [finding for section in json.loads(done.stdout)["sections"].values() for finding in section]
    assert found
    assert [one for one in found if one["remedy"] == "please report it"] == []
    assert done.stderr == ""


PROC = {
    "a pid namespace with the outer proc": "is that of another pid namespace (mount -t proc proc /proc, as",
    "no proc": "is not mounted (mount -t proc proc /proc)",
    "a bare chroot": "is not mounted (mount -t proc proc /proc)",
}


@pytest.mark.parametrize("words", [["run"], ["run", "-d"], ["run", "--userns", "host", "--name", "x"]], ids=" ".join)
@pytest.mark.parametrize("place", PROC)
def test_nothing_is_started_by_numbers_of_others(place: str, tmp_path: Path, rootfs: Path, words: list[str]) -> None:
    refusal(at(place, tmp_path, *words, rootfs, "true"), says=[f"minicontainer: /proc: {PROC[place]}"])


def test_nothing_is_ended_by_numbers_of_others(make: object, tmp_path: Path, rootfs: Path) -> None:
    c = make("sleep", "1000")  # type: ignore[operator]
    for words in (["rm", "-f", c.id], ["stop", c.id], ["exec", c.id, "true"], ["top", c.id]):
        done = at("a pid namespace with the outer proc", tmp_path, *words)
        assert done.returncode
        assert "/proc: is that of another pid namespace" in done.stderr
    assert c.status == "running"


@pytest.mark.parametrize(
    "place",
    PLACES.keys() - PROC.keys() - {"a user namespace, as nobody"} - {"a user and a pid namespace with the outer proc"},
)
def test_a_run_works(place: str, tmp_path: Path, rootfs: Path) -> None:
    done = at(place, tmp_path, "run", rootfs, "echo", "hi")
    if place == "no sys" and done.returncode:  # where this host has mounted no other one
        refusal(done, says=["/sys", "--userns host"])
        done = at(place, tmp_path, "run", "--userns", "host", rootfs, "echo", "hi")
    assert (done.returncode, done.stdout) == (0, "hi\n"), done
