"""What test_rig.py runs in the guest: writes what it finds there to $RIG_OUTPUT/facts, and ends with status 7."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

KVM_CREATE_VM = 0xAE01
CGROUPS = Path("/sys/fs/cgroup")
USER = "setpriv --reuid=1000 --regid=1000 --clear-groups"
OVERLAY = "mkdir l u w m && unshare --mount mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m && echo works"


def shell(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.stdout.strip() or done.stderr.strip()


def opens(path: str) -> bool:
    os.close(os.open(path, os.O_RDWR))
    return True


def limit_disk() -> str:
    """Sets a limit for the disk in a new cgroup, and gives what is set then."""
    device = os.stat(os.environ["RIG_DISK"]).st_dev
    limit = CGROUPS / "look/io.max"
    limit.parent.mkdir()
    limit.write_text(f"{os.major(device)}:{os.minor(device)} wbps=1048576", encoding="ascii")
    return limit.read_text(encoding="ascii")


def look() -> dict[str, object]:
    return {
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "user": os.geteuid(),
        "cgroup mounts": shell("grep -o ' - cgroup.*' /proc/self/mountinfo").split()[1::4],
        "controllers": (CGROUPS / "cgroup.controllers").read_text(encoding="ascii").split(),
        "enabled": (CGROUPS / "cgroup.subtree_control").read_text(encoding="ascii").split(),
        "io.max": limit_disk(),
        "vm": fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), KVM_CREATE_VM, 0),
        "svm": "svm" in Path("/proc/cpuinfo").read_text(encoding="ascii").split(),
        "modules": shell("cut -d ' ' -f 1 /proc/modules").split(),
        "interfaces": os.listdir("/sys/class/net"),
        "devices": all(opens(f"/dev/{name}") for name in ("fuse", "net/tun", "loop-control")),
        "disk": shell("stat -f -c %T $RIG_DISK"),
        "overlay": shell(f"cd $TMPDIR && {OVERLAY}"),
        "entry": shell("getent passwd rig"),
        "ranges": shell("cat /etc/subuid /etc/subgid"),
        "capabilities": shell(f"{USER} grep CapEff /proc/self/status"),
        "python": shell(f"{USER} {sys.executable} -c 'import os; print(os.getuid())'"),
        "reads": shell(f"{USER} cat {__file__}"),
        "userns": shell(f"{USER} unshare --user --map-root-user id -u"),
    }


Path("written-in-the-rig").write_text("this stays there", encoding="ascii")
Path(os.environ["RIG_OUTPUT"], "facts").write_text(json.dumps(look()), encoding="utf-8")
print("to stdout")
print("to stderr", file=sys.stderr)
sys.exit(7)
