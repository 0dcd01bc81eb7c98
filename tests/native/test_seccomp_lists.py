"""Profiles that list what programs of somebody else's take: nothing of ours but the exec is under them.

An old list, of all calls of Linux 4.18, knows none that we make today; a strict one has only what the smallest program
takes, and kills for all else. Both are tried on every way to a program.
"""

from __future__ import annotations

import ctypes
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from box import Box, python, python_options, refusal
from supplies import Run

import minicontainer as mc
from minicontainer.container import seccomp
from minicontainer.linux import libseccomp
from minicontainer.native import lib

pytestmark = pytest.mark.needs("root")

PAUSE = Path(mc.__file__).parent / "libexec" / "pause"  # reads standard input to its end; no libc
WAYS = [
    [],
    ["--init"],
    ["--userns", "host"],
    ["--userns", "host", "-u", "1000"],
    ["--security-opt", "no-new-privileges=false"],
    ["--security-opt", "no-new-privileges=false", "--init"],
    ["--security-opt", "no-new-privileges=false", "--userns", "host"],
    ["--security-opt", "no-new-privileges=false", "--userns", "host", "-u", "1000"],
    ["--security-opt", "no-new-privileges=false", "-u", "1000", "--init"],
    ["--privileged"],
    ["--privileged", "--init"],
]
THREADS = """
import threading
found = []
threads = [threading.Thread(target=found.append, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sorted(found))
"""


def calls_of_4_18() -> list[str]:
    """rseq is the newest of them on each architecture; io_pgetevents is beside it."""
    library = ctypes.CDLL(libseccomp.SONAME)
    name_of = library.seccomp_syscall_resolve_num_arch
    name_of.restype = ctypes.c_char_p
    names = (name_of(ctypes.c_uint32(lib.AUDIT_ARCH_NATIVE), n) for n in range(libseccomp.number("rseq") + 1))
    return [name.decode() for name in names if name]


def written(path: Path, names: list[str], **default: Any) -> list[str]:
    """Options for a profile that allows these calls."""
    profile = {"defaultAction": "SCMP_ACT_ERRNO", **default}
    profile["syscalls"] = [{"names": names, "action": "SCMP_ACT_ALLOW"}]
    path.write_text(json.dumps(profile), encoding="utf-8")
    return ["--security-opt", f"seccomp={path}"]


def strict(path: Path, *more: str) -> list[str]:
    """What the smallest program takes, and process 1 of --init: all else kills."""
    return written(path, ["execve", "read", *seccomp.CALLS_OF_INIT, *more], defaultAction="SCMP_ACT_KILL_PROCESS")


@pytest.fixture
def small_box(own_box: Box) -> Box:
    """With the smallest program in it."""
    shutil.copy(PAUSE, own_box.rootfs / "bin" / "pause")
    return own_box


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("default", [{}, {"defaultErrnoRet": 38}], ids=str)
def test_all_calls_of_an_older_linux(box: Box, tmp_path: Path, way: list[str], default: dict[str, int]) -> None:
    options = [*way, *written(tmp_path / "profile", calls_of_4_18(), **default)]
    assert box.sh("grep ^Seccomp: /proc/self/status /proc/1/status | cut -f2 | tr '\\n' ' '", *options) == "2 2"


@pytest.mark.parametrize("default", [{}, {"defaultErrnoRet": 38}], ids=str)
def test_programs_of_glibc_have_threads_under_it(own_box: Box, tmp_path: Path, default: dict[str, int]) -> None:
    """glibc takes clone where clone3 answers ENOSYS, and no thread where it answers EPERM (glibc 2.34)."""
    words = (python(), "-S", "-E", "-c", THREADS)
    shown = [*python_options(), "--userns", "host"]  # the libraries may be where ids cannot be shifted
    options = [*shown, *written(tmp_path / "profile", calls_of_4_18(), **default)]
    done = own_box.run(*words, options=options)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2, 3]\n"), done
    done = own_box.run(*words, options=[*shown, *written(tmp_path / "other", calls_of_4_18(), defaultErrnoRet=1)])
    assert done.returncode == 1
    assert "can't start new thread" in done.stderr


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_list_of_what_the_smallest_program_takes(small_box: Box, tmp_path: Path, way: list[str]) -> None:
    options = [*way, *strict(tmp_path / "profile")]
    for program in ("/bin/pause", "pause"):  # also by PATH, of which it is in the last directory
        done = small_box.run(program, options=options, input="")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_why_a_program_does_not_start_under_it(small_box: Box, tmp_path: Path, way: list[str]) -> None:
    options = [*way, *strict(tmp_path / "profile")]
    for content, reason in (("#!/no/such\n", "its interpreter /no/such is missing"), ("no program", "is no program")):
        (small_box.rootfs / "bin" / "odd").write_text(content, encoding="ascii")
        (small_box.rootfs / "bin" / "odd").chmod(0o755)
        small_box.refused("odd", options=options, code=127 if "missing" in reason else 126, says=["/bin/odd", reason])
    small_box.refused("nowhere", options=options, code=127, says=["program nowhere: not found in the container"])


def test_detached_and_entered(small_box: Box, minicontainer_cli: Run, tmp_path: Path) -> None:
    for init in ([], ["--init"]):
        path = tmp_path / "profile"
        options = ["-d", *init, *strict(path, "ppoll")]
        started = minicontainer_cli("run", *options, small_box.rootfs, "/bin/pause", "for-ever")
        assert (started.returncode, started.stderr) == (0, "")
        container = mc.Container.find(started.stdout.strip())
        try:
            status = container.run(["pause"], stdin=mc.DEVNULL).returncode
            assert status == 0
            with pytest.raises(mc.ProgramError, match="program nowhere: not found in the container"):
                container.run(["nowhere"])
        finally:
            container.remove(force=True)
        refusal(minicontainer_cli("run", *options, small_box.rootfs, "nowhere"), 127, ["not found in the container"])


def test_what_the_exec_itself_takes_is_said_by_name(box: Box, tmp_path: Path) -> None:
    everything = calls_of_4_18()
    options = written(tmp_path / "profile", [name for name in everything if name not in ("execve", "execveat")])
    for way in WAYS:
        says = [f"--security-opt seccomp={tmp_path}/profile: forbids execve: without it no program can be started"]
        box.refused("true", options=[*way, *options], says=says)
    options = written(tmp_path / "profile", [name for name in everything if name != "rt_sigtimedwait"])
    box.refused("true", options=["--init", *options], says=["forbids rt_sigtimedwait: process 1 of --init needs it"])
    assert box.run("true", options=options).returncode == 0


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_program_that_the_kernel_refuses(box: Box, tmp_path: Path, way: list[str]) -> None:
    (tmp_path / "filter").write_bytes(b"\0" * 8)
    options = [*way, "--security-opt", f"seccomp={tmp_path}/filter"]
    box.refused("true", options=options, says=["the kernel refuses this program"])
