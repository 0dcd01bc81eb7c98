"""What of minicontainer.linux needs no privilege: parsing, masks, assembling, errors."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import linux
from minicontainer.linux.arguments import flags
from minicontainer.linux.mounts import parse_mountinfo
from minicontainer.native import lib
from minicontainer.spec import CAPABILITIES


def test_every_public_name_is_there() -> None:
    for name in linux.__all__:
        assert getattr(linux, name) is not None
    assert set(linux.__all__) <= set(dir(linux))
    with pytest.raises(AttributeError, match="nonsense"):
        linux.nonsense  # noqa: B018


def test_the_names_agree_wherever_they_are_listed() -> None:
    """What is looked up, what is exported, and what a type checker is told."""
    tree = ast.parse(Path(linux.__file__).read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {a.name: n.module for n in typed.body if isinstance(n, ast.ImportFrom) for a in n.names}
    imported.pop("Any")
    assert set(imported) == set(linux.__all__) == {*linux._HOME, *linux._MODULES}
    for name, module in linux._HOME.items():
        assert imported[name] == f"minicontainer.linux.{module}"


def test_flags_by_name_and_number() -> None:
    assert flags("CLONE_NEWUTS | CLONE_NEWNS") == lib.CLONE_NEWUTS | lib.CLONE_NEWNS
    assert flags("CLONE_NEWUTS|0x20000|1") == lib.CLONE_NEWUTS | lib.CLONE_NEWNS | 1
    assert flags(5) == 5
    with pytest.raises(ValueError, match="CLONE_NEWLIFE"):
        flags("CLONE_NEWUTS|CLONE_NEWLIFE")


def test_constants_by_name() -> None:
    from minicontainer.linux import constants
    from minicontainer.linux.constants import O_PATH

    assert O_PATH == os.O_PATH
    assert "O_PATH" in dir(constants)
    assert all(isinstance(getattr(constants, name), int) for name in dir(constants))
    for name in ("O_NONSENSE", "mc_now", "MC_EXEC"):
        with pytest.raises(AttributeError, match=name):
            getattr(constants, name)


# ---- mountinfo


def test_our_own_mounts_are_read() -> None:
    mounts = linux.mountinfo()
    root = [m for m in mounts if m.target == "/"]
    assert root
    assert {m.id for m in mounts} >= {m.parent for m in mounts if m.target != "/"}
    assert os.path.realpath("/proc") in {m.target for m in mounts if m.fstype == "proc"}


def escape(path: str) -> str:
    return re.sub(r"[ \t\n\\#]", lambda m: f"\\{ord(m[0]):03o}", path)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(lambda s: "/" + s)


@settings(suppress_health_check=[HealthCheck.too_slow])  # an emulated processor
@given(names, names, st.lists(st.sampled_from(["shared:1", "master:2", "propagate_from:3", "unbindable"]), unique=True))
def test_any_path_survives_mountinfo(root: str, target: str, optional: list[str]) -> None:
    fields = ["36", "35", "98:0", escape(root), escape(target), "rw,noatime", *optional, "-", "ext4", "none", "rw"]
    found = parse_mountinfo(" ".join(fields) + "\n")
    assert (found.root, found.target, found.optional) == (root, target, tuple(optional))
    assert (found.id, found.parent, found.device, found.fstype) == (36, 35, "98:0", "ext4")


@given(st.text())
def test_no_line_of_mountinfo_is_a_value_error(line: str) -> None:
    try:
        parse_mountinfo(line)
    except ValueError:
        return
    assert " - " in line


# ---- capabilities


@given(st.sets(st.sampled_from(CAPABILITIES)))
def test_masks_and_names_are_inverse(chosen: set[str]) -> None:
    mask = linux.caps.mask(chosen)
    assert set(linux.caps.names(mask)) == chosen
    assert linux.caps.mask(f"cap_{name.lower()}" for name in chosen) == mask


@given(st.integers(0, 2**64 - 1))
def test_every_mask_can_be_written_in_names(mask: int) -> None:
    """Also capabilities that are newer than this package."""
    assert linux.caps.mask(linux.caps.names(mask)) == mask


@pytest.mark.parametrize("name", ["nope", "ALL", "64", "", "\u00b2"])
def test_what_is_no_capability_is_named(name: str) -> None:
    for refuse in (linux.capbset_drop, linux.capbset_read, linux.caps.has, lambda n: linux.caps.mask([n])):
        with pytest.raises(ValueError, match=f"capability.*{name}"):
            refuse(name)


def test_ambient_operations_take_what_they_need() -> None:
    for operation, name in (("RAISE", ""), ("CLEAR_ALL", "CHOWN"), ("NOPE", "CHOWN")):
        with pytest.raises(ValueError, match=f"PR_CAP_AMBIENT_{operation}"):
            linux.cap_ambient(operation, name)


def test_the_names_are_the_kernels() -> None:
    text = Path("/usr/include/linux/capability.h").read_text(encoding="utf-8")
    numbers = dict(re.findall(r"^#define CAP_([A-Z_]+)\s+(\d+)$", text, re.MULTILINE))
    for number, name in enumerate(CAPABILITIES):
        assert int(numbers[name]) == number


def test_our_own_sets() -> None:
    sets = linux.caps.capabilities()
    assert sets.effective & ~sets.permitted == 0
    assert sets == linux.caps.capabilities(os.getpid())
    words = sets.names()
    assert set(words) == set(sets._fields)
    for name in CAPABILITIES:
        assert linux.caps.has(name) == (name in words["effective"])
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for name in CAPABILITIES[: last + 1]:
        assert linux.capbset_read(name) == (name in words["bounding"])
    with pytest.raises(OSError, match=r"prctl\(PR_CAPBSET_READ, '63'\): Invalid argument"):
        linux.capbset_read("63")


# ---- seccomp


def test_a_deny_list_is_a_program() -> None:
    program = linux.seccomp.deny(["mkdirat", "mount"], errno.EACCES)
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert [k for code, _, _, k in instructions if code == 0x15][1:] == [lib.SYS_mkdirat, lib.SYS_mount]
    assert instructions[-1][3] == lib.SECCOMP_RET_ALLOW
    with pytest.raises(ValueError, match="no_such_call"):
        linux.seccomp.deny(["no_such_call"])
    for error in (0, -1, 4096):
        with pytest.raises(ValueError, match=f"{error} is no errno"):
            linux.seccomp.deny(["mount"], error)


@given(st.binary(max_size=64).filter(lambda b: len(b) % 8 or not b))
def test_what_is_no_program_is_refused(program: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(program)} bytes are no filter"):
        linux.seccomp.load(program)


def test_actions_of_this_kernel() -> None:
    assert linux.seccomp.action_avail("SECCOMP_RET_KILL_PROCESS")
    assert not linux.seccomp.action_avail(0x12340000)


def run(code: str) -> str:
    """A Python of its own, for what changes the process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_filter_refuses_and_the_rest_goes_on() -> None:
    out = run(
        "import os\n"
        "from minicontainer import linux\n"
        "linux.prctl('PR_SET_NO_NEW_PRIVS', 1)\n"
        "linux.seccomp.load(linux.seccomp.deny(['mkdir', 'mkdirat'], 13))\n"
        "try:\n    os.mkdir('/tmp/never')\n"
        "except PermissionError as e:\n    print('refused', e.errno)\n"
        "print(os.getpid() > 0)\n"
    )
    assert out == "refused 13\nTrue\n"


@pytest.mark.skipif(not lib.X32_SYSCALL_BIT, reason="x32 is x86_64's")
def test_a_filter_is_not_to_be_passed_by_x32() -> None:
    """The same architecture to seccomp(2), with other numbers: getpid there is not getpid of the deny list."""
    code = (
        "from minicontainer import linux\n"
        "from minicontainer.native import lib\n"
        "linux.prctl('PR_SET_NO_NEW_PRIVS', 1)\n"
        "linux.seccomp.load(linux.seccomp.deny(['getpid'], 13))\n"
        "assert lib.mc_syscall(lib.SYS_getpid, 0, 0, 0, 0, 0, 0) == -13\n"
        "lib.mc_syscall(lib.X32_SYSCALL_BIT | lib.SYS_getpid, 0, 0, 0, 0, 0, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGSYS, done.stderr
