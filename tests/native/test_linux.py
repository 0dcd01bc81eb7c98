"""Primitives that need privilege, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import linux
from minicontainer import plan as p

pytestmark = pytest.mark.needs("root")


def run(code: str, *args: object) -> str:
    """Runs ``code`` with the primitives at hand, as a process of its own."""
    head = "import os, sys, errno\nfrom minicontainer import linux\nfrom minicontainer.native import lib\n"
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
        "print(os.uname().nodename, open('/proc/sys/kernel/domainname').read().strip())\n"
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
    with pytest.raises(OSError, match=r"setns\(0"):
        linux.setns(0, "CLONE_NEWUTS")


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


def test_an_idmapped_mount_shows_other_owners(tmp_path: Path) -> None:
    """With a user namespace that maps 0 to 100000, files of root's are shown as of id 100000."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "view").mkdir()
    (tmp_path / "tree" / "file").touch()
    out = run(
        "d = sys.argv[1]\n"
        "r, w = os.pipe(); pid = os.fork()\n"
        "if pid == 0:\n    linux.unshare('CLONE_NEWUSER'); os.write(w, b'x'); import time; time.sleep(100)\n"
        "os.read(r, 1)\n"
        "for n in ('uid_map', 'gid_map'):\n    open(f'/proc/{pid}/{n}', 'w').write('0 100000 1000')\n"
        "userns = os.open(f'/proc/{pid}/ns/user', os.O_RDONLY)\n"
        "os.kill(pid, 9); os.waitpid(pid, 0)\n"
        "linux.unshare('CLONE_NEWNS'); linux.mount(None, '/', None, 'MS_REC|MS_PRIVATE')\n"
        "tree = linux.open_tree(d + '/tree', 'OPEN_TREE_CLONE')\n"
        "linux.mount_setattr(tree, userns_fd=userns)\n"
        "linux.move_mount(tree, d + '/view')\n"
        "print(os.stat(d + '/tree/file').st_uid, os.stat(d + '/view/file').st_uid)\n",
        tmp_path,
    )
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


def test_a_failed_mount_names_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"mount\('none', '/nowhere', 'tmpfs'"):
        linux.mount("none", "/nowhere", "tmpfs")
    with pytest.raises(ValueError, match="NUL"):
        linux.umount("a\0b")


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
        "caps.cap_ambient('CLEAR_ALL'); print(caps.capabilities().ambient)\n"
    )
    assert out == "1 True False\nTrue True\n0\n0\n"


def test_a_new_session_keyring() -> None:
    out = run("print(linux.join_session_keyring() != linux.join_session_keyring())\n")
    assert out == "True\n"


def test_links_of_a_namespace() -> None:
    """A fresh namespace has a loopback that is down; loopback_up raises it; links() sees both from outside."""
    steps = [p.execve(["/bin/sleep"], ["sleep", "100"], [])]
    pid, pidfd = linux.clone3(p.Plan(steps), "CLONE_NEWNET")
    try:
        (lo,) = linux.links(f"/proc/{pid}/ns/net")
        assert (lo.name, lo.up) == ("lo", False)
        run("linux.setns(sys.argv[1], 'CLONE_NEWNET'); linux.loopback_up()\n", f"/proc/{pid}/ns/net")
        (lo,) = linux.links(f"/proc/{pid}/ns/net")
        assert lo.up
        assert "127.0.0.1/8" in lo.addresses
        assert "lo" in {link.name for link in linux.links()}
    finally:
        linux.pidfd_send_signal(pidfd, 9)
        os.waitpid(pid, 0)
        os.close(pidfd)


def test_clone3_raises_for_the_step_that_failed() -> None:
    plan = p.Plan([p.mount("none", "/nowhere", "tmpfs"), p.execve(["/bin/true"], ["true"], [])])
    with pytest.raises(OSError, match=r'mount\("none", "/nowhere", "tmpfs", 0, NULL\): No such file') as caught:
        linux.clone3(plan, "CLONE_NEWNS")
    assert caught.value.errno == 2
