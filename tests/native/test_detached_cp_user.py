"""``cp`` and ``diff`` of an ordinary user: with his own rights, in a user namespace of his own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from abilities import USER_ID
from box import CLI, Done, copy_of, refusal
from supplies import Run

pytestmark = pytest.mark.needs("user", "userns", "overlay")

Call = Callable[..., Done]


@pytest.fixture
def call(as_user: Run) -> Call:
    """The command line, as the ordinary user."""
    return lambda *words: as_user([*CLI, *words])


@pytest.fixture(params=["--ephemeral", "--userns=private"])
def box(request: pytest.FixtureRequest, call: Call, rootfs: Path, user_directory: Path) -> Iterator[str]:
    """The id of a container of his."""
    root = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(root)], check=True)
    done = call("run", "-d", request.param, root, "sleep", "1000")
    assert (done.returncode, done.stderr) == (0, "")
    yield done.stdout.strip()
    assert call("rm", "-f", done.stdout.strip()).returncode == 0


def test_files_go_both_ways(call: Call, box: str, user_directory: Path) -> None:
    done = call("cp", "/etc/passwd", f"{box}:/tmp/x")
    assert (done.returncode, done.stderr) == (0, "")
    assert call("exec", box, "stat", "-c", "%u %g", "/tmp/x").stdout == "0 0\n"
    done = call("cp", f"{box}:/tmp", user_directory / "out")
    assert (done.returncode, done.stderr) == (0, "")
    copy = user_directory / "out" / "x"
    assert copy.read_text() == Path("/etc/passwd").read_text()
    assert (copy.stat().st_uid, copy.stat().st_gid) == (USER_ID, USER_ID)
    refusal(call("cp", "/etc/shadow", f"{box}:/tmp/y"), says=["cp /etc/shadow: permission denied"])
    refusal(call("cp", f"{box}:/tmp/x", "/etc/made"), says=["cp /etc/made: permission denied"])
    if call("exec", box, "chown", "5", "/tmp/x").returncode == 0:  # a range is mapped
        assert call("exec", box, "chmod", "600", "/tmp/x").returncode == 0
        refusal(call("cp", f"{box}:/tmp/x", user_directory), says=["cp /tmp/x: permission denied"])


def test_what_was_changed(call: Call, box: str) -> None:
    assert call("exec", box, "sh", "-c", "echo >/tmp/new; rm /etc/group").returncode == 0
    done = call("diff", box)
    if done.returncode:
        refusal(done, says=["is not ephemeral"])
    else:
        assert done.stdout == "C /etc\nD /etc/group\nC /tmp\nA /tmp/new\n"
