"""A compiled container of an ordinary user, who has no range of ids and no delegated cgroup."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from abilities import USER_ID
from box import CLI, Done, Word, copy_of, refusal
from supplies import Run

pytestmark = pytest.mark.needs("user", "userns")


@pytest.fixture
def narrow(tmp_path: Path) -> str:
    """A PATH without newuidmap and newgidmap: one id can be mapped."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for tool in ("sh", "ls"):
        (directory / tool).symlink_to(f"/bin/{tool}")
    tmp_path.chmod(0o755)
    return str(directory)


class UserCompiler:
    """Compiles and runs as the ordinary user."""

    def __init__(self, run: Run, rootfs: Path, directory: Path, path: str) -> None:
        self._run, self.rootfs, self.directory, self._path = run, rootfs, directory, path

    def compile(self, *words: Word, options: Sequence[Word] = ()) -> Done:
        command = ["env", f"PATH={self._path}", *CLI, "compile", "-o", self.directory / "file", *options]
        return self._run([*command, self.rootfs, *words])

    def write(self, *words: Word, options: Sequence[Word] = ()) -> Path:
        done = self.compile(*words, options=options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
        return self.directory / "file"

    def run(self, file: Path, *words: Word) -> Done:
        return self._run([file, *words])


@pytest.fixture
def compiler(as_user: Run, rootfs: Path, user_directory: Path, narrow: str) -> UserCompiler:
    root = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(root)], check=True)
    return UserCompiler(as_user, root, user_directory, narrow)


def test_root_inside_himself_outside(compiler: UserCompiler) -> None:
    file = compiler.write("sh", "-c", 'id -u; cat /proc/self/uid_map; touch /made; echo "$1"; exit 6', "sh")
    done = compiler.run(file, "word")
    assert (done.returncode, done.stderr) == (6, "")
    assert done.stdout.split() == ["0", "0", str(USER_ID), "1", "word"]
    made = (compiler.rootfs / "made").stat()
    assert made.st_uid == USER_ID
    assert file.stat().st_uid == USER_ID


@pytest.mark.parametrize("options", [("--init",), ("--ephemeral",), ("--userns", "keep-id"), ("--read-only",)])
def test_options(compiler: UserCompiler, options: tuple[str, ...]) -> None:
    done = compiler.run(compiler.write("sh", "-c", "echo ran; grep Seccomp: /proc/self/status", options=options))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\nSeccomp:\t2\n", "")


def test_the_program_that_is_executed_is_not_reachable(compiler: UserCompiler) -> None:
    """The container's root is the owner of the file, and must not get at it by /proc/PID/exe (CVE-2019-5736)."""
    script = "for p in /proc/[0-9]*; do readlink $p/exe; done | sort -u; echo x > /proc/1/exe"
    done = compiler.run(compiler.write("sh", "-c", script))
    assert str(compiler.directory) not in done.stdout
    before = (compiler.directory / "file").read_bytes()
    assert (compiler.directory / "file").read_bytes() == before


def test_a_limit_is_refused_as_by_run(compiler: UserCompiler) -> None:
    line = refusal(compiler.compile("true", options=["-m", "64m"]), says=["-m", "64m"])
    assert not (compiler.directory / "file").exists(), line


def test_roots_file_for_him(compiler: UserCompiler) -> None:
    """A file of root's is trusted; one of another user's is not."""
    file = compiler.write("echo", "ran")
    os.chown(file, 0, 0)
    file.chmod(0o755)
    assert compiler.run(file).stdout == "ran\n"
    file.chmod(0o711)
    refusal(compiler.run(file), says=["permission denied (it has to be readable)"])
    file.chmod(0o4755)
    refusal(compiler.run(file), says=["set-uid"])
    os.chown(file, 65534, 65534)
    file.chmod(0o755)
    refusal(compiler.run(file), says=["belongs to another user"])


def test_with_ranges_of_ids(as_user: Run, compiler: UserCompiler) -> None:
    """newuidmap(1) maps them, as by run."""
    words = [*CLI, "compile", "-o", compiler.directory / "ranges", compiler.rootfs, "wc", "-l", "/proc/self/uid_map"]
    done = as_user(words)
    assert (done.returncode, done.stderr) == (0, ""), done
    expected = as_user([*CLI, "run", compiler.rootfs, "wc", "-l", "/proc/self/uid_map"])
    done = as_user([compiler.directory / "ranges"])
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, "")


def test_root_does_not_run_the_users(compiler: UserCompiler) -> None:
    file = compiler.write("true")
    done = subprocess.run([file], capture_output=True, text=True, check=False)
    refusal(done, says=["belongs to another user"])
