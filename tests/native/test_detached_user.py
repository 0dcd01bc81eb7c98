"""Detached containers of an ordinary user: in user namespaces of his own, with his own state directory."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from abilities import USER_ID
from box import CLI, Done, copy_of, refusal
from supplies import Run

pytestmark = pytest.mark.needs("user", "userns")

STATE = Path(f"/run/user/{USER_ID}/minicontainer")


class UserOperator:
    """The command line of the ordinary user; what he leaves is removed."""

    def __init__(self, run: Run, rootfs: Path) -> None:
        self._run, self.rootfs = run, rootfs

    def do(self, *words: str | Path, code: int = 0, path: str | None = None) -> Done:
        environment = [] if path is None else ["env", f"PATH={path}"]
        done = self._run([*environment, *CLI, *words])
        assert done.returncode == code, done
        return done

    def out(self, *words: str | Path, path: str | None = None) -> str:
        done = self.do(*words, path=path)
        assert not done.stderr, done
        return done.stdout.strip()


@pytest.fixture
def op(as_user: Run, rootfs: Path, user_directory: Path) -> Iterator[UserOperator]:
    path = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(path)], check=True)
    operator = UserOperator(as_user, path)
    yield operator
    ids = operator.out("ps", "-aq", "--no-trunc").split()
    if ids:
        operator.do("rm", "-f", *ids)


@pytest.fixture(params=["ranges", "one id"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """A PATH with newuidmap and newgidmap, and one without."""
    if request.param == "ranges":
        return None
    (tmp_path / "sh").symlink_to("/bin/sh")
    tmp_path.chmod(0o755)
    return str(tmp_path)


def test_why_a_limit_cannot_be_had(op: UserOperator) -> None:
    """update and run say the same: the user's cgroup is not delegated, so the container has none."""
    running = op.out("run", "-d", op.rootfs, "sleep", "1000")
    ran = op.do("run", "-m", "64m", op.rootfs, "true", code=125)
    refusal(ran, 125, ["-m 64m: ", f"is not delegated to user {USER_ID}", "systemd-run --user"])
    assert op.do("update", "-m", "64m", running, code=1).stderr == ran.stderr
    op.out("stop", "-t", "0", running)
    assert op.do("update", "-m", "64m", running, code=1).stderr == ran.stderr


def test_a_life(op: UserOperator, path: str | None) -> None:
    script = "echo hello; id -u; cat /proc/self/uid_map; trap 'exit 3' TERM; while :; do sleep 0.05; done"
    c = op.out("run", "-d", "--name", "mine", op.rootfs, "sh", "-c", script, path=path)
    assert (STATE / "containers" / c).is_dir()
    assert (STATE / "containers" / c).stat().st_uid == USER_ID
    (row,) = [json.loads(line) for line in op.out("ps", "--format", "json").splitlines()]
    assert (row["ID"], row["State"]) == (c, "running")
    assert op.out("exec", "mine", "sh", "-c", "id -u; hostname").split() == ["0", "mine"]
    inside = op.out("exec", "mine", "cat", "/proc/self/uid_map")
    assert len(inside.splitlines()) == (2 if path is None else 1)
    op.do("stop", "mine")
    assert op.out("wait", "mine") == "3"
    said = op.out("logs", "mine").splitlines()
    assert said[:2] == ["hello", "0"]
    assert "\n".join(said[2:]).split() == inside.split()
    op.out("start", "mine")
    op.out("rm", "-f", "mine")
    assert not (STATE / "containers" / c).exists()


def test_restarts_map_the_ids_again(op: UserOperator, path: str | None) -> None:
    c = op.out("run", "-d", "--restart", "on-failure:2", op.rootfs, "sh", "-c", "id -u; exit 1", path=path)
    assert op.out("wait", c) == "1"
    assert op.out("logs", c).split() == ["0", "0", "0"]


def test_others_containers_are_not_his(op: UserOperator) -> None:
    refusal(op.do("stop", "0" * 64, code=1), 1, ["there is no such container"])
    root_s = subprocess.run([*CLI, "run", "-d", op.rootfs, "sleep", "1000"], capture_output=True, text=True, check=True)
    try:
        assert "there is no such container" in op.do("inspect", root_s.stdout.strip(), code=1).stderr
        assert root_s.stdout.strip() not in op.out("ps", "-aq", "--no-trunc")
    finally:
        subprocess.run([*CLI, "rm", "-f", root_s.stdout.strip()], check=True, capture_output=True)


def test_a_shell_of_another_user_inside(op: UserOperator) -> None:
    c = op.out("run", "-d", op.rootfs, "sleep", "1000")
    assert op.out("exec", "-u", "1000", c, "id", "-u") == "1000"


def test_keep_id(op: UserOperator, path: str | None) -> None:
    c = op.out("run", "-d", "--userns", "keep-id", op.rootfs, "sleep", "1000", path=path)
    assert op.out("exec", c, "sh", "-c", "id -u; id -g; touch /made; stat -c %u /made").split() == [str(USER_ID)] * 3
    assert (op.rootfs / "made").stat().st_uid == USER_ID
