"""The threads of a machine's monitor may do what their roles need, and nothing else (csrc/vmm/confine.c)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fileserver import CONFINE, Mounted, compile_confined
from filetree import OPERATIONS, Random, Tree, compare

ROOT = Path(__file__).resolve().parents[2]
EVERY = {"write", "futex", "madvise(MADV_DONTNEED)"}
MAY = {  # of the calls in confined.c
    "worker": EVERY | {"read", "writev", "poll"},
    "files": EVERY
    | {"read", "openat", "mknodat", "setfsuid", "capset", "mmap to read"}
    | {"unshare what is of the file system", "fcntl(F_DUPFD_CLOEXEC)", "prctl(PR_GET_DUMPABLE)"},
    "processor": EVERY | {"ioctl(KVM_RUN)"},
    "main": EVERY | {"read", "poll", "sendto", "recvfrom", "ioctl(TCGETS)"},
}


def test_each_role_ends_at_what_it_may_not_do(tmp_path: Path) -> None:
    program = tmp_path / "confined"
    command = ["cc", "-std=gnu11", "-O2", "-static", "-pthread", f"-I{ROOT}/csrc", "-o", str(program)]
    subprocess.run([*command, ROOT / "tests/native/confined.c", *CONFINE], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    survived = [line.split("\t") for line in done.stdout.splitlines()]
    assert {role: {call for other, call in survived if other == role} for role in MAY} == MAY
    assert {role for role, _ in survived} == set(MAY)


@pytest.mark.needs("root")
def test_the_file_server_does_all_it_has_to(tmp_path: Path) -> None:
    """Each operation, many times."""
    program = compile_confined(tmp_path / "fuse_mount")
    with Mounted(program, tmp_path) as mounted:
        for path in (mounted.base / "top", tmp_path / "shadow/top"):
            path.mkdir(parents=True)
        with Tree(mounted.base) as one, Tree(tmp_path / "shadow") as other:
            succeeded = compare(one, other, Random(7), 1500)
    assert set(+succeeded) == set(OPERATIONS)
