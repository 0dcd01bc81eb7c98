"""The filter of system calls, from inside: what it refuses, and that it is the filter that does.

Each call of CALLS is made three times: in a container with the default rights; in one that has every right on the host
and that same filter; and in one with every right and none. Its arguments are such that the kernel, once it has checked
the caller's rights, refuses them for another reason, or that the call does no harm.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from box import CLI, Box, copy_of, python, python_options, refusal
from supplies import Run

from minicontainer.container import seccomp
from minicontainer.linux import libseccomp
from minicontainer.native import lib
from minicontainer.spec import Spec

pytestmark = pytest.mark.needs("root")

EPERM, ENOSYS, KILLED = 1, 38, -signal.SIGSYS
NONE, BAD = 0, 2**64 - 1  # a null pointer; -1, which is no descriptor
HIGH = 2**32  # a bit that the kernel does not look at
THREAD = 0x10000  # CLONE_THREAD without CLONE_SIGHAND is EINVAL
IMPOSSIBLE = 99  # a type of socket, a command ... that there is none of
NAMESPACES = ("NEWNS", "NEWCGROUP", "NEWUTS", "NEWIPC", "NEWUSER", "NEWPID", "NEWNET")
FAMILIES = {"AF_ALG": 38, "AF_VSOCK": 40, "AF_KEY": 15, "AF_RDS": 21, "AF_CAN": 29, "AF_TIPC": 30, "AF_BLUETOOTH": 31}

Call = tuple[str, tuple[int, ...], int]  # name, arguments, what is expected: an errno or -signal

CALLS: list[Call] = [
    ("mount", (NONE, NONE, NONE, 0, NONE), EPERM),
    ("umount2", (NONE, IMPOSSIBLE), EPERM),
    ("pivot_root", (NONE, NONE), EPERM),
    ("open_tree", (BAD, NONE, 0), EPERM),
    ("move_mount", (BAD, NONE, BAD, NONE, 2**31), EPERM),
    ("fsopen", (NONE, 0), EPERM),
    ("fsconfig", (BAD, IMPOSSIBLE, NONE, NONE, 0), EPERM),
    ("fsmount", (BAD, 0, 0), EPERM),
    ("fspick", (BAD, NONE, 0), EPERM),
    ("mount_setattr", (BAD, NONE, 0, NONE, 0), EPERM),
    ("setns", (BAD, 0), EPERM),
    *(("unshare", (getattr(lib, f"CLONE_{kind}") | 1, 0), EPERM) for kind in (*NAMESPACES, "NEWTIME")),
    *(("clone", (getattr(lib, f"CLONE_{kind}") | THREAD, 0, 0, 0, 0), EPERM) for kind in NAMESPACES),
    ("clone", (lib.CLONE_NEWUSER | THREAD | HIGH, 0, 0, 0, 0), EPERM),
    ("clone3", (NONE, 0), ENOSYS),
    ("bpf", (IMPOSSIBLE, NONE, 0), EPERM),
    ("perf_event_open", (NONE, 0, BAD, BAD, 0), EPERM),
    ("keyctl", (2**16, 0, 0, 0, 0), EPERM),
    ("add_key", (NONE, NONE, NONE, 0, 0), EPERM),
    ("request_key", (NONE, NONE, NONE, 0), EPERM),
    ("io_uring_setup", (0, NONE), EPERM),
    ("io_uring_enter", (BAD, 0, 0, 0, NONE, 0), EPERM),
    ("io_uring_register", (BAD, 0, NONE, 0), EPERM),
    ("userfaultfd", (2**31,), EPERM),
    ("init_module", (NONE, 0, NONE), EPERM),
    ("finit_module", (BAD, NONE, 0), EPERM),
    ("delete_module", (NONE, 0), EPERM),
    ("kexec_load", (0, 0, NONE, 0x8000), EPERM),
    ("kexec_file_load", (BAD, BAD, 0, NONE, 0x8000), EPERM),
    ("ptrace", (0, 0, NONE, NONE), EPERM),  # PTRACE_TRACEME, which takes no right
    ("process_vm_readv", (0, NONE, 0, NONE, 0, 1), EPERM),
    ("process_vm_writev", (0, NONE, 0, NONE, 0, 1), EPERM),
    ("pidfd_getfd", (BAD, BAD, 1), EPERM),
    ("kcmp", (0, 0, 0, 0, 0), EPERM),
    ("clock_settime", (0, NONE), EPERM),
    ("settimeofday", (1, NONE), EPERM),
    ("open_by_handle_at", (BAD, NONE, 0), EPERM),
    ("swapon", (NONE, 0), EPERM),
    ("swapoff", (NONE,), EPERM),
    ("acct", (1,), EPERM),
    ("reboot", (0, 0, 0, NONE), EPERM),
    ("sethostname", (NONE, BAD), EPERM),
    ("syslog", (IMPOSSIBLE, NONE, 0), EPERM),
    ("ioperm", (2**20, 1, 1), EPERM),
    ("iopl", (IMPOSSIBLE,), EPERM),
    ("modify_ldt", (IMPOSSIBLE, NONE, 0), EPERM),
    ("move_pages", (0, 0, NONE, NONE, NONE, 2**10), EPERM),
    ("set_mempolicy", (IMPOSSIBLE, NONE, 0), EPERM),
    *(("socket", (family | more, IMPOSSIBLE, 0), EPERM) for family in FAMILIES.values() for more in (0, HIGH)),
    ("socketpair", (2, IMPOSSIBLE, 0, NONE), EPERM),
    ("personality", (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
    ("personality", (0x0400000 | HIGH,), EPERM),  # READ_IMPLIES_EXEC
    ("personality", (6,), EPERM),  # PER_BSD
    ("ioctl", (BAD, 0x5412, NONE), EPERM),  # TIOCSTI
    ("ioctl", (BAD, 0x5412 | HIGH, NONE), EPERM),
    ("ioctl", (BAD, 0x541C, NONE), EPERM),  # TIOCLINUX
]
ONE_OF_I386 = "i386"  # getpid by int 0x80
if platform.machine() == "x86_64":
    CALLS += [(ONE_OF_I386, (), KILLED), ("x32", (), KILLED)]

PROBE = r"""
import ctypes, json, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def i386():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
def answer(number, arguments):
    if number is None:
        return 0 if i386() > 0 else 1
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a) for a in arguments))
    return ctypes.get_errno() if done == -1 else 0
found = []
for number, arguments in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        os._exit(answer(number, arguments))
    found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(found))
"""


def number(name: str) -> int | None:
    """For the probe."""
    special = {ONE_OF_I386: None, "x32": lib.X32_SYSCALL_BIT | libseccomp.number("getpid")}
    return special[name] if name in special else libseccomp.number(name)


def asked(box: Box, calls: Sequence[Call], *options: str | Path) -> list[int]:
    """What the calls answer in a container with these options, in the host's user namespace: the probe's libraries may
    be on a file system that cannot be shown with other ids."""
    listed = json.dumps([(number(name), arguments) for name, arguments, _ in calls])
    everywhere = [*python_options(), "--userns", "host"]
    done = box.run(python(), "-S", "-E", "-c", PROBE, listed, options=[*everywhere, *options])
    assert (done.returncode, done.stderr) == (0, ""), done
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def private_box(minicontainer_cli: Run, rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A root file system of this module's own: the probe's libraries want places to be mounted on."""
    return Box(minicontainer_cli, copy_of(rootfs, tmp_path_factory.mktemp("seccomp") / "root"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default filter in a file, for containers that have more rights."""
    path = tmp_path_factory.mktemp("filter") / "default.bpf"
    path.write_bytes(seccomp.program(Spec(rootfs="/")))
    return path


def named(calls: Sequence[Call], answers: Sequence[int]) -> list[tuple[str, tuple[int, ...], int]]:
    return [(name, arguments, got) for (name, arguments, _), got in zip(calls, answers, strict=True)]


def test_what_is_refused(private_box: Box, compiled: Path) -> None:
    calls = [call for call in CALLS if call[0] in (ONE_OF_I386, "x32") or (number(call[0]) or 0) >= 0]
    expected = [call[2] for call in calls]
    assert named(calls, asked(private_box, calls)) == named(calls, expected)
    filtered = asked(private_box, calls, "--privileged", "--security-opt", f"seccomp={compiled}")
    assert named(calls, filtered) == named(calls, expected)
    free = asked(private_box, calls, "--privileged")
    assert not [call for call, got in zip(calls, free, strict=True) if got == call[2]]


def test_packets_with_the_capability_only(private_box: Box, tmp_path: Path) -> None:
    calls: list[Call] = [("socket", (family, IMPOSSIBLE, 0), EPERM) for family in (17, 17 | HIGH)]
    assert EPERM not in asked(private_box, calls, "--cap-add", "NET_RAW")
    assert asked(private_box, calls) == [EPERM, EPERM]
    (tmp_path / "filter").write_bytes(seccomp.program(Spec(rootfs="/")))
    assert asked(private_box, calls, "--privileged", "--security-opt", f"seccomp={tmp_path}/filter") == [EPERM, EPERM]


def test_capabilities_open_what_they_stand_for(private_box: Box) -> None:
    for capability, names in {
        "SYS_ADMIN": ("mount", "umount2", "unshare", "clone", "clone3", "fsopen", "setns", "bpf"),
        "SYS_PTRACE": ("ptrace", "process_vm_readv", "pidfd_getfd"),
        "SYS_TIME": ("clock_settime",),
    }.items():
        calls = [call for call in CALLS if call[0] in names]
        answers = asked(private_box, calls, "--cap-add", capability)
        assert not [call for call, got in zip(calls, answers, strict=True) if got in (EPERM, ENOSYS)], capability


def test_a_call_newer_than_the_profile(private_box: Box) -> None:
    """ENOSYS, also where this kernel has it."""
    numbers = json.dumps([(n, [BAD] * 6) for n in (600, 5000)])
    words = (python(), "-S", "-E", "-c", PROBE, numbers)
    assert private_box.run(*words, options=python_options()).stdout == "[38, 38]\n"


def test_what_programs_need_goes_on(private_box: Box) -> None:
    calls: list[Call] = [
        *(("socket", (family, 1, 0), 0) for family in (1, 2, 10)),
        ("socket", (16, 3, 0), 0),  # AF_NETLINK, SOCK_RAW, NETLINK_ROUTE
        ("unshare", (0x400, 0), 0),  # CLONE_FILES
        *(("personality", (persona,), 0) for persona in (0, 8, 0x20000, 2**32 - 1)),
        ("landlock_create_ruleset", (NONE, 0, 1), 0),
        ("getrandom", (NONE, 0, 0), 0),
        ("memfd_create", (NONE, 0), 14),  # EFAULT: it is the kernel that answers
        ("seccomp", (0, 1, NONE), 22),
        ("ioctl", (BAD, 0x5413, NONE), 9),  # TIOCGWINSZ
    ]
    unconfined = asked(private_box, calls, "--security-opt", "seccomp=unconfined")
    assert named(calls, asked(private_box, calls)) == named(calls, unconfined)
    assert unconfined[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--init"],
        ["--userns", "private"],
        ["--userns", "host"],
        ["--ephemeral"],
        ["-u", "1000"],
        ["--cap-add", "ALL"],
    ],
    ids=" ".join,
)
def test_it_is_loaded_whatever_else_is_asked_for(box: Box, options: list[str]) -> None:
    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/1/status /proc/self/status | cut -f2 | sort -u | tr '\\n' ' '"
    assert box.sh(script, *options) == "1 2"


def test_unconfined_and_privileged_have_none(box: Box) -> None:
    for options in (["--security-opt", "seccomp=unconfined"], ["--privileged"]):
        assert box.sh("grep ^Seccomp: /proc/self/status | cut -f2", *options) == "0"


def test_the_plan_tells_its_length(box: Box) -> None:
    plan = box.run(options=["--dry-run"]).stdout
    count = len(seccomp.program(Spec(rootfs="/"))) // 8
    assert [line.strip() for line in plan.splitlines() if "seccomp" in line] == [
        f"seccomp(0, {count}, <{count} instructions>)"
    ]
    assert "seccomp" not in box.run(options=["--dry-run", "--privileged"]).stdout
    assert max(map(len, plan.splitlines())) < 1000


def test_a_profile_in_json(box: Box, tmp_path: Path) -> None:
    path = tmp_path / "profile"
    entry = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}), encoding="utf-8")
    script = "mkdir /dev/shm/x 2>&1; mount -t tmpfs t /mnt && echo mounted"
    options = ["--security-opt", f"seccomp={path}", "--cap-add", "SYS_ADMIN", "--userns", "host"]
    assert box.sh(script, *options).splitlines() == [
        "mkdir: can't create directory '/dev/shm/x': Read-only file system",
        "mounted",
    ]
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"]}]}', encoding="utf-8")
    box.refused("true", options=options, says=[f"--security-opt seccomp={path}", "syscalls[0]", "has no action"])


def test_where_libseccomp_is_missing(box: Box, tmp_path: Path) -> None:
    """One line; without a filter a container runs still."""
    library = libseccomp.path()
    hide = f'mount --make-rprivate / && mount --bind /dev/null {library} && exec "$@"'
    run = ["unshare", "--mount", "sh", "-c", hide, "-", "env", f"XDG_CACHE_HOME={tmp_path}", *CLI, "run"]

    def tried(*options: str) -> subprocess.CompletedProcess[str]:
        words = [*run, *options, str(box.rootfs), "true"]
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    said = refusal(
        tried(), says=["minicontainer: seccomp: ", "libseccomp", "install libseccomp2", "seccomp=unconfined"]
    )
    assert os.path.basename(library) in said
    assert tried("--security-opt", "seccomp=unconfined").returncode == 0
    assert tried("--privileged").returncode == 0
