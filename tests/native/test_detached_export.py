"""``export``: what a container sees as an archive, whatever it holds."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from abilities import USER_ID
from box import CLI, Operator, copy_of, refusal, until
from ptys import session
from supplies import Run

import minicontainer as mc
from minicontainer.detached.exporting import CAPABILITY

pytestmark = pytest.mark.needs("root")
Make = Callable[..., mc.Container]


@pytest.fixture
def own(rootfs: Path, tmp_path: Path) -> Path:
    return copy_of(rootfs, tmp_path / "root")


def ready(c: mc.Container) -> mc.Container:
    """It has done what its script does first."""
    until(lambda: b"ready" in b"".join(entry.data for entry in c.logs()))
    return c


def members(c: mc.Container) -> dict[str, tarfile.TarInfo]:
    file = io.BytesIO()
    assert c.export(file) == []
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        return {info.name: info for info in tar}


def test_what_a_running_one_sees(make: Make, own: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    script = (
        "mkdir -p /d/e; echo data > /d/f; chown 5:6 /d/f; chmod 4750 /d/f; ln /d/f /d/g; ln -s /etc/shadow /d/l;"
        " mkfifo /d/p; rm /etc/passwd; printf 'x' > '/d/two\nlines'; echo ready; exec sleep 1000"
    )
    mounts = (mc.Mount("/v", str(tmp_path)), mc.Mount("/one", str(tmp_path / "secret")), mc.Mount("/t", type="tmpfs"))
    c = ready(make("sh", "-c", script, rootfs=str(own), ephemeral=True, mounts=mounts))
    found = members(c)
    assert (found["d/f"].uid, found["d/f"].gid, found["d/f"].mode, found["d/f"].size) == (5, 6, 0o4750, 5)
    assert (found["d/g"].type, found["d/g"].linkname) == (tarfile.LNKTYPE, "d/f")
    assert (found["d/l"].type, found["d/l"].linkname) == (tarfile.SYMTYPE, "/etc/shadow")
    assert found["d/p"].type == tarfile.FIFOTYPE
    assert found["d/two\nlines"].size == 1
    assert found["d/e"].isdir()
    assert "etc/passwd" not in found
    assert (found["bin/busybox"].uid, found["bin/busybox"].gid) == (0, 0)
    for mounted in ("v", "t", "proc", "sys", "dev"):
        assert found[mounted].isdir()
        assert not [name for name in found if name.startswith(f"{mounted}/")]
    assert found["one"].isreg()
    assert found["one"].size == 0
    assert not (own / "d").exists()


def test_one_that_does_not_run(make: Make, own: Path) -> None:
    c = make("sh", "-c", "echo kept > /kept", rootfs=str(own))
    assert c.wait(60) == 0
    assert members(c)["kept"].size == 5
    gone = make("true", rootfs=str(own), ephemeral=True)
    gone.wait(60)
    with pytest.raises(mc.Error, match=r"is not running \(exited\); what it wrote is gone"):
        gone.export(io.BytesIO())


def test_there_and_back(op: Operator, own: Path, tmp_path: Path) -> None:
    (own / "sparse").write_bytes(b"begin")
    os.truncate(own / "sparse", 3 << 20)
    os.setxattr(own / "bin/busybox", "user.note", b"\xff\x00text")
    value = bytes.fromhex("0000000300200000000000000000000000000000e8030000")  # of root 1000: vfs_ns_cap_data
    os.setxattr(own / "sparse", CAPABILITY, value)
    op.rootfs = own
    c = op.run("sleep", "1000")
    file, copy = tmp_path / "x.tar", tmp_path / "copy"
    assert op.out("export", "-o", str(file), c) == ""
    assert file.stat().st_mode & 0o777 == 0o600
    op.do("rootfs", "tar", "--keep-suid", str(file), str(copy))
    assert (copy / "sparse").read_bytes() == (own / "sparse").read_bytes()
    assert os.getxattr(copy / "bin/busybox", "user.note") == b"\xff\x00text"
    assert os.getxattr(copy / "sparse", CAPABILITY)[:4] == bytes.fromhex("00000002")  # root's: no id
    assert op.out("run", str(copy), "cat", "/etc/passwd") == (own / "etc/passwd").read_text()
    streamed = subprocess.run([*CLI, "export", c], capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "tf", "-"], input=streamed, capture_output=True, check=True).stdout.decode()
    assert "bin/busybox" in names.splitlines()


def test_where_it_is_written_to(op: Operator, tmp_path: Path) -> None:
    c = op.run("sleep", "1000")
    with session("export", c) as terminal:
        terminal.expect(r"export: stdout is a terminal \(-o FILE, or redirect it\)")
        assert terminal.ends() == 125
    file = tmp_path / "old.tar"
    file.write_text("old")
    refusal(op.do("export", "-o", str(file), "nobody", code=125), 125, ["there is no such container"])
    assert file.read_text() == "old"
    assert op.out("export", "-o", "/dev/null", c) == ""
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    done = op.do("export", "-o", str(tmp_path / "no/where.tar"), c, code=125)
    refusal(done, 125, ["-o ", "/no/where.tar: there is no directory "])
    assert sorted(os.listdir(tmp_path)) == ["old.tar"]
    done = op.do("export", "-o", "/dev/full", c, code=125)
    refusal(done, 125, ["export /dev/full: no space left on device"])
    reader = subprocess.Popen([*CLI, "export", c], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    reader.stdout.close()
    assert reader.wait(60) == 128 + signal.SIGPIPE
    assert reader.stderr is not None
    assert reader.stderr.read() == b""
    reader.stderr.close()


def test_a_socket_is_left_out(op: Operator, own: Path) -> None:
    op.rootfs = own
    os.mknod(own / "socket", stat.S_IFSOCK | 0o600)
    c = op.run("sleep", "1000")
    done = op.do("export", "-o", "/dev/null", c, code=1)
    assert done.stderr == "minicontainer: export /socket: is a socket: left out\n"


def test_one_that_swaps_what_is_walked(make: Make, own: Path) -> None:
    """Directories become links to the host's, files fifos: nothing of the host's is read, and nobody waits."""
    script = (
        "cd /; mkdir w; echo ready; while :; do mkdir w/d; echo in > w/d/f; rm -r w/d; ln -s /etc w/d; rm w/d;"
        " mkfifo w/d; rm w/d; ln -s /proc/1/root/etc w/d; rm w/d; done"
    )
    c = ready(make("sh", "-c", script, rootfs=str(own)))
    for _ in range(20):
        names = {name for name in members(c) if name.startswith("w/d/")}
        assert names <= {"w/d/f"}


def test_a_file_that_grows_or_shrinks(make: Make, own: Path) -> None:
    script = "echo ready; while :; do head -c 300000 /dev/zero > /f; : > /f; done"
    c = ready(make("sh", "-c", script, rootfs=str(own)))
    for _ in range(20):
        assert "var/tmp" in members(c)  # what comes behind it is whole


@pytest.mark.needs("user", "userns")
def test_owners_of_an_ordinary_user(as_user: Run, rootfs: Path, user_directory: Path) -> None:
    path, file = copy_of(rootfs, user_directory / "root"), user_directory / "x.tar"
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(path)], check=True)
    c = as_user([*CLI, "run", "-d", path, "sleep", "1000"]).stdout.strip()
    try:
        for _ in range(2):
            done = as_user([*CLI, "export", "-o", file, c])
            assert (done.returncode, done.stderr) == (0, "")
            with tarfile.open(file) as tar:
                assert tar.getmember("bin/busybox").uid == 0
            as_user([*CLI, "stop", "-t", "0", c])
    finally:
        as_user([*CLI, "rm", "-f", c])
