"""The FUSE server of csrc/virtio/fs, mounted by this kernel: tests/native/fuse_mount.c, compiled and run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import pytest
from sanitizers import SANITIZED

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*sorted((ROOT / "csrc/virtio/fs").glob("*.c")), ROOT / "csrc/plan/dumpable.c"]
CONFINE = [ROOT / f"csrc/vmm/{name}.c" for name in ("confine", "report")]
PROGRAM = ROOT / "tests/native/fuse_mount.c"
DEVICE = Path("/dev/fuse")


def compile_server(program: Path, to: Path) -> Path:
    """A program with the server in it, under the sanitizers."""
    flags = ["-std=gnu11", "-pthread", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests'}", "-o"]
    subprocess.run([*SANITIZED, *flags, to, program, *SOURCES], check=True)
    return to


def compile_confined(to: Path) -> Path:
    """PROGRAM, whose server is confined as in a monitor; thus without the sanitizers, which need more."""
    flags = ["-std=gnu11", "-O2", "-static", "-pthread", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests'}", "-DCONFINED"]
    subprocess.run(["cc", *flags, "-o", to, PROGRAM, *SOURCES, *CONFINE], check=True)
    return to


def finish(process: subprocess.Popen[bytes], error: BaseException | None) -> None:
    """Ends a program of ``compile_server``, and checks its status unless there is an error already."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    status = process.wait(60)
    if error is None:
        assert status == 0, "see the sanitizers' report; 3: descriptors are left"


class Mounted:
    """The directory "source" of ``place``, served at "mount" there, in a mount namespace where nothing else can be
    written to; ``base`` is a path of the mount that works here.

    ``before`` are commands for the shell that run there first: mounts below the source. ``limit`` is an option of the
    shell's ulimit, for the server. Everything that this process has open in the mount must be closed before the end.
    """

    def __init__(self, program: Path, place: Path, before: Sequence[str] = (), limit: str = "-S -c 0") -> None:
        for name in ("source", "mount"):
            (place / name).mkdir(exist_ok=True)
        limited = ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh"]
        words = [str(program), str(DEVICE), str(place), " && ".join([":", *before])]
        self._process = subprocess.Popen([*limited, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"mounted\n"
        there = f"/proc/{self._process.pid}/root{place}"
        self.source = Path(f"{there}/source")  # as the server sees it, with its mounts
        self._fd = os.open(f"{there}/mount", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.base = Path(f"/proc/self/fd/{self._fd}")

    def bytes_read(self) -> int:
        """By the server, from files and from its clients: proc(5), /proc/PID/io."""
        return int(Path(f"/proc/{self._process.pid}/io").read_text(encoding="ascii").split()[1])

    def __enter__(self) -> Mounted:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.close(self._fd)
        finish(self._process, error)


# ---- fixtures


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_server(PROGRAM, tmp_path_factory.mktemp("fileserver") / "fuse_mount")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def mounted(program: Path, source: Path, tmp_path: Path) -> Iterator[Mounted]:
    with Mounted(program, tmp_path) as mounted:
        yield mounted
