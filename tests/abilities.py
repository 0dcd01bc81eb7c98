"""Features of the host that a test needs: ``@pytest.mark.needs("root", "cgroup-memory")``. A pytest plugin.

Theory of operation. Each ability has a probe, which tries the feature and returns why it is missing ("" if it works);
versions are never compared. A probe runs once per session, when the first test needs its ability. A test that lacks an
ability is skipped with the reason ``needs ABILITY: why``, by which accounting.py and run.py select the tests to run
again in the rig. With MINICONTAINER_MUST_WORK=1 such a test fails instead. Abilities of a test's fixtures (FIXTURES)
count as the test's own, so the collection alone shows which tests cannot run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pwd
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import iputils
import pytest

from minicontainer import runtime
from minicontainer.linux import nftables

FIXTURES = {"as_user": "user", "user_directory": "user"}
USER = "rig"
NOBODY = 65534
USER_ID = 1000
RIG_TOOLS = ("qemu-system-x86_64", "busybox", "depmod", "mke2fs", "dpkg-deb")


def why_not(ability: str) -> str:
    """Why this host lacks the ability; "" if it has it."""
    if ability not in PROBES:
        raise pytest.UsageError(f"unknown ability {ability!r}: one of {', '.join(sorted(PROBES))}")
    return _probe(ability)


def missing(item: pytest.Item) -> str:
    """``needs ABILITY: why`` of the first ability that the test lacks; "" if it lacks none."""
    wanted = [name for mark in item.iter_markers("needs") for name in mark.args]
    wanted += [FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES]
    for ability in dict.fromkeys(wanted):
        if why := why_not(ability):
            return f"needs {ability}: {why}"
    return ""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(ability, ...): skip where the host lacks one (tests/abilities.py)")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = missing(item)
    if reason and os.environ.get("MINICONTAINER_MUST_WORK") == "1":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


# ---- probes


@cache
def _probe(ability: str) -> str:
    try:
        return PROBES[ability]()
    except OSError as error:
        return str(error)


def _try(*command: str) -> str:
    """Why the command fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else said[-1] if said else f"{command[0]} gives {done.returncode}"


def _root() -> str:
    return f"user id is {os.geteuid()}" if os.geteuid() else _try("unshare", "--mount", "true")


def _userns() -> str:
    return _try("unshare", "--user", "--map-root-user", "true")


def _user() -> str:
    if why := _root():
        return why
    try:
        if pwd.getpwnam(USER).pw_uid != USER_ID:
            return f"user {USER} has not id {USER_ID}"
    except KeyError:
        return f"no user {USER}, as the rig has"
    return _try(*as_user_prefix(), "test", "-r", __file__)


def _nobody() -> str:
    return _root() or _try(*as_nobody_prefix(), sys.executable, "-c", "")


def as_nobody_prefix() -> list[str]:
    """The same for a user id without an entry in /etc/passwd and without a home directory."""
    words = ["--clear-groups", "--inh-caps=-all", "env", "--unset=XDG_RUNTIME_DIR", f"--unset={runtime.VARIABLE}"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", *words, "HOME=/nonexistent"]


def as_user_prefix() -> list[str]:
    """The command prefix that runs a command as an ordinary user."""
    become = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--inh-caps=-all"]
    return [*become, "env", f"--unset={runtime.VARIABLE}"]


def cgroup2_mounts() -> list[Path]:
    """Mount points of cgroup2 file systems that show a whole hierarchy (proc(5), mountinfo)."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return [Path(fields[4]) for fields in lines if fields[3] == "/" and fields[fields.index("-") + 1] == "cgroup2"]


def _cgroup2() -> str:
    if not cgroup2_mounts():
        return "no cgroup2 file system is mounted"
    probe = cgroup2_mounts()[0] / f"minicontainer-probe-{os.getpid()}"
    probe.mkdir()
    try:
        (probe / "cgroup.kill").write_text("1", encoding="ascii")
    finally:
        probe.rmdir()
    return ""


def _controller(name: str) -> Callable[[], str]:
    def probe() -> str:
        if why := why_not("cgroup2"):
            return why
        top = cgroup2_mounts()[0]
        if name not in (top / "cgroup.controllers").read_text(encoding="ascii").split():
            return f"not among the controllers of {top}"
        switch = top / "cgroup.subtree_control"
        if name not in switch.read_text(encoding="ascii").split():
            switch.write_text(f"+{name}", encoding="ascii")
            switch.write_text(f"-{name}", encoding="ascii")
        return ""

    return probe


def _freezer() -> str:
    """The freezer of cgroup v1 (not with cgroup_no_v1=all)."""
    with tempfile.TemporaryDirectory() as directory:
        return _root() or _try("unshare", "--mount", "mount", "-t", "cgroup", "-o", "freezer", "none", directory)


def _overlay() -> str:
    with tempfile.TemporaryDirectory() as directory:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{directory}/{name}")
        options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
        mount = ("mount", "-t", "overlay", "-o", options, "overlay", f"{directory}/merged")
        return _try("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), *mount)


# Linux include/uapi/linux/kvm.h
KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
KVM_SET_USER_MEMORY_REGION, KVM_CREATE_VCPU, KVM_RUN = 0x4020AE46, 0xAE41, 0xAE80
KVM_EXIT_HLT = 5


def _kvm() -> str:
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION, 0)
    finally:
        os.close(fd)
    return "" if version == 12 else f"KVM's API version is {version}"


def _kvm_hardware() -> str:
    """Runs ``popcnt ax, ax; hlt`` at the reset vector: where real mode is interpreted, KVM does not know popcnt."""
    fds = [os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)]
    try:
        fds.append(fcntl.ioctl(fds[0], KVM_CREATE_VM, 0))
        memory = mmap.mmap(-1, 4096)
        memory[0xFF0:0xFF5] = b"\xf3\x0f\xb8\xc0\xf4"
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(fds[1], KVM_SET_USER_MEMORY_REGION, struct.pack("IIQQQ", 0, 0, 0xFFFFF000, 4096, address))
        fds.append(fcntl.ioctl(fds[1], KVM_CREATE_VCPU, 0))
        with mmap.mmap(fds[2], fcntl.ioctl(fds[0], KVM_GET_VCPU_MMAP_SIZE, 0)) as state:
            fcntl.ioctl(fds[2], KVM_RUN, 0)
            (reason,) = struct.unpack_from("I", state, 8)
    finally:
        for fd in reversed(fds):
            os.close(fd)
    return "" if reason == KVM_EXIT_HLT else "KVM interprets privileged code here"


def _rig() -> str:
    return "" if os.environ.get("RIG") == "1" else "this is not the rig"


def _rig_host() -> str:
    """Whether vm.py can start a rig from here; not from within one."""
    if not _rig():
        return "this is the rig itself"
    return next((f"no {name}" for name in RIG_TOOLS if _try("sh", "-c", f"PATH=$PATH:/sbin command -v {name}")), "")


def _disk() -> str:
    path = os.environ.get("RIG_DISK")
    if path is None:
        return "RIG_DISK is not set"
    return "" if os.path.ismount(path) and os.access(path, os.W_OK) else os.strerror(errno.ENODEV) + f" at {path}"


def _true_root() -> str:
    """Whether this process's root is that of its mount namespace, which nsenter(1) sets."""
    enter = ["nsenter", "--mount=/proc/self/ns/mnt", "stat", "-c", "%d:%i", "/"]
    done = subprocess.run(enter, capture_output=True, text=True, check=False)
    here = os.stat("/")
    return "" if done.stdout == f"{here.st_dev}:{here.st_ino}\n" else done.stderr.strip() or "we are in a chroot"


def _bridge() -> str:
    """Networks: a bridge can be created, and nftables supports minicontainer's table."""
    if why := _root():
        return why
    try:
        nftables.run("list tables")
    except Exception as error:
        return str(error)
    return _try("unshare", "--net", "ip", "link", "add", "probe", "type", "bridge")


def _raises_limits() -> str:
    """Whether a hard limit can be raised (CAP_SYS_RESOURCE)."""
    return _try("sh", "-c", "ulimit -Hc 0 && ulimit -Hc 1")


def _immutable() -> str:
    """Whether the file systems of the state directory and of temporary files support chattr(1)."""
    for place in (runtime.directory(), tempfile.gettempdir()):
        runtime.make_directory(place)
        with tempfile.NamedTemporaryFile(dir=place) as file:
            if why := _try("chattr", "+i", file.name) or _try("chattr", "-i", file.name):
                return why
    return ""


PROBES: dict[str, Callable[[], str]] = {
    "root": _root,
    "user": _user,
    "nobody": _nobody,
    "userns": _userns,
    "raises-limits": _raises_limits,
    "cgroup2": _cgroup2,
    **{f"cgroup-{name}": _controller(name) for name in ("memory", "pids", "cpu", "cpuset", "io", "hugetlb")},
    "freezer": _freezer,
    "overlay": _overlay,
    "bridge": _bridge,
    "slirp4netns": lambda: "" if shutil.which("slirp4netns") else "no slirp4netns",
    "pasta": lambda: "" if shutil.which("pasta") else "no pasta",
    "tun": lambda: "" if os.access("/dev/net/tun", os.R_OK) and os.stat("/dev/net/tun").st_mode & 0o6 else "no tun",
    "kvm": _kvm,
    "kvm-hardware": _kvm_hardware,
    "gdb": lambda: "" if shutil.which("gdb") else "no gdb",
    "gcc": lambda: "" if shutil.which("gcc") else "no gcc",
    "mkfs.erofs": lambda: "" if shutil.which("mkfs.erofs") else "no mkfs.erofs",
    "mke2fs": lambda: "" if shutil.which("mke2fs") else "no mke2fs",
    "qemu": lambda: "" if shutil.which("qemu-system-x86_64") else "no qemu-system-x86_64",
    "immutable": _immutable,
    "iputils-ping": iputils.why_not,
    "rig": _rig,
    "rig-host": _rig_host,
    "disk": _disk,
    "true-root": _true_root,
}
