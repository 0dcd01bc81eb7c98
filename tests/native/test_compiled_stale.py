"""A compiled container runs only where what it was compiled from is still true, and only from a sound file."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from abilities import NOBODY
from box import CLI, Done, Word, chosen, copy_of
from compiling import Compiler, run, stale
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supplies import Run
from userns import ALL, ONE, inside

from minicontainer import runtime
from minicontainer.compiled.payload import TRAILER, WORD, checksum
from minicontainer.container.cgroup import orphans, placement
from minicontainer.linux.cgroup import hierarchy
from minicontainer.linux.process import prctl
from minicontainer.spec import CAPABILITIES

pytestmark = pytest.mark.needs("root")

AGAIN = "compile it again: minicontainer compile"


@pytest.fixture
def root(compiler: Compiler, tmp_path: Path) -> Path:
    return copy_of(compiler.rootfs, tmp_path / "root")


# ---- the root directory


def test_a_root_that_was_moved(compiler: Compiler, root: Path) -> None:
    file = compiler.write("true", rootfs=root)
    moved = root.rename(root.with_name("moved"))
    assert stale(file) == f"minicontainer: rootfs {root}: no such directory ({AGAIN})"
    moved.rename(root)
    assert run(file).returncode == 0


def test_a_root_that_was_replaced(compiler: Compiler, root: Path) -> None:
    """Also where the new directory has the old one's inode."""
    file = compiler.write("true", rootfs=root)
    for remake in (lambda: copy_of(compiler.rootfs, root), lambda: root.symlink_to(compiler.rootfs), root.touch):
        shutil.rmtree(root) if root.is_dir() and not root.is_symlink() else root.unlink()
        remake()
        assert "is another directory than when it was compiled" in stale(file, AGAIN)


def test_what_is_mounted_on_a_root(compiler: Compiler, root: Path) -> None:
    file = compiler.write("true", rootfs=root)
    subprocess.run(["mount", "--bind", compiler.rootfs, root], check=True)
    try:
        stale(file, "is another directory", AGAIN)
    finally:
        subprocess.run(["umount", root], check=True)
    assert run(file).returncode == 0


# ---- sources


def test_sources_of_volumes(compiler: Compiler, tmp_path: Path) -> None:
    directory, single = tmp_path / "directory", tmp_path / "single"
    directory.mkdir()
    single.touch()
    file = compiler.write("ls", "/there", options=["-v", f"{directory}:/there", "-v", f"{single}:/single"])
    directory.rmdir()
    stale(file, f"volume {directory}: no such file or directory", AGAIN)
    directory.touch()
    stale(file, f"volume {directory}: was a directory when it was compiled")
    directory.unlink()
    directory.mkdir()
    (directory / "new").touch()
    assert run(file).stdout == "new\n"  # another directory of that name is what -v names
    single.unlink()
    single.mkdir()
    stale(file, f"volume {single}: was a file when it was compiled")


def test_a_device(compiler: Compiler, tmp_path: Path) -> None:
    node = tmp_path / "node"
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 5))
    file = compiler.write("true", options=["--device", f"{node}:/dev/mine", "--userns", "host"])
    assert run(file).returncode == 0
    node.unlink()
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 3))
    stale(file, f"device {node}: was another device when it was compiled", AGAIN)


def test_the_users_of_the_root(compiler: Compiler, root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    passwd = root / "etc/passwd"
    passwd.write_text("someone:x:77:88::/home:/bin/sh\n")
    file = compiler.write("id", "-u", options=["--user", "someone"], rootfs=root)
    assert run(file).stdout == "77\n"
    passwd.write_text("someone:x:77:88::/home:/bin/sh\n")
    assert run(file).stdout == "77\n"  # written again, with the same content
    passwd.write_text("someone:x:99:88::/home:/bin/sh\n")
    stale(file, f"users {passwd}: has changed since it was compiled", AGAIN)


def test_a_chroot(compiler: Compiler, root: Path) -> None:
    """In a chroot the plan for --userns host would not be safe: the tree above would remain reachable."""
    file = compiler.write("true", options=["--userns", "host"], rootfs=root)
    host = root / "host"
    for path in (host, root / "proc"):
        path.mkdir(exist_ok=True)
    script = f"mount --rbind / {host} && exec chroot {host} {file}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # the same root directory, mounted elsewhere, is the same
    shutil.copy(file, root / "file")
    script = f"mount -t proc proc {root}/proc && exec chroot {root} /file"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert AGAIN in done.stderr


def test_the_maps_of_a_user_namespace(compiler: Compiler, state: Path, tmp_path: Path) -> None:
    """For root of a user namespace they are part of the plan."""
    file, environment = tmp_path / "file", {**os.environ, "MINICONTAINER_ROOT": str(state)}
    words: list[Word] = [*CLI, "compile", "-o", file, compiler.rootfs, "id", "-u"]

    def within(ids: tuple[str, str], *command: Word) -> Done:
        words = [*inside(ids), *map(str, command)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    done = within(ONE, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert within(ONE, file).stdout == "0\n"
    done = within(ALL, file)
    assert done.returncode == 125
    assert "user namespace /proc/self/uid_map: has changed since it was compiled" in done.stderr


def test_the_name_servers_of_the_host(compiler: Compiler, tmp_path: Path) -> None:
    file, other = compiler.write("cat", "/etc/resolv.conf", options=["--network", "host"]), tmp_path / "other"
    assert run(file).returncode == 0
    other.write_text("nameserver 192.0.2.1\n")
    script = f"mount --bind {other} /etc/resolv.conf && exec {file}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr == f"minicontainer: name servers /etc/resolv.conf: has changed since it was compiled ({AGAIN})\n"


# ---- the kernel and the caller


def patched(file: Path, change: Callable[[bytearray], object]) -> Path:
    """The file with a change, and a checksum that is right again."""
    data = bytearray(file.read_bytes())
    change(data)
    data[-WORD.size :] = WORD.pack(checksum(bytes(data[: -WORD.size])))
    file.write_bytes(data)
    return file


def test_another_release_of_the_kernel(compiler: Compiler) -> None:
    release = os.uname().release.encode()

    def change(data: bytearray) -> None:
        at = data.rindex(b"\0" + release + b"\0")
        data[at + 1 : at + 2] = b"0"

    file = patched(compiler.write("true"), change)
    stale(file, f"kernel {os.uname().release}: is another release than when it was compiled", AGAIN)


def test_another_user(compiler: Compiler, tmp_path: Path) -> None:
    file = compiler.write("true")
    file.chmod(0o755)
    for directory in file.parents:
        if directory != Path("/tmp") and directory.is_relative_to("/tmp"):
            directory.chmod(0o755)
    done = run(file, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.returncode == 125
    assert done.stderr == f"minicontainer: user: it was compiled for another user or group ({AGAIN})\n"


def test_another_user_namespace(compiler: Compiler) -> None:
    file = compiler.write("true")
    done = subprocess.run(["unshare", "--user", "--map-root-user", file], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr == f"minicontainer: user namespace: it was compiled in another ({AGAIN})\n"


def test_another_host_name(compiler: Compiler) -> None:
    """With the host's UTS namespace it is in the plan."""
    file = compiler.write("hostname", options=["--uts", "host"])
    assert run(file).stdout == f"{os.uname().nodename}\n"
    words = ["unshare", "--uts", "sh", "-c", f"hostname other && exec {file}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == f"minicontainer: host name other: is another than when it was compiled ({AGAIN})\n"


def test_other_capabilities(compiler: Compiler) -> None:
    """ALL are the caller's, in the host's user namespace."""
    file = compiler.write("true", options=["--cap-add", "ALL", "--userns", "host"])
    assert run(file).returncode == 0

    def drop() -> None:
        prctl("PR_CAPBSET_DROP", CAPABILITIES.index("SYS_TIME"))

    stale(file, "capabilities: the caller has others than when it was compiled", AGAIN, preexec_fn=drop)


def test_another_state_directory(compiler: Compiler, tmp_path: Path) -> None:
    file = compiler.write("echo", "ran")
    assert run(file, env={}).stdout == "ran\n"  # the file knows it
    stale(file, f"MINICONTAINER_ROOT {tmp_path}", "another state directory", env={"MINICONTAINER_ROOT": str(tmp_path)})


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory of its own; the cgroup of its containers is removed at the end."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    yield path
    with chosen(path):
        parent = Path(hierarchy().path) / placement.parent_name()
        if parent.is_dir():
            parent.rmdir()


def test_a_state_directory_that_is_not_sound(minicontainer_cli: Run, rootfs: Path, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    minicontainer_cli("--root", state, "compile", "-o", file, rootfs, "true")
    assert run(file, env={}).returncode == 0
    state.chmod(0o777)
    stale(file, f"state directory {state}: others can write there", env={})
    state.chmod(0o700)


def test_after_a_reboot(minicontainer_cli: Run, rootfs: Path, state: Path, tmp_path: Path) -> None:
    """The state directory of root is in /run, and the cgroup of all containers has gone: a run makes both."""
    file = tmp_path / "file"
    minicontainer_cli("--root", state, "compile", "-o", file, rootfs, "echo", "ran")
    with chosen(state):
        before = Path(hierarchy().path) / placement.parent_name()
    shutil.rmtree(state)
    before.rmdir()
    assert run(file, env={}).stdout == "ran\n"
    runtime._mark.cache_clear()
    with chosen(state):
        assert Path(hierarchy().path, placement.parent_name()).is_dir()
        assert placement.parent_name() != before.name
        assert orphans.find() == []
    assert run(file, env={}).stdout == "ran\n"


# ---- the file


def test_a_foreign_owner(compiler: Compiler) -> None:
    file = compiler.write("true")
    os.chown(file, NOBODY, NOBODY)
    stale(file, f"file {file}: belongs to another user, who could have changed it")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_writable_by_others(compiler: Compiler, mode: int) -> None:
    file = compiler.write("true")
    file.chmod(mode)
    stale(file, f"file {file}: others than its owner can write to it", "chmod go-w")
    file.chmod(0o700)
    assert run(file).returncode == 0


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_set_uid_helps_nobody(compiler: Compiler, mode: int) -> None:
    file = compiler.write("true")
    for directory in file.parents:
        if directory != Path("/tmp") and directory.is_relative_to("/tmp"):
            directory.chmod(0o755)
    file.chmod(mode)
    done = run(file, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.returncode == 125
    assert "has set-uid or set-gid bits or capabilities, which it never uses" in done.stderr


def test_it_is_checked_what_runs_and_not_a_path(compiler: Compiler, tmp_path: Path) -> None:
    """The file is opened as it is executed: argv[0] is only for messages."""
    file = compiler.write("echo", "ran")
    assert (
        subprocess.run(["/etc/passwd"], executable=file, capture_output=True, text=True, check=True).stdout == "ran\n"
    )
    hidden = tmp_path / "script"
    with open(file, "rb") as opened:
        os.unlink(file)
        done = subprocess.run([f"/proc/self/fd/{opened.fileno()}"], pass_fds=[opened.fileno()], capture_output=True,
                              text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert not hidden.exists()


def harmless(file: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Runs a damaged file: it is refused, by it or by the kernel, or a signal ends it; nothing is left of it."""
    file.write_bytes(data)
    file.chmod(0o700)
    try:
        return subprocess.run([file], capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    except OSError as e:  # exec format error
        return subprocess.CompletedProcess([], 126, b"", str(e).encode())


def test_cut_off_anywhere(compiler: Compiler, tmp_path: Path) -> None:
    data = compiler.write("echo", "ran").read_bytes()
    size = TRAILER.unpack(data[-TRAILER.size :])[0]
    begin = len(data) - TRAILER.size - size
    edges = [begin, begin + 4, begin + size, len(data) - TRAILER.size, len(data)]
    lengths = {n for edge in edges for n in (edge - 8, edge - 1, edge, edge + 1) if n < len(data)}
    lengths |= {0, 1, 64, 4096, *random.Random(1).sample(range(len(data)), 20)}
    for n in sorted(lengths):
        done = harmless(tmp_path / "cut", data[:n])
        assert done.returncode != 0, n
        assert b"ran" not in done.stdout, n
        if n >= begin:
            assert b"is damaged" in done.stderr, n
    done = harmless(tmp_path / "longer", data + bytes(8))
    assert b"is damaged" in done.stderr


@given(at=st.integers(0, 2**32), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_flipped_bit_of_the_payload_is_found(compiler: Compiler, tmp_path: Path, at: int, bit: int) -> None:
    original = tmp_path / "original"
    if not original.exists():
        shutil.copy(compiler.write("echo", "ran"), original)
    data = bytearray(original.read_bytes())
    begin = len(data) - TRAILER.size - TRAILER.unpack(data[-TRAILER.size :])[0]
    data[begin + at % (len(data) - begin)] ^= 1 << bit
    done = harmless(tmp_path / "flipped", bytes(data))
    assert done.returncode == 125
    assert b"is damaged" in done.stderr


def test_the_program_is_part_of_what_is_checked(compiler: Compiler, tmp_path: Path) -> None:
    data = bytearray(compiler.write("echo", "ran").read_bytes())
    begin = len(data) - TRAILER.size - TRAILER.unpack(data[-TRAILER.size :])[0]
    data[begin - 1] ^= 1  # of the section headers, which nobody reads
    assert b"is damaged" in harmless(tmp_path / "flipped", bytes(data)).stderr
