"""Primitives that need privilege, each in a process of its own."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer import linux
from minicontainer import plan as p

pytestmark = pytest.mark.needs("root")


def run(code: str, *args: object) -> str:
    """Runs ``code`` with the primitives at hand, as a process of its own."""
    head = "import os, signal, sys, errno\nfrom minicontainer import linux\nfrom minicontainer.native import lib\n"
    command = [sys.executable, "-c", head + code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_unshare_makes_namespaces_and_sethostname_stays_inside() -> None:
    before = os.uname().nodename
    out = run(
        "a = linux.namespaces.namespaces()\n"
        "linux.unshare('CLONE_NEWUTS|CLONE_NEWIPC')\n"
        "b = linux.namespaces.namespaces()\n"
        "print(sorted(k for k in a if a[k] != b[k]))\n"
        "linux.sethostname('inner'); linux.setdomainname('domain')\n"
        "print(linux.gethostname(), linux.getdomainname())\n"
    )
    assert out == "['ipc', 'uts']\ninner domain\n"
    assert os.uname().nodename == before


def test_setns_joins_by_path_descriptor_and_pidfd() -> None:
    sleeper = linux.clone3(
        p.Plan([p.sethostname("there"), p.execve(["/bin/sleep"], ["sleep", "100"], [])]), "CLONE_NEWUTS"
    )
    pid, pidfd = sleeper
    try:
        out = run(
            "pid = int(sys.argv[1])\n"
            "linux.setns(f'/proc/{pid}/ns/uts'); print(os.uname().nodename)\n"
            "linux.setns('/proc/1/ns/uts') if os.access('/proc/1/ns/uts', os.R_OK) else None\n"
            "linux.setns(os.pidfd_open(pid), 'CLONE_NEWUTS'); print(os.uname().nodename)\n",
            pid,
        )
        assert out == "there\nthere\n"
    finally:
        linux.pidfd_send_signal(pidfd, 9)
        os.waitpid(pid, 0)
        os.close(pidfd)


def test_setns_says_what_it_could_not_join() -> None:
    with pytest.raises(OSError, match=r"^setns\('/proc/self/ns/net', CLONE_NEWUTS\): Invalid argument"):
        linux.setns("/proc/self/ns/net", "CLONE_NEWUTS")
    with open("/dev/null", encoding="utf-8") as f, pytest.raises(OSError, match=rf"^setns\({f.fileno()}, 0\)"):
        linux.setns(f.fileno())
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        linux.setns("/nowhere")


def test_namespaces_are_entered_by_the_descriptors_of_a_process() -> None:
    steps = [p.sethostname("there"), p.execve(["/bin/sleep"], ["sleep", "100"], [])]
    pid, pidfd = linux.clone3(steps, "CLONE_NEWUTS|CLONE_NEWNET")
    try:
        out = run(
            "opened = linux.open_namespaces(sys.argv[1], ['net', 'uts'])\n"
            "os.kill(int(sys.argv[1]), 9)\n"  # a descriptor keeps its namespace
            "for fd in opened.values():\n    linux.setns(fd)\n"
            "print(linux.gethostname(), [link.name for link in linux.links()])\n",
            pid,
        )
        assert out == "there ['lo']\n"
    finally:
        assert linux.waitid(pidfd).status == -9
        os.close(pidfd)


def test_namespaces_that_may_not_be_looked_at_are_no_empty_answer() -> None:
    out = run(
        "look = linux.namespaces.namespaces\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    print(look(os.getppid()))\nexcept PermissionError as e:\n    print(e.filename)\n"
    )
    assert out == f"/proc/{os.getpid()}/ns\n"


def test_unshare_and_names_say_what_failed() -> None:
    with pytest.raises(OSError, match=r"^unshare\(CLONE_NEWPID\|CLONE_PIDFD\): Invalid argument"):
        linux.unshare("CLONE_NEWPID|CLONE_PIDFD")
    for call in (linux.sethostname, linux.setdomainname):
        with pytest.raises(OSError, match=rf"^{call.__name__}\('x{{65}}'\): Invalid argument"):
            call("x" * 65)


def test_mounts_old_and_new(tmp_path: Path) -> None:
    out = run(
        "d = sys.argv[1]\n"
        "linux.unshare('CLONE_NEWNS')\n"
        "linux.mount(None, '/', None, 'MS_REC|MS_PRIVATE')\n"
        "linux.mount('tmpfs', d, 'tmpfs', 'MS_NOSUID', 'size=1m,mode=700')\n"
        "os.mkdir(d + '/a'); os.mkdir(d + '/b'); open(d + '/a/file', 'w').close()\n"
        "tree = linux.open_tree(d + '/a', 'OPEN_TREE_CLONE')\n"
        "linux.mount_setattr(tree, attr_set='MOUNT_ATTR_RDONLY')\n"
        "linux.move_mount(tree, d + '/b')\n"
        "print(os.listdir(d + '/b'))\n"
        "try:\n    open(d + '/b/x', 'w')\nexcept OSError as e:\n    print(errno.errorcode[e.errno])\n"
        "fs = linux.fsopen('tmpfs')\n"
        "linux.fsconfig(fs, 'FSCONFIG_SET_STRING', 'size', '4096')\n"
        "linux.fsconfig(fs, 'FSCONFIG_CMD_CREATE')\n"
        "os.mkdir(d + '/c'); linux.move_mount(linux.fsmount(fs, 'MOUNT_ATTR_NOEXEC'), d + '/c')\n"
        "pick = linux.fspick(d + '/c')\n"
        "linux.fsconfig(pick, 'FSCONFIG_SET_STRING', 'size', '8192')\n"
        "linux.fsconfig(pick, 'FSCONFIG_CMD_RECONFIGURE')\n"
        "found = {m.target: m for m in linux.mountinfo()}\n"
        "print('noexec' in found[d + '/c'].options, 'size=8k' in found[d + '/c'].super_options)\n"
        "os.close(tree); linux.umount(d + '/b'); linux.umount(d, 'MNT_DETACH')\n"
        "print(d in {m.target for m in linux.mountinfo()})\n",
        tmp_path,
    )
    assert out == "['file']\nEROFS\nTrue True\nFalse\n"


IDMAPPED = """
d = sys.argv[1]
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    linux.unshare("CLONE_NEWUSER")
    os.write(w, b"x")
    signal.pause()
os.close(w)
os.read(r, 1)
for name in ("uid_map", "gid_map"):
    open(f"/proc/{pid}/{name}", "w").write("0 100000 1000")
userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
os.kill(pid, 9)
os.waitpid(pid, 0)
linux.unshare("CLONE_NEWNS")
linux.mount(None, "/", None, "MS_REC|MS_PRIVATE")
tree = linux.open_tree(d + "/tree", "OPEN_TREE_CLONE")
try:
    linux.mount_setattr(tree, userns_fd=userns)
except OSError as e:
    sys.exit(print(e))
linux.move_mount(tree, d + "/view")
print(os.stat(d + "/tree/file").st_uid, os.stat(d + "/view/file").st_uid)
"""


@pytest.mark.needs("userns")
def test_an_idmapped_mount_shows_other_owners(tmp_path: Path) -> None:
    """With a user namespace that maps 0 to 100000, files of root's are shown as of id 100000."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("RIG_DISK", tmp_path)) as place:
        (Path(place) / "tree").mkdir()
        (Path(place) / "view").mkdir()
        (Path(place) / "tree" / "file").touch()
        out = run(IDMAPPED, Path(place))
    if "does not support ID-mapped mounts" in out:
        pytest.skip(f"needs ID-mapped mounts of the file system of {tmp_path}: {out.strip()}")
    assert out == "0 100000\n"


def test_pivot_root(tmp_path: Path) -> None:
    (tmp_path / "only").touch()
    out = run(
        "d = sys.argv[1]\n"
        "linux.unshare('CLONE_NEWNS'); linux.mount(None, '/', None, 'MS_REC|MS_PRIVATE')\n"
        "linux.mount(d, d, None, 'MS_BIND'); os.chdir(d)\n"
        "linux.pivot_root('.', '.'); linux.umount('.', 'MNT_DETACH'); os.chdir('/')\n"
        "print(os.listdir('/'))\n",
        tmp_path,
    )
    assert out == "['only']\n"


FAILED_CALLS: dict[str, Callable[[int], object]] = {  # what is said, with N for a descriptor of no use
    "mount('none', '/nowhere', 'tmpfs', MS_NODEV, NULL)": lambda n: linux.mount(
        "none", "/nowhere", "tmpfs", "MS_NODEV"
    ),
    "umount2('/etc', MNT_DETACH)": lambda n: linux.umount("/etc", "MNT_DETACH"),
    "open_tree('/nowhere', OPEN_TREE_CLONE)": lambda n: linux.open_tree("/nowhere", "OPEN_TREE_CLONE"),
    "move_mount(N, '/nowhere', MOVE_MOUNT_F_EMPTY_PATH)": lambda n: linux.move_mount(n, "/nowhere"),
    "fsopen('nofs')": lambda n: linux.fsopen("nofs"),
    "fspick('/nowhere', 0)": lambda n: linux.fspick("/nowhere"),
    "fsconfig(N, FSCONFIG_CMD_CREATE, NULL, NULL, 0)": lambda n: linux.fsconfig(n, "FSCONFIG_CMD_CREATE"),
    "fsmount(N, MOUNT_ATTR_RDONLY)": lambda n: linux.fsmount(n, "MOUNT_ATTR_RDONLY"),
    "mount_setattr(N, MOUNT_ATTR_NODEV, 0, 0, 0)": lambda n: linux.mount_setattr(n, attr_set="MOUNT_ATTR_NODEV"),
    "pivot_root('/nowhere', '/old')": lambda n: linux.pivot_root("/nowhere", "/old"),
}


@pytest.mark.parametrize("said", FAILED_CALLS)
def test_a_failed_mount_call_names_itself_and_its_object(said: str) -> None:
    with open("/dev/null", encoding="utf-8") as f:
        wanted = "^" + re.escape(said.replace("(N,", f"({f.fileno()},")) + ": "
        with pytest.raises(OSError, match=wanted):
            FAILED_CALLS[said](f.fileno())


def test_a_refused_file_system_says_why_in_its_own_words() -> None:
    fs = linux.fsopen("tmpfs")
    try:
        with pytest.raises(OSError, match=r"Invalid argument \(tmpfs: Bad value for 'size'\)$") as caught:
            linux.fsconfig(fs, "FSCONFIG_SET_STRING", "size", "much")
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError, match=r"^fsconfig\(\d+, FSCONFIG_SET_FLAG, 'nonsense', NULL, 0\): .*nonsense"):
            linux.fsconfig(fs, "FSCONFIG_SET_FLAG", "nonsense")
    finally:
        os.close(fs)


def test_a_wrong_descriptor_is_not_read_from() -> None:
    """Only a file system's configuration has words to read; a pipe would lose bytes, or make the call wait."""
    read, write = os.pipe()
    os.write(write, b"kept")
    with pytest.raises(OSError, match="Invalid argument"):
        linux.fsconfig(read, "FSCONFIG_CMD_CREATE")
    assert os.read(read, 9) == b"kept"
    os.close(read)
    os.close(write)


def test_a_file_system_is_configured_and_its_mount_changed(tmp_path: Path) -> None:
    """fsconfig with a string and a flag; mount_setattr by path: sets, clears, propagation."""
    out = run(
        "d = sys.argv[1]\n"
        "linux.unshare('CLONE_NEWNS'); linux.mount(None, '/', None, 'MS_REC|MS_PRIVATE')\n"
        "fs = linux.fsopen('tmpfs')\n"
        "linux.fsconfig(fs, 'FSCONFIG_SET_STRING', 'source', 'name with space')\n"
        "linux.fsconfig(fs, 'FSCONFIG_SET_FLAG', 'ro')\n"
        "linux.fsconfig(fs, 'FSCONFIG_CMD_CREATE')\n"
        "linux.move_mount(linux.fsmount(fs, 'MOUNT_ATTR_NODEV|MOUNT_ATTR_NOSUID'), d)\n"
        "def options(): return {m.target: m for m in linux.mountinfo()}[d].options\n"
        "m = {m.target: m for m in linux.mountinfo()}[d]; print(m.source, 'ro' in m.super_options, m.optional)\n"
        "at = linux.constants.AT_FDCWD\n"
        "print(sorted(options() & {'nodev', 'nosuid', 'noexec'}))\n"
        "linux.mount_setattr(at, d, attr_set='MOUNT_ATTR_NOEXEC', attr_clr='MOUNT_ATTR_NODEV', recursive=True)\n"
        "print(sorted(options() & {'nodev', 'nosuid', 'noexec'}))\n"
        "linux.mount_setattr(at, d, propagation='MS_SHARED')\n"
        "print({m.target: m for m in linux.mountinfo()}[d].optional[0].startswith('shared:'))\n"
        "print(linux.statfs_type(d) == linux.constants.TMPFS_MAGIC)\n",
        tmp_path,
    )
    assert out == "name with space True ()\n['nodev', 'nosuid']\n['noexec', 'nosuid']\nTrue\nTrue\n"


def test_capability_sets_change() -> None:
    out = run(
        "from minicontainer.linux import caps\n"
        "chown, kill = caps.mask(['CHOWN']), caps.mask(['KILL'])\n"
        "caps.capbset_drop('SYS_TIME')\n"
        "caps.capset(chown | kill, chown | kill, chown)\n"
        "caps.cap_ambient('RAISE', 'CHOWN')\n"
        "print(caps.cap_ambient('IS_SET', 'CHOWN'), caps.has('kill'), caps.has('sys_admin'))\n"
        "s = caps.capabilities()\n"
        "print(s.effective == chown | kill, s.inheritable == chown == s.ambient)\n"
        "print(s.bounding & caps.mask(['SYS_TIME']))\n"
        "print(caps.capbset_read('SYS_TIME'), caps.capbset_read('CHOWN'), s.names()['ambient'])\n"
        "caps.cap_ambient('LOWER', 'CHOWN'); print(caps.cap_ambient('IS_SET', 'CHOWN'))\n"
        "caps.cap_ambient('RAISE', 'CHOWN')\n"
        "caps.cap_ambient('CLEAR_ALL'); print(caps.capabilities().ambient)\n"
        "def said(call, *args):\n"
        "    try:\n        call(*args)\n    except PermissionError as e:\n        print(e)\n"
        "said(caps.capset, 0, 1 << 21, 0); said(caps.capbset_drop, 'CHOWN')\n"
        "said(caps.cap_ambient, 'RAISE', 'NET_RAW')\n"
    )
    assert out.splitlines() == [
        "1 True False",
        "True True",
        "0",
        "False True ['CHOWN']",
        "0",
        "0",
        "capset('0x0', '0x200000', '0x0'): Operation not permitted",
        "prctl(PR_CAPBSET_DROP, 'CHOWN'): Operation not permitted",
        "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 'NET_RAW'): Operation not permitted",
    ]


def test_a_filter_needs_no_new_privs_or_privilege() -> None:
    out = run(
        "load, prctl, program = linux.seccomp.load, linux.prctl, linux.seccomp.deny(['mount'])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    load(program, 'SECCOMP_FILTER_FLAG_LOG')\nexcept PermissionError as e:\n    print(e)\n"
        "prctl('PR_SET_NO_NEW_PRIVS', 1); load(program)\n"
        "print('Seccomp:\\t2' in open('/proc/self/status').read())\n"
    )
    said = r"seccomp\(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, <\d instructions>\): Permission denied"
    assert re.fullmatch(rf"{said}\nTrue\n", out)


def test_a_thread_with_another_filter_cannot_follow() -> None:
    """seccomp(2), SECCOMP_FILTER_FLAG_TSYNC: what it answers then is a thread's id, and no success."""
    out = run(
        "import threading, time\n"
        "ready, end = threading.Event(), threading.Event()\n"
        "def other(): linux.seccomp.load(linux.seccomp.deny(['mount'])); ready.set(); end.wait()\n"
        "t = threading.Thread(target=other); t.start(); ready.wait()\n"
        "try:\n    linux.seccomp.load(linux.seccomp.deny(['mount']), 'SECCOMP_FILTER_FLAG_TSYNC')\n"
        "except OSError as e:\n    print(f'thread {t.native_id} has a filter of its own' in str(e))\n"
        "end.set(); t.join()\n"
        "while len(os.listdir('/proc/self/task')) > 1:\n    time.sleep(0.01)\n"  # join comes before its end
        "linux.seccomp.load(linux.seccomp.deny(['mount']), 'SECCOMP_FILTER_FLAG_TSYNC'); print('all follow')\n"
    )
    assert out == "True\nall follow\n"


def test_a_new_session_keyring() -> None:
    out = run("print(linux.join_session_keyring() != linux.join_session_keyring())\n")
    assert out == "True\n"
    out = run(
        "number = linux.join_session_keyring('of-a-test')\n"
        "(line,) = [line for line in open('/proc/keys') if line.startswith(f'{number:08x} ')]\n"
        "print('keyring' in line, 'of-a-test' in line)\n"
    )
    assert out == "True True\n"
    with pytest.raises(OSError, match=r"^keyctl\(KEYCTL_JOIN_SESSION_KEYRING, ''\): Invalid argument"):
        linux.join_session_keyring("")


def test_links_of_a_namespace() -> None:
    """A fresh namespace has a loopback that is down; loopback_up raises it; links() sees both from outside."""
    steps = [p.execve(["/bin/sleep"], ["sleep", "100"], [])]
    pid, pidfd = linux.clone3(p.Plan(steps), "CLONE_NEWNET")
    try:
        (lo,) = linux.links(f"/proc/{pid}/ns/net")
        assert (lo.name, lo.up) == ("lo", False)
        run("linux.setns(sys.argv[1], 'CLONE_NEWNET'); linux.loopback_up()\n", f"/proc/{pid}/ns/net")
        with open(f"/proc/{pid}/ns/net", encoding="utf-8") as f:
            (lo,) = linux.links(f.fileno())
        assert lo.up
        assert lo.mtu == 65536
        assert "127.0.0.1/8" in lo.addresses
        assert "lo" in {link.name for link in linux.links()}
        with pytest.raises(OSError, match=r"^setns\('/proc/self/ns/uts', CLONE_NEWNET\): Invalid argument"):
            linux.links("/proc/self/ns/uts")
    finally:
        linux.pidfd_send_signal(pidfd, 9)
        os.waitpid(pid, 0)
        os.close(pidfd)


def test_loopback_up_says_what_failed() -> None:
    out = run(
        "linux.unshare('CLONE_NEWNET'); linux.capset(0, 0, 0)\n"
        "try:\n    linux.loopback_up()\nexcept PermissionError as e:\n    print(e)\n"
    )
    assert out == "ioctl(SIOCSIFFLAGS, 'lo', IFF_UP): Operation not permitted\n"


def test_a_program_gets_the_callers_signal_mask() -> None:
    """All signals are blocked while the child shares the caller's memory; not in the program."""
    out = run(
        "import signal\n"
        "from minicontainer import plan as p\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "show = p.execve(['/bin/grep'], ['grep', '-E', 'SigBlk|SigIgn', '/proc/self/status'], [])\n"
        "for steps in ([show], [p.fork_sibling(), show], [p.reset_signals(), show], [p.reset_signals(1), show]):\n"
        "    pid, pidfd = linux.clone3(steps); assert linux.waitid(pidfd).status == 0\n"
    )
    masks = re.findall(r"Sig(Blk|Ign):\s+(\w+)", out)
    usr1, pipe = 1 << signal.SIGUSR1 - 1, 1 << signal.SIGPIPE - 1
    assert [int(m, 16) for name, m in masks if name == "Blk"] == [usr1, usr1, 0, 1]
    assert [bool(int(m, 16) & pipe) for name, m in masks if name == "Ign"] == [True, True, False, False]


def test_clone3_names_what_it_was_asked_for() -> None:
    with pytest.raises(OSError, match=r"^clone3\(CLONE_NEWUSER\|CLONE_FS\): Invalid argument"):
        linux.clone3([p.chdir("/")], "CLONE_NEWUSER|CLONE_FS")


def test_clone3_raises_for_the_step_that_failed() -> None:
    plan = p.Plan([p.mount("none", "/nowhere", "tmpfs"), p.execve(["/bin/true"], ["true"], [])])
    with pytest.raises(OSError, match=r'mount\("none", "/nowhere", "tmpfs", 0, NULL\): No such file') as caught:
        linux.clone3(plan, "CLONE_NEWNS")
    assert caught.value.errno == 2
