"""Root of a user namespace is not root of the host: containers where LXC, rootless podman or a CI service run us, and
in a container of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import userns
from box import CLI, Box, Done, copy_of, python, python_options, refusal

from minicontainer.linux.userns import is_root

pytestmark = pytest.mark.needs("root", "userns")

LOOKS = "echo it; id -u; cat /dev/null; head -c 4 /dev/zero | wc -c; ls -d /sys/kernel /dev/pts/ptmx /dev/shm"
SHOWN = ["it", "0", "4", "/dev/pts/ptmx", "/dev/shm", "/sys/kernel"]
OPTIONS = (
    "",
    "--userns private",
    "--userns host",
    "--userns keep-id",
    "--ephemeral",
    "--init",
    "--read-only --tmpfs /tmp",
    "--network host --pid host --ipc host",
    "--network host --pid host --ipc host --userns host",
    "--privileged",
    "--device /dev/zero:/dev/mine --add-host x:10.0.0.1 --ulimit nofile=20",
)


KINDS = [userns.ONE, userns.ALL, pytest.param(userns.SHIFTED, marks=pytest.mark.needs("nobody"))]


@pytest.fixture(params=KINDS, ids=["one", "all", "shifted"])
def ids(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What is mapped: root alone (``unshare -r``), or 65,536 ids, with root of the host among them or not."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def root(rootfs: Path, ids: tuple[str, str]) -> Iterator[Path]:
    """A root file system that belongs to root there."""
    place = Path("/tmp", f"nested-{os.getpid()}")  # nobody else can enter those of pytest
    place.mkdir(mode=0o755)
    copy_of(rootfs, place / "root")
    (place / "run").mkdir(mode=0o700)
    if ids == userns.SHIFTED:
        subprocess.run(["chown", "-R", ":".join(ids[:1] * 2), str(place)], check=True)
    yield place / "root"
    shutil.rmtree(place)


class Nested:
    """The command line in that namespace."""

    def __init__(self, ids: tuple[str, str], root: Path) -> None:
        self.root, self._prefix, self._env = root, userns.inside(ids), dict(os.environ)
        if ids == userns.SHIFTED:  # the state directory of the tests is not its own
            self._env.pop("MINICONTAINER_ROOT", None)
            self._env["XDG_RUNTIME_DIR"] = str(root.parent / "run")

    def __call__(self, *words: str | Path) -> Done:
        command = [*self._prefix, *CLI, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=self._env, timeout=120, check=False)

    def says(self, *words: str | Path) -> list[str]:
        """What comes out; nothing else is said."""
        done = self(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.split()


@pytest.fixture
def nested(ids: tuple[str, str], root: Path) -> Nested:
    return Nested(ids, root)


@pytest.mark.needs("overlay")
@pytest.mark.parametrize("options", OPTIONS)
def test_a_container(nested: Nested, options: str) -> None:
    assert nested.says("run", *options.split(), nested.root, "sh", "-c", f"{LOOKS}; echo x >/tmp/x") == SHOWN


def test_who_it_is(nested: Nested, ids: tuple[str, str]) -> None:
    """All that is mapped there is mapped inside; what is not, is said."""
    options = ["--user", "1000", "--group-add", "44"]
    if ids == userns.ONE:
        line = refusal(nested("run", *options, nested.root, "true"), says=["user 1000", "only 0:0 is mapped"])
        assert "newuidmap" not in line
        return
    said = nested.says("run", *options, nested.root, "sh", "-c", "id -u; id -g; id -G")
    assert said == ["1000", "1000", "1000", "44"]
    assert nested.says("run", nested.root, "stat", "-c", "%g", "/dev/pts/ptmx", "/dev/pts") == ["0", "0"]
    shown = nested("run", nested.root, "grep", "devpts", "/proc/self/mountinfo").stdout
    assert (
        f"gid={int(ids[0]) + 5}," in shown
    )  # devpts shows what it is outside (fs/devpts/inode.c, devpts_show_options)


def test_what_only_root_of_the_host_can(nested: Nested) -> None:
    refusal(nested("run", "--userns", "1:1:1", nested.root, "true"), says=["only root of the host gives ids away"])
    refusal(nested("network", "create", "some"), says=["bridges are root's"])
    assert "device program" in nested("doctor").stdout


LIFE = """
run() { "$PYTHON" -m minicontainer "$@" || exit; }
run run -d --name $NAME "$ROOT" sleep 1000 >/dev/null
run exec $NAME sh -c 'tr "\\0" " " </proc/1/cmdline; id -u'
run ps -q --filter name=$NAME | wc -w
run cp $NAME:/etc/passwd "$ROOT/../copy"
run restart -t 0 $NAME
run rm -f $NAME
"""


def test_a_detached_one(ids: tuple[str, str], root: Path) -> None:
    name = f"nested-{os.getpid()}"
    env = {
        **os.environ,
        "PYTHON": CLI[0],
        "NAME": name,
        "ROOT": str(root),
        "MINICONTAINER_ROOT": str(root.parent / "run"),
    }
    command = [*userns.inside(ids), "sh", "-c", LIFE]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["sleep", "1000", "0", "1", name, name]
    assert (root.parent / "copy").read_bytes() == (root / "etc/passwd").read_bytes()


def test_exec_from_elsewhere(nested: Nested, root: Path) -> None:
    """Root of one user namespace has no rights over what another one's root has started."""
    name = f"nested-{os.getpid()}"
    nested.says("run", "-d", "--name", name, root, "sleep", "1000")
    try:
        refusal(nested("exec", name, "true"), says=["exec", "another user namespace"])
    finally:
        assert nested.says("rm", "-f", name) == [name]


def test_where_no_user_namespace_is_to_be_had(ids: tuple[str, str], root: Path) -> None:
    """It runs without, and says so; who insists is refused."""
    none = f"echo 0 >/proc/sys/user/max_user_namespaces; exec {' '.join(CLI)} run $0 {root} echo here"
    env = {**os.environ, "MINICONTAINER_ROOT": str(root.parent / "run")}

    def run(option: str) -> Done:
        command = [*userns.inside(ids), "sh", "-c", none, option]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)

    done = run("--init")
    assert (done.returncode, done.stdout) == (0, "here\n"), done
    assert (
        "warning: userns auto: disabled by sysctl user.max_user_namespaces=0; running as --userns host" in done.stderr
    )
    refusal(run("--userns=private"), says=["userns", "user.max_user_namespaces=0"])


def test_facts(ids: tuple[str, str]) -> None:
    assert is_root()
    code = "from minicontainer.linux import userns as n; print(n.is_root(), n.is_first_user_namespace())"
    command = [*userns.inside(ids), CLI[0], "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False False\n"


# ---- in a container of our own


def run_in(box: Box, rootfs: Path, outer: list[str], *options: str) -> Done:
    """A container in one that has this Python, us, and a root file system."""
    shown = python_options()
    places = dict.fromkeys([str(userns.ROOT), *(path for path in sys.path if os.path.isdir(path))])
    shown += [word for place in places for word in ("-v", f"{place}:{place}:ro") if f"{place}:{place}:ro" not in shown]
    shown += ["-v", f"{rootfs}:/inner", "--tmpfs", "/run", "-e", f"PYTHONPATH={':'.join(places)}"]
    words = [python(), "-m", "minicontainer", "run", *options, "/inner", "sh", "-c", LOOKS]
    return box.run(*words, options=[*outer, *shown], timeout=120)


@pytest.mark.needs("overlay")
@pytest.mark.parametrize("outer", ["--privileged", "--privileged --userns private"])
@pytest.mark.parametrize("options", ["", "--userns host", "--ephemeral"])
def test_in_a_container_of_our_own(own_box: Box, rootfs: Path, outer: str, options: str) -> None:
    """With all rights over its own namespaces, and a /proc of which nothing is covered."""
    done = run_in(own_box, rootfs, outer.split(), *options.split())
    assert (done.returncode, done.stdout.split()) == (0, SHOWN), done


def test_in_one_that_hides_parts_of_proc(own_box: Box, rootfs: Path) -> None:
    """The kernel gives no new /proc there (mount_namespaces(7)): that is what is said, whatever else is met first."""
    done = run_in(own_box, rootfs, ["--security-opt", "seccomp=unconfined"])
    assert "can only be mounted if no mounts cover parts of the caller's own" in refusal(done)
