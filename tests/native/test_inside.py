"""What a container gets: looked at from inside, in two runs of one script, with the defaults and with all that a
careless caller can hand down (ignored and blocked signals, descriptors, a umask, an environment)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from box import CLI, Box, python, python_options

from minicontainer.container import host
from minicontainer.spec import Spec

pytestmark = pytest.mark.needs("root")

SCRIPT = r"""
say() { echo "== $1"; shift; "$@" 2>&1; }
say status cat /proc/self/status
say namespaces sh -c 'for n in mnt pid net uts ipc cgroup user time; do readlink /proc/self/ns/$n; done'
say mounts cat /proc/self/mountinfo
say dev sh -c 'cd /dev; stat -c "%n %A %t:%T" *'
say links sh -c 'cd /dev; for l in core fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done'
say environment sh -c 'tr "\\0" "\\n" < /proc/1/environ'
say umask umask
say cgroup cat /proc/self/cgroup
say root stat -c '%A' / /proc /sys /dev /dev/shm /dev/pts /dev/mqueue
say interfaces ip -o link
say addresses ip -o addr
say processes ps -o pid,args
say session cat /proc/1/stat
say limits cat /proc/self/limits
say cwd pwd
say children sh -c 'cat /proc/1/task/1/children'
"""

Facts = dict[str, str]


def facts_of(text: str) -> Facts:
    """``== name`` and the lines after it."""
    parts = re.split(r"^== (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module", params=["plain", "careless"])
def facts(request: pytest.FixtureRequest, rootfs: Path) -> Facts:
    """What the script tells, with two kinds of callers."""
    command: list[str] = [*CLI, "run", str(rootfs)]
    if request.param == "careless":
        command = ["env", "--block-signal=TERM", "--ignore-signal=PIPE", "--ignore-signal=USR1", *command]

    def run(*words: str) -> str:
        options: dict[str, Any] = {
            "pass_fds": [fd],
            "env": {**os.environ, "SECRET": "of the host"},
            "umask": 0o777,
            "input": "",
        }
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=True, **options)
        assert done.stderr == ""
        return str(done.stdout)

    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        told = facts_of(run("sh", "-c", SCRIPT))
        return told | {"pid1": run("cat", "/proc/1/status"), "fds": run("find", "/proc/1/fd")}
    finally:
        os.close(fd)


def field(text: str, name: str) -> str:
    """A line of /proc/PID/status."""
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{name}:"))


@pytest.mark.parametrize("who", ["status", "pid1"])
def test_confinement(facts: Facts, who: str) -> None:
    told = facts[who]
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert field(told, name) == "00000000a80405fb"
    for name in ("CapInh", "CapAmb", "SigBlk", "SigIgn", "SigPnd", "ShdPnd"):
        assert int(field(told, name), 16) == 0, name
    assert field(told, "NoNewPrivs") == "1"
    assert field(told, "Umask") == "0022"
    assert field(told, "Groups") == ""
    assert field(told, "Uid").split() == ["0"] * 4
    assert field(told, "TracerPid") == "0"


def test_sigpipe_ends_a_writer(box: Box) -> None:
    """Python ignores it; a program inside must not."""
    assert box.sh("(yes; echo $? >&2) 2>/dev/shm/code | head -n 1; sleep 0.1; cat /dev/shm/code") == "y\n141"


def test_descriptors(facts: Facts) -> None:
    """Of process 1: beyond the three there is only the one with which it lists them."""
    assert facts["fds"].split() == ["/proc/1/fd", *(f"/proc/1/fd/{n}" for n in range(4))]


def test_namespaces(facts: Facts) -> None:
    """Each differs from the host's; that of time where the kernel enters it at exec (Linux 6.3)."""
    for link in facts["namespaces"].split():
        kind = link.partition(":")[0]
        same = link == os.readlink(f"/proc/self/ns/{kind}")
        assert same == (kind == "time" and not host.has_time_namespace(Spec(rootfs="/"))), kind


def test_processes(facts: Facts) -> None:
    first = facts["session"].split()
    assert (first[0], first[4], first[5]) == ("1", "1", "1")  # its pid, process group and session
    assert first[3] == "0"  # its parent is not to be seen
    assert first[6] == "0"  # no controlling terminal
    assert facts["processes"].splitlines()[1].split()[0] == "1"
    assert "python" not in facts["processes"]


def test_mounts(facts: Facts) -> None:
    mounts: dict[str, list[str]] = {}
    for line in facts["mounts"].splitlines():
        before, _, after = line.partition(" - ")
        mounts[before.split()[4]] = [after.split()[0], *before.split()[5].split(",")]
        assert "shared:" not in before
        assert "master:" not in before
    paths = [line.split()[4] for line in facts["mounts"].splitlines()]
    assert paths.count("/") == 1
    assert len(paths) == len(set(paths))
    for path, kind, flags in (
        ("/proc", "proc", {"rw", "nosuid", "nodev", "noexec"}),
        ("/sys", "sysfs", {"ro", "nosuid", "nodev", "noexec"}),
        ("/dev", "tmpfs", {"rw", "nosuid"}),
        ("/dev/pts", "devpts", {"rw", "nosuid", "noexec"}),
        ("/dev/shm", "tmpfs", {"rw", "nosuid", "nodev", "noexec"}),
        ("/dev/mqueue", "mqueue", {"rw", "nosuid", "nodev", "noexec"}),
        ("/proc/sys", "proc", {"ro"}),
        ("/proc/irq", "proc", {"ro"}),
        ("/proc/bus", "proc", {"ro"}),
    ):
        assert mounts[path][0] == kind
        assert flags <= set(mounts[path][1:]), path
    known = ("/proc", "/sys", "/dev")
    assert not [path for path in paths if path != "/" and not path.startswith(known)]


@pytest.mark.needs("overlay")
@pytest.mark.parametrize("more", [[], ["--privileged"], ["--read-only"], ["--init"], ["--pid", "host"]], ids=" ".join)
@pytest.mark.parametrize("userns", ["auto", "host", "keep-id"])
@pytest.mark.parametrize("kind", [[], ["--ephemeral"]], ids=["plain", "ephemeral"])
def test_nothing_of_the_host_s_tree_is_left(
    rootfs: Path, box: Box, kind: list[str], userns: str, more: list[str]
) -> None:
    """Neither below the root nor on top of it, where ".." would lead."""
    script = "cat /proc/self/mountinfo; ls -d /../etc; stat -c %d:%i / /.."
    lines = box.sh(script, *kind, "--userns", userns, *more).splitlines()
    top, above = lines.pop(), lines.pop()
    assert top == above
    assert lines.pop() == "/../etc"
    assert sorted(os.listdir(rootfs)) == sorted(box.sh("ls -A /..", *kind, "--userns", userns, *more).split())
    paths = [line.split()[4] for line in lines]
    assert paths.count("/") == 1
    assert not [path for path in paths if path != "/" and not path.startswith(("/proc", "/sys", "/dev"))]


@pytest.mark.parametrize("userns", ["auto", "host"])
@pytest.mark.parametrize("ephemeral", [[], ["--ephemeral"]], ids=["plain", "ephemeral"])
def test_what_comes_with_rootfs_is_inert(own_box: Box, ephemeral: list[str], userns: str) -> None:
    """Device nodes and set-uid files, unless all rights are asked for."""
    os.mknod(own_box.rootfs / "node", 0o020666, os.makedev(1, 5))
    options = ["--userns", userns, *ephemeral]
    done = own_box.run("head", "-c1", "/node", options=options)
    assert (done.returncode, done.stderr) == (1, "head: /node: Permission denied\n")
    flags = own_box.sh("awk '$5 == \"/\"' /proc/self/mountinfo", *options).split()[5].split(",")
    assert {"nosuid", "nodev"} <= set(flags)
    kept = own_box.sh("awk '$5 == \"/\"' /proc/self/mountinfo", *options, "--security-opt", "no-new-privileges=false")
    assert ("nosuid" in kept, "nodev" in kept) == (False, True)
    if userns == "host":
        assert own_box.sh("head -c1 /node | wc -c", *options, "--privileged") == "1"


def test_dev(facts: Facts) -> None:
    nodes = {line.split()[0]: line.split()[1:] for line in facts["dev"].splitlines()}
    numbers = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    for name, number in numbers.items():
        assert nodes.pop(name) == ["crw-rw-rw-", number]
    links = dict(line.split() for line in facts["links"].splitlines())
    assert links == {
        "core": "/proc/kcore",
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }
    assert set(nodes) - set(links) == {"pts", "shm", "mqueue"}
    assert facts["root"].split()[1:] == [
        "dr-xr-xr-x",
        "dr-xr-xr-x",
        "drwxr-xr-x",
        "drwxrwxrwt",
        "drwxr-xr-x",
        "drwxrwxrwt",
    ]


def test_environment(facts: Facts) -> None:
    home, name, *rest = sorted(facts["environment"].split())
    assert re.fullmatch("HOSTNAME=[0-9a-f]{12}", name)
    assert [home, *rest] == [
        "HOME=/root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    assert facts["cwd"].strip() == "/"
    assert facts["umask"].strip() == "0022"


def test_network(facts: Facts) -> None:
    names = [line.split(": ")[1].partition("@")[0] for line in facts["interfaces"].splitlines()]
    assert [
        name for name in names if not re.fullmatch(r"(sit|tunl|gre|gretap|erspan|ip6\w+|ip_vti|ip6_vti)0", name)
    ] == ["lo"]
    assert "LOOPBACK,UP" in facts["interfaces"]
    assert "inet 127.0.0.1/8" in facts["addresses"]


def test_cgroup(facts: Facts) -> None:
    """The root of its own: no path of the host is seen."""
    assert "0::/\n" in facts["cgroup"]
    assert "minicontainer" not in facts["cgroup"]


# ---- what cannot be read or written

MASKED = """
    /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi
    /proc/timer_list /proc/timer_stats /sys/firmware /sys/devices/virtual/powercap
""".split()


def test_masked_paths_are_empty(box: Box) -> None:
    there = [path for path in MASKED if os.path.exists(path)]
    show = "if [ -d $p ]; then ls $p 2>/dev/null | head -c 100; else head -c 100 $p; fi"
    script = f"for p in {' '.join(there)}; do {show}; done | wc -c"
    assert box.sh(script) == "0"
    assert int(box.sh(script, "--privileged")) > 0


def test_read_only_paths(box: Box) -> None:
    writes = {
        "/proc/sys/kernel/core_pattern": "x",
        "/proc/sys/net/ipv4/ip_forward": "1",
        "/proc/sysrq-trigger": "h",
        "/proc/irq/default_smp_affinity": "1",
        "/sys/kernel/uevent_helper": "x",
        "/sys/fs/cgroup/cgroup.procs": "1",
        "/sys/fs/cgroup/cgroup.kill": "1",
    }
    before = {path: Path(path).read_text(encoding="utf-8") for path in list(writes)[:2]}
    lines = [
        f"[ -e {path} ] && (echo {text} >{path}) 2>/dev/null && echo wrote {path}" for path, text in writes.items()
    ]
    assert box.sh("\n".join([*lines, "echo end"])) == "end"
    assert {path: Path(path).read_text(encoding="utf-8") for path in before} == before


def test_the_old_root_is_gone(box: Box) -> None:
    assert box.sh("ls -di / /.. /../.. /proc/1/root/ | awk '{print $1}' | sort -u | wc -l") == "1"


PROBE = r"""
import ctypes, json, os, socket, fcntl, termios
libc = ctypes.CDLL(None, use_errno=True)
KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
def keyctl(*words):
    return libc.syscall(KEYCTL, *words)
buffer = ctypes.create_string_buffer(200)
keyctl(6, -3, buffer, 200)  # KEYCTL_DESCRIBE of KEY_SPEC_SESSION_KEYRING
found = {"keyring": buffer.value.decode(), "serial": keyctl(0, -3, 0)}
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname(), timeout=5):
        found["loopback"] = True
found["abstract"] = open("/proc/net/unix").read().count("@")
found["mount"] = libc.mount(b"t", b"/mnt", b"tmpfs", 0, None) and ctypes.get_errno()
found["exe"] = os.readlink("/proc/1/exe")
root = os.stat("/")
os.mkdir("/tmp/jail")  # the way out of a chroot(2)
os.chroot("/tmp/jail")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
found["escaped"] = (os.stat("/").st_dev, os.stat("/").st_ino) != (root.st_dev, root.st_ino)
print(json.dumps(found))
"""


def test_a_program_of_its_own(own_box: Box) -> None:
    """What only system calls tell: the keyring (which the default filter keeps shut), sockets, rights."""
    options = [*python_options(), "--security-opt", "seccomp=unconfined"]
    done = own_box.run(python(), "-S", "-E", "-c", PROBE, options=options)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["keyring"].startswith("keyring;0;0;")
    assert found["keyring"].endswith(";_ses")
    assert found["loopback"]
    assert found["abstract"] == 0
    assert found["mount"] == 1  # EPERM
    assert found["exe"] == python()
    assert not found["escaped"]


def test_each_container_has_a_keyring_of_its_own(own_box: Box) -> None:
    serials = set()
    for _ in range(2):
        options = [*python_options(), "--tmpfs", "/tmp", "--security-opt", "seccomp=unconfined"]
        done = own_box.run(python(), "-S", "-E", "-c", PROBE, options=options)
        serials.add(json.loads(done.stdout)["serial"])
    assert len(serials) == 2


def test_streams_are_passed_as_they_are(box: Box, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as out:
        box.run(
            "sh", "-c", "stat -Lc %t:%T /proc/self/fd/0; echo err >&2", stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        out.seek(0)
        assert out.read() == b"1:3\nerr\n"  # mem(4), null(4)
    data = "line\n" * 100_000
    assert box.run("cat", input=data).stdout == data


def test_modes_of_the_devices_do_not_follow_the_umask(rootfs: Path) -> None:
    command = [*CLI, "run", str(rootfs), "stat", "-c", "%a", "/dev/null", "/dev/shm"]
    done = subprocess.run(command, capture_output=True, text=True, umask=0o777, stdin=subprocess.DEVNULL, check=True)
    assert done.stdout.split() == ["666", "1777"]
