"""Named volumes: made, mounted, shared, kept while a container has them, out of others' reach."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from abilities import NOBODY, USER, USER_ID
from box import CLI, Operator, line_of, refusal, started, until
from supplies import Run

import minicontainer as mc
from minicontainer import runtime, volumes

pytestmark = pytest.mark.needs("root")


@pytest.fixture(autouse=True)
def no_volumes() -> Iterator[None]:
    assert volumes.volumes() == []
    yield
    volumes.prune(everything=True)
    assert volumes.volumes() == []


def test_a_life(op: Operator) -> None:
    assert op.out("volume", "create", "--label", "a=b", "data") == "data\n"
    assert op.out("volume", "create", "data") == "data\n"  # it is there
    c = op.run("sh", "-c", "echo kept > /v/file; exec sleep 1000", options=("-v", "data:/v"))
    until(lambda: op.do("exec", c, "test", "-s", "/v/file").returncode == 0)
    assert op.out("run", "-v", "data:/w:ro", str(op.rootfs), "cat", "/w/file") == "kept\n"
    done = op.do(
        "run", "--mount", "type=volume,source=data,target=/w,readonly", str(op.rootfs), "touch", "/w/x", code=1
    )
    assert "Read-only file system" in done.stderr
    refusal(op.do("volume", "rm", "data", code=1), 1, [f"volume data: is in use by {c[:12]}"])
    op.out("stop", "-t", "0", c)
    refusal(op.do("volume", "rm", "data", code=1), 1, [f"volume data: is in use by {c[:12]}"])  # it can be started
    assert [path.name for path in Path(volumes.directory(), "data/users").iterdir()] == [c]
    op.out("rm", c)
    assert not list(Path(volumes.directory(), "data/users").iterdir())
    assert op.out("run", "-v", "data:/v", str(op.rootfs), "cat", "/v/file") == "kept\n"
    assert op.out("volume", "rm", "data") == "data\n"
    refusal(
        op.do("volume", "rm", "data", code=1), 1, ["volume data: there is no such volume", "minicontainer volume ls"]
    )
    assert op.out("volume", "rm", "-f", "data") == ""


def test_one_that_is_missing_is_made(op: Operator) -> None:
    op.out("run", "--dry-run", "-v", "fresh:/v", str(op.rootfs))
    assert op.out("volume", "ls", "-q") == ""
    c = op.out("create", "-v", "fresh:/v", str(op.rootfs), "sleep", "1000").strip()
    op.ids.append(c)
    assert op.out("volume", "ls", "-q") == "fresh\n"
    assert op.out("volume", "ls", "--filter", "dangling=true", "-q") == ""
    op.out("start", c)
    (mount,) = op.inspect(c)["Mounts"]
    assert (mount["Type"], mount["Name"], mount["Destination"]) == ("volume", "fresh", "/v")
    assert os.path.samefile(mount["Source"], f"/proc/{op.inspect(c)['State']['Pid']}/root/v")
    assert op.inspect(c)["HostConfig"]["Binds"] == ["fresh:/v:rw"]
    assert [row["ID"] for row in op.rows("--filter", "volume=fresh")] == [c]


def test_what_is_known_of_them(op: Operator) -> None:
    op.out("volume", "create", "--label", "kind=db", "one")
    unnamed = op.out("volume", "create").strip()
    assert re.fullmatch("[0-9a-f]{64}", unnamed)
    (told,) = json.loads(op.out("volume", "inspect", "one"))
    assert (told["Name"], told["Driver"], told["Labels"], told["Links"]) == ("one", "local", {"kind": "db"}, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", told["CreatedAt"])
    assert op.out("volume", "inspect", "-f", "{{.Mountpoint}}", "one") == f"{volumes.find('one').path}\n"
    rows = [json.loads(line) for line in op.out("volume", "ls", "--format", "json").splitlines()]
    assert sorted(row["Name"] for row in rows) == sorted([unnamed, "one"])
    assert op.out("volume", "ls", "--filter", "label=kind", "--format", "{{.Name}} {{.Labels}}") == "one kind=db\n"
    assert op.out("volume", "ls", "--filter", "name=^on", "-q") == "one\n"
    assert op.out("volume", "ls").splitlines()[0].split("  ")[0] == "VOLUME NAME"
    refusal(op.do("volume", "ls", "--filter", "dangling=maybe", code=125), 125, ["dangling=maybe: must be one of"])
    refusal(op.do("volume", "create", "a/b", code=125), 125, ["volume a/b: must match"])
    done = op.do("volume", "inspect", "one", "none", code=1)
    assert json.loads(done.stdout)[0]["Name"] == "one"
    assert "volume none: there is no such volume" in done.stderr


def test_prune_spares_names_and_users(op: Operator) -> None:
    unnamed, named = op.out("volume", "create").strip(), op.out("volume", "create", "named").strip()
    c = op.run("sleep", "1000", options=("-v", "used:/v"))
    assert "Remove all volumes without a name" in op.do("volume", "prune", input="n\n", code=130).stdout
    asked = op.do("volume", "prune", input="", code=125)
    assert asked.stderr.endswith("? stdin has ended without an answer (-f does not ask)\n")
    assert op.out("volume", "prune", "-f") == f"{unnamed}\n"
    assert op.out("volume", "prune", "-a", "-f") == f"{named}\n"
    op.out("rm", "-f", c)
    assert op.out("volume", "prune", "-a", "-f") == "used\n"


def test_one_that_a_foreground_container_has(op: Operator) -> None:
    with started("run", "-v", "held:/v", op.rootfs, "sh", "-c", "echo up; exec sleep 1000") as process:
        assert line_of(process) == "up"
        refusal(op.do("volume", "rm", "held", code=1), 1, ["volume held: is in use by "])
        process.send_signal(signal.SIGKILL)  # who waits for it: so it ends too
        process.wait()
        until(lambda: volumes.users("held") == [])
    op.do("doctor", "--clean")  # of its cgroup
    assert op.out("volume", "rm", "held") == "held\n"


def test_two_containers_share_one(rootfs: Path) -> None:
    mount = mc.Mount.volume("shared:/v")
    with mc.Popen(["sh", "-c", "echo a > /v/a; read x; cat /v/b"], rootfs=str(rootfs), mounts=(mount,), stdin=mc.PIPE,
                  stdout=mc.PIPE, text=True) as first:  # fmt: skip
        until(lambda: os.path.exists(f"{volumes.find('shared').path}/a"))
        done = mc.run(["sh", "-c", "cat /v/a; echo b > /v/b"], rootfs=str(rootfs), mounts=(mount,), capture_output=True)
        assert done.stdout == b"a\n"
        assert len(volumes.users("shared")) == 1
        assert first.communicate("\n", timeout=120)[0] == "b\n"
    assert volumes.users("shared") == []


def test_what_its_root_writes_is_roots_and_out_of_others_reach(op: Operator) -> None:
    """A set-uid file of the host's root's, which a container can leave, must be none that a user could execute."""
    path = op.rootfs / "bin/busybox"
    script = "cp /bin/busybox /v/su; chown 0:0 /v/su; chmod 4755 /v/su; chmod 777 /v"
    op.out("run", "-v", "reach:/v", str(op.rootfs), "sh", "-c", script)
    left = Path(volumes.find("reach").path) / "su"
    assert left.stat().st_uid == 0
    assert left.stat().st_mode & 0o7777 == 0o4755
    assert Path(volumes.directory()).stat().st_mode & 0o777 == 0o700
    with pytest.raises(PermissionError):
        subprocess.run([left, "id", "-u"], user=NOBODY, group=NOBODY, extra_groups=[], check=True)
    assert subprocess.run([path, "true"], check=True).returncode == 0  # it would run where it can be reached


def test_a_directory_that_others_could_enter_is_shut(op: Operator) -> None:
    volumes.create("x")
    os.chmod(volumes.directory(), 0o755)
    volumes.create("y")
    assert Path(volumes.directory()).stat().st_mode & 0o777 == 0o700


def test_what_it_holds_is_removed_and_nothing_else(op: Operator, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("here")
    script = f"mkdir -p /v/a/b; ln -s {tmp_path} /v/link; ln -s / /v/a/root; mkfifo /v/fifo; chmod 0 /v/a"
    op.out("run", "-v", "hostile:/v", str(op.rootfs), "sh", "-c", script)
    op.out("volume", "rm", "hostile")
    assert (tmp_path / "victim").read_text() == "here"
    assert os.listdir(volumes.directory()) == []


def test_a_maker_that_was_killed_leaves_nothing(op: Operator) -> None:
    volumes.create("first")
    os.mkdir(f"{volumes.directory()}/.second")
    volumes.create("second")
    assert sorted(os.listdir(volumes.directory())) == ["first", "second"]


def test_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = os.environ[runtime.VARIABLE]
    assert volumes.directory() == f"{chosen}/volumes"
    monkeypatch.delenv(runtime.VARIABLE)
    assert volumes.directory() == "/var/lib/minicontainer/volumes"
    monkeypatch.setattr(os, "geteuid", lambda: USER_ID)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/of/data")
    assert volumes.directory() == "/home/of/data/minicontainer/volumes"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/of")
    assert volumes.directory() == "/home/of/.local/share/minicontainer/volumes"


def test_names_are_completed(op: Operator) -> None:
    op.out("volume", "create", "complete-me")
    words = {"COMP_WORDS": "minicontainer volume rm comp", "COMP_CWORD": "3"}
    env = {**os.environ, "_MINICONTAINER_COMPLETE": "bash_complete", **words}
    done = subprocess.run(CLI, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,complete-me\n"


@pytest.mark.needs("user", "userns")
def test_of_an_ordinary_user(as_user: Run, rootfs: Path) -> None:
    data = Path(f"/home/{USER}/.local/share/minicontainer/volumes")

    def out(*words: str | Path) -> str:
        done = as_user(["env", "-u", runtime.VARIABLE, *CLI, *words])
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    out("run", "-v", "mine:/mnt", rootfs, "sh", "-c", "echo x > /mnt/x; id -u")
    assert (data / "mine/_data/x").stat().st_uid == USER_ID
    assert out("run", "-v", "mine:/mnt", rootfs, "cat", "/mnt/x") == "x\n"
    out("volume", "rm", "mine")
    assert os.listdir(data) == []
