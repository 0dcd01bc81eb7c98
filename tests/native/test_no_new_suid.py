"""Root inside, and an ordinary user outside who executes what it left: with ``no-new-suid`` he stays who he is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from abilities import NOBODY
from box import Box

import minicontainer as mc
from minicontainer.detached.container import Container

pytestmark = pytest.mark.needs("root")

# Leaves copies of itself that are to be set-uid, or to have a capability, each in another way. Without an argument it
# says who it is: its effective user, and whether it has any capability.
SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static char self[1 << 22];
static long size;

static void fill(int fd)
{
    if (fd >= 0 && write(fd, self, size) == size)
        close(fd);
}

static int plain(const char *name)
{
    fill(open(name, O_WRONLY | O_CREAT | O_EXCL, 0755));
    return open(name, O_RDONLY);
}

static long by(const char *way)
{
    struct open_how how = {.flags = O_WRONLY | O_CREAT, .mode = 04755};
    struct vfs_cap_data caps = {VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, {{1 << CAP_CHOWN, 0}}};
    char path[64];
    int fd;

    if (!strcmp(way, "chmod"))
        return plain(way), chmod(way, 04755);
    if (!strcmp(way, "fchmod"))
        return fchmod(plain(way), 04755);
    if (!strcmp(way, "fchmodat"))
        return plain(way), syscall(SYS_fchmodat, AT_FDCWD, way, 04755);
    if (!strcmp(way, "fchmodat2"))
        return plain(way), syscall(452, AT_FDCWD, way, 04755, 0);
    if (!strcmp(way, "high"))
        return plain(way), syscall(SYS_fchmodat, AT_FDCWD, way, 1l << 40 | 04755);
    if (!strcmp(way, "openat"))
        return fd = open(way, O_WRONLY | O_CREAT, 04755), fill(fd), fd;
    if (!strcmp(way, "openat2"))
        return fd = syscall(SYS_openat2, AT_FDCWD, way, &how, sizeof(how)), fill(fd), fd;
    if (!strcmp(way, "mknodat"))
        return (fd = mknod(way, S_IFREG | 04755, 0)) < 0 ? fd : (fill(open(way, O_WRONLY)), fd);
    if (!strcmp(way, "tmpfile")) {
        fd = open(".", O_TMPFILE | O_RDWR, 04755);
        if (fd < 0)
            return fd;
        if (write(fd, self, size) != size)
            return -1;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return linkat(AT_FDCWD, path, AT_FDCWD, way, AT_SYMLINK_FOLLOW);
    }
    return plain(way), setxattr(way, "security.capability", &caps, sizeof(caps), 0); /* "capabilities" */
}

int main(int argc, char **argv)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2] = {{0}};
    int fd = open("/proc/self/exe", O_RDONLY);

    if (argc < 2) {
        syscall(SYS_capget, &header, caps);
        printf("%d %d\n", geteuid(), !!(caps[0].effective | caps[1].effective));
        return 0;
    }
    size = read(fd, self, sizeof(self));
    umask(0);
    for (int i = 1; i < argc; i++) {
        errno = 0;
        printf("%s %s\n", argv[i], by(argv[i]) < 0 ? strerrorname_np(errno) : "done");
    }
    return 0;
}
"""
WAYS = ["chmod", "fchmod", "fchmodat", "high", "openat", "openat2", "mknodat", "tmpfile", "capabilities"]
ORDINARY = f"{NOBODY} 0"
OUTSIDE = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")


def without_fchmodat2() -> bool:
    """Before Linux 6.6."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) < (6, 6)


@pytest.fixture(scope="module")
def culprit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("suid")
    (where / "culprit.c").write_text(SOURCE, encoding="ascii")
    words = ["cc", "-static", "-O1", "-o", str(where / "culprit"), str(where / "culprit.c")]
    subprocess.run(words, check=True)
    return where / "culprit"


@pytest.fixture
def volume() -> Iterator[Path]:
    """A directory that every user of the host may enter."""
    path = Path(tempfile.mkdtemp(prefix="minicontainer-volume-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def evil_box(own_box: Box, culprit: Path) -> Box:
    shutil.copy(culprit, own_box.rootfs / "bin")
    return own_box


def attacked(box: Box, volume: Path, *options: str, ways: list[str]) -> dict[str, str]:
    """What the program in the container was answered, way by way."""
    script = f"cd /data && exec culprit {' '.join(ways)}"
    done = box.run("sh", "-c", script, options=["-v", f"{volume}:/data", *options])
    assert (done.returncode, done.stderr) == (0, ""), done
    return dict(line.split() for line in done.stdout.splitlines())


def executed(path: Path) -> str:
    """Who an ordinary user of the host becomes by it."""
    done = subprocess.run([*OUTSIDE, str(path)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()


def left(volume: Path) -> dict[str, str]:
    """Of each program that is there and whole."""
    found = {path.name: executed(path) for path in volume.iterdir() if path.stat().st_size and os.access(path, os.X_OK)}
    for path in volume.iterdir():
        path.unlink()
    return found


def test_the_attack(evil_box: Box, volume: Path) -> None:
    """What is forbidden below is really possible, and has that effect."""
    ways = WAYS + ["fchmodat2"] * (not without_fchmodat2())
    written = {
        "openat",
        "openat2",
        "mknodat",
        "tmpfile",
    }  # afterwards, which takes the bit away without FSETID on the host
    for userns in ("private", "host"):
        answers = attacked(evil_box, volume, "--userns", userns, ways=ways)
        assert set(answers.values()) == {"done"}, answers
        expected = {way: ORDINARY if userns == "private" and way in written else "0 1" for way in ways}
        assert left(volume) == expected | {"capabilities": f"{NOBODY} 1"}


FORBIDDING = [
    ["--security-opt", "no-new-suid"],
    ["--security-opt", "no-new-suid=true", "--userns", "host"],
    ["--security-opt", "no-new-suid", "--security-opt", "seccomp=unconfined"],
    ["--security-opt", "no-new-suid", "--security-opt", "no-new-privileges=false", "--init"],
    ["--security-opt", "no-new-suid", "--security-opt", "no-new-privileges=false", "--userns", "host"],
    ["--security-opt", "no-new-suid", "--cap-add", "SYS_ADMIN"],
    ["--security-opt", "no-new-suid", "--privileged"],
    ["--read-only"],
]


@pytest.mark.parametrize("options", FORBIDDING, ids=" ".join)
def test_without_it_he_stays_who_he_is(evil_box: Box, volume: Path, options: list[str]) -> None:
    answers = attacked(evil_box, volume, *options, ways=[*WAYS, "fchmodat2"])
    unseen = {"openat2": "ENOSYS", "fchmodat2": "ENOSYS"}
    assert answers == {way: unseen.get(way, "EPERM") for way in [*WAYS, "fchmodat2"]}
    assert set(left(volume).values()) == {ORDINARY}


def test_one_who_is_not_root_leaves_none_either(evil_box: Box, volume: Path) -> None:
    volume.chmod(0o777)
    ways = [way for way in WAYS if way != "capabilities"]
    attacked(evil_box, volume, "-u", "1000", "--security-opt", "no-new-suid=false", ways=ways)
    found = left(volume)
    assert found["chmod"] == found["fchmod"] == found["fchmodat"] == "1000 0"
    assert set(found.values()) == {
        "1000 0",
        ORDINARY,
    }  # written to afterwards
    answers = attacked(evil_box, volume, "-u", "1000", ways=ways)
    assert "done" not in answers.values()
    assert set(left(volume).values()) == {ORDINARY}


def test_what_enters(evil_box: Box, volume: Path, make: Callable[..., Container]) -> None:
    mount = mc.Mount("/data", str(volume))
    container = make("sleep", "1000", rootfs=str(evil_box.rootfs), mounts=(mount,), no_new_suid=True)
    entered = container.run(["sh", "-c", "cd /data && culprit chmod openat"], capture_output=True, stdin=mc.DEVNULL)
    assert entered.stdout == b"chmod EPERM\nopenat EPERM\n"
    assert set(left(volume).values()) == {ORDINARY}


def test_by_a_user_namespace_nothing_more_is_to_be_had(evil_box: Box, volume: Path) -> None:
    """Whose root would have SETFCAP; where the filter of system calls lets one make it."""
    options = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]
    script = "cd /data && unshare -U -r culprit capabilities"
    for more, code in (([], 0), (["--security-opt", "no-new-suid"], 1)):
        done = evil_box.run("sh", "-c", script, options=["-v", f"{volume}:/data", *options, *more])
        assert done.returncode == code, done
        left(volume)


def test_who_installs_packages_can(own_box: Box) -> None:
    """By default, as root with a root file system that can be written: set-uid bits are the archive's there."""
    assert own_box.sh("cp /bin/busybox /bin/su-to-be && chmod 6755 /bin/su-to-be && stat -c %a /bin/su-to-be") == "6755"
    script = "cp /bin/busybox /dev/shm/x && chmod 4755 /dev/shm/x && echo done"
    assert own_box.sh(script, "--read-only", "--security-opt", "no-new-suid=false") == "done"
    assert own_box.sh(script, "-u", "0:5") == "done"
    assert own_box.run("sh", "-c", script, options=["-u", "user"]).returncode == 1


def test_words(box: Box) -> None:
    box.refused("true", options=["--security-opt", "no-new-suid=maybe"], says=["no-new-suid=maybe", "is unknown"])
    options = ["--security-opt", "no-new-suid", "--cap-add", "SETFCAP"]
    box.refused("true", options=options, says=["--cap-add SETFCAP: cannot be combined with no-new-suid"])
