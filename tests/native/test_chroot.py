"""A caller in a chroot(2), whose root is not that of its mount namespace: the container still has no way out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from box import CLI, copy_of, python, python_options

from minicontainer.linux import namespaces

pytestmark = pytest.mark.needs("root", "overlay")

ENTER = {  # in a mount namespace of its own: everything there is, seen from a root that is a mount, or only a directory
    "mount": 'mount --rbind / "$0"; exec chroot "$0" "$@"',
    "directory": """
        mount -t tmpfs none "$0"; mkdir "$0/root"
        for entry in /*; do
            if [ -L "$entry" ]; then cp -P "$entry" "$0/root"
            elif [ -d "$entry" ]; then mkdir -p "$0/root$entry"; mount --rbind "$entry" "$0/root$entry"
            fi
        done
        exec chroot "$0/root" "$@"
        """,
}
ESCAPE = """
import json, os
root = os.stat("/")
os.makedirs("/jail", exist_ok=True)
os.chroot("/jail")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print(json.dumps([os.path.samestat(os.stat("/"), root), sorted(os.listdir("/"))]))
"""


def in_chroot(kind: str, place: Path, *command: object) -> subprocess.CompletedProcess[str]:
    place.mkdir(exist_ok=True)
    words = ["unshare", "--mount", "--propagation=slave", "sh", "-ec", ENTER[kind], place, *command]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [[], ["--ephemeral"], ["--init"]], ids=["plain", "ephemeral", "init"])
@pytest.mark.parametrize("kind", ENTER)
def test_there_is_no_way_out(rootfs: Path, tmp_path: Path, kind: str, options: list[str]) -> None:
    root = copy_of(rootfs, tmp_path / "rootfs")
    run = [*CLI, "run", "--userns=host", *options, *python_options(), root, python(), "-S", "-E", "-c", ESCAPE]
    done = in_chroot(kind, tmp_path / "place", *run)
    assert (done.returncode, done.stderr) == (0, "")
    same, entries = json.loads(done.stdout)
    assert same
    assert {"jail", "proc", "sys"} <= set(entries) <= {"jail", "lib", "lib64", "usr", *(p.name for p in root.iterdir())}


@pytest.mark.parametrize("kind", ENTER)
def test_volumes_are_taken_from_the_chroot(rootfs: Path, tmp_path: Path, kind: str) -> None:
    run = [*CLI, "run", "--userns=host", "-v", "/etc:/mnt:ro", rootfs, "cat", "/mnt/hostname"]
    overmount = ["sh", "-ec", 'mount -t tmpfs none /etc; echo of the chroot > /etc/hostname; exec "$@"', "-", *run]
    done = in_chroot(kind, tmp_path / "place", *overmount)
    assert (done.returncode, done.stdout, done.stderr) == (0, "of the chroot\n", "")


@pytest.mark.parametrize("kind", ENTER)
def test_a_user_namespace_is_refused_with_the_reason(rootfs: Path, tmp_path: Path, kind: str) -> None:
    done = in_chroot(kind, tmp_path / "place", *CLI, "run", "--userns=private", rootfs, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1
    assert "a process in a chroot gets no user namespace" in done.stderr


@pytest.mark.parametrize("kind", ENTER)
def test_that_there_is_no_user_namespace_is_said(rootfs: Path, tmp_path: Path, kind: str) -> None:
    done = in_chroot(kind, tmp_path / "place", *CLI, "run", rootfs, "cat", "/proc/self/uid_map")
    assert (done.returncode, done.stdout.split()) == (0, ["0", "0", "4294967295"])
    assert done.stderr.startswith("minicontainer: warning: userns auto: a process in a chroot gets no user namespace")
    assert done.stderr.endswith("; running as --userns host\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ENTER)
def test_it_is_known(tmp_path: Path, kind: str) -> None:
    say = [CLI[0], "-c", "from minicontainer.linux import namespaces; print(namespaces.is_chrooted())"]
    assert in_chroot(kind, tmp_path / "place", *say).stdout == "True\n"


@pytest.mark.needs("true-root")
def test_it_is_known_that_we_are_in_none() -> None:
    assert not namespaces.is_chrooted()
