"""Whatever is in the place of any file of the state directory: every command ends within bounds of time and memory,
with one line where it fails, and what has nothing to do with that file is shown and works as before."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from box import CLI

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("bridge")]

MEMORY = 512 << 20  # bytes of addresses: far more than any command takes, and less than is in the largest file
SECONDS = 100


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\x00\xfe" * 1000)


def somebody_elses(path: Path) -> None:
    path.write_text("x", encoding="ascii")
    os.chown(path, 12345, 12345)
    path.chmod(0o666)


KINDS: dict[str, Callable[[Path], None]] = {
    "a fifo": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
    "3 GiB": sparse,
    "no text": no_text,
    "somebody else's": somebody_elses,
}

# Runs commands, one behind the other, in one process: what each printed and how it ended, a block each.
MANY = """
import json, os, sys
from minicontainer import cli
from minicontainer.cli.root import cli as group
for words in json.loads(sys.argv[1]):
    print("$", *words, file=sys.stderr, flush=True)
    try:
        code = group.main(words, prog_name="minicontainer", standalone_mode=False)
    except BaseException as e:
        code = cli.report(e)
    sys.stdout.flush()
"""


class Home:
    """A state directory with containers that run, have ended and wait, a network, a volume."""

    def __init__(self, path: Path, rootfs: Path, profile: Path) -> None:
        self.path, self.rootfs, self.ids = path, rootfs, dict[str, str]()
        path.mkdir(mode=0o700)
        self.do("network", "create", "n")
        self.do("volume", "create", "v")
        self.make("other", "sleep", "1000")
        self.make("exited", "echo", "hello")
        self.do("wait", "exited")
        options = ("--network", "n", "-v", "v:/v", "--security-opt", f"seccomp={profile}", "--add-host", "z=192.0.2.1")
        self.make("running", "sh", "-c", "echo hello; exec sleep 1000", options=options)
        self.ids["created"] = self.do("create", "--name", "created", rootfs, "true").strip()

    def call(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return self.bounded([*CLI, *map(str, words)])

    def bounded(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            signal.alarm(2 * SECONDS)

        environment = {**os.environ, "MINICONTAINER_ROOT": str(self.path)}
        try:
            return subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=SECONDS, env=environment, preexec_fn=limit
            )
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"does not end: {(e.stderr or b'').decode()[-200:] or command}") from None

    def do(self, *words: str | Path) -> str:
        done = self.call(*words)
        assert done.returncode == 0, done
        return done.stdout

    def make(self, name: str, *args: str, options: tuple[str, ...] = ()) -> None:
        self.ids[name] = self.do("run", "-d", "--name", name, *options, self.rootfs, *args).strip()

    def files(self) -> list[Path]:
        """All that is there but for what is of other containers than the one that runs, and sockets."""
        others = [word for name in ("other", "exited", "created") for word in (name, self.ids[name])]
        found = [Path(top, name) for top, _, names in os.walk(self.path) for name in names]
        own = [path for path in found if not set(others) & set(path.parts)]
        owners = {path for path in own if path.parent.name == "owners"}
        if not any(self.owner("running") == self.owner(name) for name in ("other", "exited", "created")):
            owners -= {self.owner("running")}
        return sorted(path for path in own if not path.is_socket() and path not in owners)

    def owner(self, name: str) -> Path:
        """A file that containers share whose ids have these two digits."""
        return self.path / "owners" / self.ids[name][10:12]

    def look(self) -> None:
        """Every command that changes nothing, and one that takes what there is of a network."""
        names = ("running", "exited", "created", "other")
        looks = [
            ["ps", "-a"],
            *(["inspect", name] for name in names),
            ["logs", "running"],
            ["logs", "-n", "5", "running"],
            ["exec", "running", "true"],
            ["wait", "exited"],
            ["network", "ls"],
            ["network", "inspect", "n"],
            ["volume", "ls"],
            ["events", "--since", "1h", "--until", "0s"],
            ["run", "--network", "n", "-v", "v:/v", str(self.rootfs), "true"],
            ["run", "--network", "container:running", str(self.rootfs), "true"],
        ]
        import json

        done = self.bounded([sys.executable, "-c", MANY, json.dumps(looks)])
        assert done.returncode == 0, done.stderr
        told = done.stderr.split("$ ")[1:]
        assert len(told) == len(looks)
        for block in told:
            lines = block.splitlines()[1:]
            assert len(lines) <= 1, block
            assert all(line.startswith("minicontainer: ") for line in lines), block
            assert "Traceback" not in block
        shown = [line for line in done.stdout.splitlines() if line.startswith(self.ids["other"][:12])]
        assert "Up " in shown[0], done.stdout


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}', encoding="ascii")
    return path


@pytest.fixture
def home(tmp_path: Path, rootfs: Path, profile: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home", rootfs, profile)
    try:
        yield made
    finally:
        made.do("rm", "-f", *os.listdir(made.path / "containers"))
        for words in (("network", "rm", "n"), ("volume", "rm", "v"), ("doctor", "--clean")):
            made.do(*words)


@pytest.mark.parametrize("kind", KINDS)
def test_who_looks(home: Home, kind: str, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    for path in home.files():
        path.rename(aside)
        KINDS[kind](path)
        try:
            home.look()
        except AssertionError as e:
            raise AssertionError(f"of {path.relative_to(home.path)}: {e}") from e
        finally:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            aside.rename(path)


@pytest.mark.parametrize("kind", KINDS)
def test_who_ends_and_removes(home: Home, kind: str) -> None:
    """Of a container whose file is lost nothing is left."""
    for name in ("config.json", "state", "log", "seccomp", "cgroup", "lease"):
        home.make("victim", "sleep", "1000", options=("--network", "n"))
        place = home.path / "containers" / home.ids["victim"]
        if (path := place / name).is_symlink() or path.exists():
            path.unlink()
        KINDS[kind](path)
        for words in (["stop", "-t", "0", "victim"], ["start", "victim"], ["stop", "-t", "0", "victim"]):
            done = home.call(*words)
            assert len(done.stderr.splitlines()) <= 1, done
        home.do("rm", "-f", home.ids["victim"])
        home.do("doctor", "--clean")
        assert not place.exists()
        assert "Up " in home.do("ps")
    home.do("prune", "-f")
    assert "other" in home.do("ps")
