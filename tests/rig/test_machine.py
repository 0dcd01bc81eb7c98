"""``--isolation kvm``: a container's program in a virtual machine, with Debian's cloud kernel as it is.

A start takes many seconds: the rig's own processor is emulated, and the guest's by that. So each test asks much of one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from abilities import USER_ID
from box import CLI, Box, copy_of, refusal, until
from supplies import Run

import minicontainer as mc

pytestmark = [pytest.mark.needs("rig", "kvm-hardware"), pytest.mark.timeout(300)]

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's cloud kernel, with its modules where a distribution has them."""
    return tree(tmp_path_factory.mktemp("kernel"), "vmlinuz")


def tree(directory: Path, name: str) -> str:
    guests = Path(os.environ["RIG_GUESTS"])
    (directory / "boot").mkdir()
    (directory / "boot" / name).symlink_to(guests / name)
    (directory / "lib").symlink_to(guests / "lib")
    return str(directory / "boot" / name)


@pytest.fixture
def box(minicontainer_cli: Callable[..., Done], rootfs: Path, tmp_path: Path) -> Box:
    """A root file system of the test's own, since programs write to it."""
    subprocess.run(["cp", "-a", f"{rootfs}/.", tmp_path / "root"], check=True)
    return Box(minicontainer_cli, tmp_path / "root")


@pytest.fixture
def machine(box: Box, kernel: str) -> Callable[..., Done]:
    """``minicontainer run --isolation kvm``."""

    def run(*words: str, options: Any = (), **more: Any) -> Done:
        return box.run(*words, options=("--isolation", "kvm", "--kernel", kernel, *options), timeout=150, **more)

    return run


FACTS = """
id -u; id -g; pwd; hostname; echo "$A"; echo $#; echo "$2"
grep -c . /proc/self/mountinfo >/dev/null && echo proc
test -c /dev/null && echo dev
test -d /sys/class && echo sys
mkdir /made && echo written >/made/file && chown 1000:1000 /made/file
cat /data/from-host; echo back >/data/from-guest
grep -q ' /ro virtiofs ro,' /proc/mounts && echo read-only
mknod /dev/mine c 4 64 2>/dev/null || echo no node
echo x >/tmp/x && grep ' /tmp ' /proc/mounts | cut -d' ' -f3
uname -r
echo to stderr >&2
exit 7
"""


def test_one_program_with_all_that_surrounds_it(machine: Callable[..., Done], box: Box, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "from-host").write_text("from the host\n", encoding="utf-8")
    options = ["-v", f"{tmp_path}/data:/data", "-v", f"{tmp_path}/data:/ro:ro", "--tmpfs", "/tmp"]
    options += ["-e", "A=value", "-w", "/etc", "-h", "guest", "-m", "256m"]
    done = machine("sh", "-c", FACTS, "sh", "one", "two words", options=options)
    expected = [
        "0",
        "0",
        "/etc",
        "guest",
        "value",
        "2",
        "two words",
        "proc",
        "dev",
        "sys",
        "from the host",
        "read-only",
        "no node",
    ]
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (7, "to stderr\n"), done
    assert lines[:-1] == [*expected, "tmpfs"]
    assert lines[-1] != os.uname().release, "a kernel of its own"
    made = box.rootfs / "made" / "file"
    assert made.read_text(encoding="utf-8") == "written\n"
    assert (made.stat().st_uid, made.stat().st_gid) == (1000, 1000)
    assert (tmp_path / "data" / "from-guest").read_text(encoding="utf-8") == "back\n"


def test_streams_are_pipes_and_binary_and_files_more_than_descriptors(box: Box, kernel: str) -> None:
    data = bytes(range(256)) * 8192
    (box.rootfs / "many").mkdir()
    for number in range(500):
        (box.rootfs / "many" / f"{number}").write_bytes(b"x")
    limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    command = [*limited, *CLI, "run", "--isolation", "kvm", "--kernel", kernel, str(box.rootfs)]
    done = subprocess.run(
        [*command, "sh", "-c", "test -p /dev/stdout && cat && cat /many/* | wc -c >/dev/stderr"],
        input=data, capture_output=True, timeout=150, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"500\n")
    assert done.stdout == data


def test_a_user_without_rights(machine: Callable[..., Done], box: Box) -> None:
    (box.rootfs / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home:/bin/sh\n")
    script = "id -u; touch /x 2>/dev/null || echo refused; grep CapEff /proc/self/status | cut -f2; echo $HOME"
    done = machine("sh", "-c", script, options=["-u", "ann"])
    assert done.stdout.splitlines() == ["1000", "refused", "0000000000000000", "/home"], done


@pytest.fixture(scope="module")
def debian_13(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tree(tmp_path_factory.mktemp("kernel-13"), "vmlinuz-13")


@pytest.fixture(scope="module")
def generic() -> str:
    """The rig's own kernel."""
    return str(next((Path(os.environ["RIG_GUESTS"]).parent / "kernel/boot").glob("vmlinuz-*")))


def test_errors_are_those_of_a_container(box: Box, debian_13: str, generic: str) -> None:
    """With two other kernels of Debian."""
    options = ["--isolation", "kvm", "--kernel"]
    refusal(box.run("/no/such", options=[*options, debian_13], timeout=150), 127, ["/no/such"])
    refusal(box.run("true", options=[*options, generic, "-w", "/no/such"], timeout=150), 125, ["-w /no/such"])


def test_mount_points_that_a_read_only_root_has_not(machine: Callable[..., Done], box: Box) -> None:
    """The container makes them in a layer above; and so does the monitor's for the guest."""
    for name in ("proc", "sys", "dev"):
        if (box.rootfs / name).exists():
            (box.rootfs / name).rmdir()
    before = sorted(os.listdir(box.rootfs))
    options = ["--read-only", "--tmpfs", "/made/here"]
    done = machine("sh", "-c", "cut -d' ' -f2 /proc/mounts; ls -d /sys/class; ! touch /x", options=options)
    assert done.returncode == 0, done
    assert {"/dev", "/proc", "/sys", "/made/here", "/sys/class"} <= set(done.stdout.split())
    assert sorted(os.listdir(box.rootfs)) == before


def test_signals_and_the_library(box: Box, kernel: str) -> None:
    popen = mc.Popen(
        ["sh", "-c", "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done"],
        rootfs=str(box.rootfs), isolation="kvm", kernel=kernel, stdout=mc.PIPE, text=True,
    )  # fmt: skip
    with popen as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "caught\n"
        assert process.wait(60) == 3
    result = process.result()
    assert result.reason == "exited"
    assert result.usage.walltime > 0
    sides = {event.side for event in result.timeline}
    assert sides == {"parent", "child", "guest"}


def test_kill_and_timeout_leave_nothing(box: Box, kernel: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        mc.run(["sleep", "1000"], rootfs=str(box.rootfs), isolation="kvm", kernel=kernel, timeout=0.5)


def test_a_panic_says_so(machine: Callable[..., Done]) -> None:
    done = machine("sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60")
    assert done.returncode == 125, done
    said = done.stderr.splitlines()
    why = "Kernel panic - not syncing: sysrq triggered crash"
    assert said[0] == f"minicontainer: machine: the guest has ended before its program ({why})"
    assert len(said) == 13, "and the last lines of its kernel"


def test_a_program_that_is_killed_for_memory(machine: Callable[..., Done], tmp_path: Path) -> None:
    meta = tmp_path / "meta.json"
    done = machine("sh", "-c", "tail /dev/zero", options=("-m", "128m", "--meta", meta))
    assert (done.returncode, json.loads(meta.read_text(encoding="utf-8"))["reason"]) == (137, "oom"), done
    assert "--memory 134217728: the guest ran out of memory, and its kernel killed the program" in done.stderr


IMAGE = """
grep ' / ' /proc/mounts | cut -d' ' -f3
stat -c '%u:%g %a %s' /owned; cat /owned; readlink /link
cat /sys/class/misc/hw_random/rng_current
cat /run/link/from-host; echo back >/run/link/from-guest; cat /one-file
{ echo x >/etc/new; } 2>/dev/null && rm /owned && mkdir /made && echo written || echo read-only
test -e /share -o -e /image -o -e /minicontainer-volume-0 || echo hidden
"""


@pytest.mark.needs("mkfs.erofs", "mke2fs")
@pytest.mark.parametrize(
    "case", [("erofs", "--ephemeral", "overlay", "written"), ("ext4", "--read-only", "ext4", "read-only")]
)
def test_rootfs_as_a_disk(machine: Callable[..., Done], box: Box, tmp_path: Path, case: tuple[str, ...]) -> None:
    """Its content and owners, with volumes of the host at places that ROOTFS has links to; and nothing is written."""
    kind, how, root, writing = case
    (tmp_path / "data").mkdir()
    (tmp_path / "data/from-host").write_text("from the host\n", encoding="utf-8")
    (tmp_path / "file").write_text("one file\n", encoding="utf-8")
    box.rootfs.chmod(0o755)
    owned = box.rootfs / "owned"
    owned.write_text("owned\n", encoding="utf-8")
    os.chown(owned, 1000, 65535)
    owned.chmod(0o640)
    (box.rootfs / "link").symlink_to("/etc/target")
    (box.rootfs / "run/true").mkdir(parents=True)
    (box.rootfs / "run/link").symlink_to("/run/true")
    (box.rootfs / "one-file").touch()
    before = sorted(str(path) for path in box.rootfs.rglob("*"))
    volumes = ["-v", f"{tmp_path}/data:/run/link", "-v", f"{tmp_path}/file:/one-file:ro"]
    done = machine("sh", "-c", IMAGE, options=["--root-image", kind, how, *volumes])
    assert (done.returncode, done.stderr) == (0, ""), done
    content = [root, "1000:65535 640 6", "owned", "/etc/target", "virtio_rng.0"]
    assert done.stdout.splitlines() == [*content, "from the host", "one file", writing, "hidden"]
    assert (tmp_path / "data/from-guest").read_text(encoding="utf-8") == "back\n"
    assert sorted(str(path) for path in box.rootfs.rglob("*")) == before


BARE = """
cat; uname -r; nproc; echo written >/made
for path in /sys/firmware/acpi /proc/modules; do test -e $path || echo no $path; done
"""


def test_a_kernel_without_acpi_and_modules(box: Box) -> None:
    """That of libkrunfw, as the default: it learns of devices by its command line, of processors by an MP table."""
    library = f"{os.environ['RIG_GUESTS']}/libkrunfw.so"
    subprocess.run([*CLI, "kernel", "add", "--default", "--name", "bare", library], check=True, timeout=60)
    try:
        options = ("--isolation", "kvm", "--cpus", "2")
        done = box.run("sh", "-c", BARE, options=options, timeout=150, input="from the host\n")
    finally:
        subprocess.run([*CLI, "kernel", "rm", "bare"], check=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    first, release, *others = done.stdout.splitlines()
    assert (first, others) == ("from the host", ["2", "no /sys/firmware/acpi", "no /proc/modules"])
    assert release != os.uname().release
    assert (box.rootfs / "made").read_text(encoding="utf-8") == "written\n"


FREES = "dd if=/dev/zero of=/tmp/x bs=1M count=100 2>/dev/null; echo filled; read line; rm /tmp/x; read line"


def resident(pid: int) -> int:
    """Bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) << 10


def test_memory_that_the_guest_frees_is_the_hosts_again(box: Box, kernel: str) -> None:
    tmpfs = mc.Mount("/tmp", type="tmpfs", size="150m")
    popen = mc.Popen(
        ["sh", "-c", FREES], rootfs=str(box.rootfs), isolation="kvm", kernel=kernel, mounts=(tmpfs,),
        stdin=mc.PIPE, stdout=mc.PIPE, text=True,
    )  # fmt: skip
    with popen as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "filled\n"
        filled = resident(process.pid)
        process.stdin.write("free it\n")
        process.stdin.flush()
        until(lambda: resident(process.pid) < filled - (80 << 20))
        process.stdin.close()
        assert process.wait(60) == 1, "the end of its input"


USERS = "id -u; echo written >/made; chown 7:7 /made && echo given"


def test_an_ordinary_user_who_may_open_dev_kvm(as_user: Run, rootfs: Path, user_directory: Path) -> None:
    """Whom the host gives subordinate ids, and no cgroup: his machine, what his monitor may, and a limit."""
    mine = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(mine)], check=True)
    kernel = tree(user_directory, "vmlinuz")
    command = [*CLI, "run", "--isolation", "kvm", "--kernel", kernel]
    done = as_user([*command, mine, "sh", "-c", USERS], timeout=150)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.splitlines() == ["0", "given"], done
    assert (mine / "made").stat().st_uid not in (0, 7, USER_ID), "a subordinate id"
    done = as_user([*command, "--security-report", mine], timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert " 0 fail" in done.stdout
    refusal(as_user([*command, "-m", "256m", mine, "true"]), 125, ["-m 256m", "is not delegated to user"])
