"""``rootfs tar`` as root, where owners, devices, set-id bits and capabilities are kept; and as an ordinary user."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from supplies import Run
from tars import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, entry, pax, snapshot, whole

from minicontainer import rootfs
from minicontainer.errors import SpecError

# struct vfs_cap_data, linux/capability.h: revision 2, effective; CAP_NET_RAW permitted
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.mark.needs("root")
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_it_is_what_gnu_tar_packed_and_unpacks(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    for name, mode, owner in (("d/f", 0o4755, 1000), ("d/e/g", 0o2711, 70000), ("d/e/h", 0, 4_000_000_000)):
        (source / name).write_text(name * 1000)
        os.chown(source / name, owner, owner + 1)
        (source / name).chmod(mode)
    (source / "same").hardlink_to(source / "d/f")
    (source / "link").symlink_to("d/f")
    os.chown(source / "link", 7, 8, follow_symlinks=False)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "block", stat.S_IFBLK | 0o640, os.makedev(259, 1_000_000))
    os.mkfifo(source / "fifo", 0o622)
    os.chown(source / "d/e", 12, 13)
    (source / "d/e").chmod(0o3775)
    options = [f"--format={form}"]
    if form == "posix":
        os.setxattr(source / "d/f", "security.capability", CAPABILITY)
        options += ["--xattrs", "--xattrs-include=*"]
    moment = 1_600_000_000_123_456_789 if form == "posix" else 1_600_000_000_000_000_000
    for path in [*sorted(source.rglob("*"), reverse=True), source]:
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    subprocess.run(["tar", *options, "-cf", tmp_path / "a.tar", "-C", source, "."], check=True)
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-xpf", tmp_path / "a.tar", *options[1:], "-C", tmp_path / "theirs"], check=True)

    report = rootfs.tar(tmp_path / "a.tar", tmp_path / "ours", keep_suid=True)

    assert report.notes == ()
    assert snapshot(tmp_path / "ours") == snapshot(source) == snapshot(tmp_path / "theirs")


@pytest.mark.needs("root")
def test_what_would_do_root_s_work_for_others_is_left_out(tmp_path: Path) -> None:
    """Unless it is asked for, and then only where others cannot walk to."""
    archive = whole(
        entry(b"d/", DIRECTORY, mode=0o2775, owner=(0, 50)),
        pax({b"SCHILY.xattr.security.capability": CAPABILITY}) + entry(b"d/suid", data=b"x", mode=0o6755, owner=(0, 0)),
        entry(b"node", CHARACTER, device=(1, 3), mode=0o666),
        entry(b"fifo", FIFO, mode=0o600),
    )
    report = rootfs.tar(io.BytesIO(archive), tmp_path / "plain")
    assert stat.S_IMODE((tmp_path / "plain/d").stat().st_mode) == 0o2775
    assert stat.S_IMODE((tmp_path / "plain/d/suid").stat().st_mode) == 0o755
    assert os.listxattr(tmp_path / "plain/d/suid") == []
    assert sorted(os.listdir(tmp_path / "plain")) == ["d", "fifo"]
    said = [str(note) for note in report.notes]
    assert [any(word in line for line in said) for word in ("set-id bits", "capabilities", "skipped")] == [True] * 3

    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        for target in (f"{directory}/new", directory):
            with pytest.raises(
                SpecError, match=r"every user of this host could enter it.*below a directory of mode 0700"
            ):
                rootfs.tar(io.BytesIO(archive), target, keep_suid=True)
            assert os.listdir(directory) == []
        os.chmod(directory, 0o700)
        assert rootfs.tar(io.BytesIO(archive), f"{directory}/new", keep_suid=True).notes == ()
        assert stat.S_IMODE(os.stat(f"{directory}/new/d/suid").st_mode) == 0o6755
        assert stat.S_ISCHR(os.stat(f"{directory}/new/node").st_mode)


@pytest.mark.needs("root")
def test_a_busybox_root_goes_through_a_tar_unchanged(tmp_path: Path) -> None:
    rootfs.busybox(tmp_path / "r")
    with subprocess.Popen(["tar", "-cz", "-C", tmp_path / "r", "."], stdout=subprocess.PIPE) as packer:
        assert packer.stdout
        rootfs.tar(packer.stdout, tmp_path / "out")
    assert snapshot(tmp_path / "r", times=False) == snapshot(tmp_path / "out", times=False)
    done = subprocess.run(["chroot", tmp_path / "out", "/usr/bin/id", "-un"], capture_output=True, check=True)
    assert done.stdout == b"root\n"


@pytest.mark.needs("root")
def test_attributes_that_steer_an_overlay_are_left_out_and_told(tmp_path: Path) -> None:
    value = b"/etc\x00\xff\n="
    names = (b"trusted.overlay.redirect", b"user.overlay.opaque", b"security.selinux", b"user.kept")
    records = {b"SCHILY.xattr." + name: value for name in names}
    report = rootfs.tar(io.BytesIO(whole(pax(records) + entry(b"f"), pax(records) + entry(b"d/", DIRECTORY))), tmp_path)
    for name in ("f", "d"):
        kept = {key: os.getxattr(tmp_path / name, key) for key in os.listxattr(tmp_path / name)}
        told = [note.what for note in report.notes if note.member == name]
        assert told[:3] == [f"its extended attribute {left.decode()} is left out" for left in names[:3]]
        if told[3:]:  # as on tmpfs before Linux 6.6
            assert told[3:] == ["its extended attribute user.kept is left out: Operation not supported"]
        else:
            assert kept == {"user.kept": value}


@pytest.mark.needs("root")
def test_a_mount_in_the_directory_is_not_entered_and_not_removed(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/precious").write_text("kept")
    (tmp_path / "jail/a/m").mkdir(parents=True)
    script = """if True:
        import io, sys
        from minicontainer import rootfs
        try:
            rootfs.tar(io.BytesIO(open(sys.argv[1], "rb").read()), sys.argv[2])
        except rootfs.ArchiveError as e:
            print(e)
    """
    mounted = 'mount --bind "$0/host" "$0/jail/a/m" && exec "$@"'
    for members, words in (
        ([entry(b"a/m/evil", data=b"x")], "mount point"),
        ([entry(b"l", SYMLINK, link=b"a/m"), entry(b"l/evil", data=b"x")], "mount point"),
        ([entry(b"h", LINK, link=b"a/m/precious")], "mount point"),
        ([entry(b"a", SYMLINK, link=b"x")], "mount point|busy"),
        ([entry(b"a/m", data=b"x")], "mount point|busy"),
    ):
        (tmp_path / "a.tar").write_bytes(whole(*members))
        inner: list[str | Path] = [sys.executable, "-c", script, tmp_path / "a.tar", tmp_path / "jail"]
        command = ["unshare", "--mount", "sh", "-ec", mounted, tmp_path, *inner]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.count("\n") == 1, done.stderr
        assert any(word in done.stdout for word in words.split("|")), done.stdout
        assert {p.name: p.read_text() for p in (tmp_path / "host").iterdir()} == {"precious": "kept"}


@pytest.mark.needs("root")
def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    script = """if True:
        import io, os, sys
        from minicontainer import rootfs
        try:
            rootfs.tar(sys.argv[1], sys.argv[2] + "/out")
        except rootfs.ArchiveError as e:
            print(e)
        print(os.listdir(sys.argv[2]))
    """
    (tmp_path / "a.tar").write_bytes(whole(entry(b"d/ok"), entry(b"d/big", data=bytes(3 << 20))))
    (tmp_path / "m").mkdir()
    mounted = 'mount -t tmpfs -o size=1m small "$0" && exec "$@"'
    inner: list[str | Path] = [sys.executable, "-c", script, tmp_path / "a.tar", tmp_path / "m"]
    command = ["unshare", "--mount", "sh", "-ec", mounted, tmp_path / "m", *inner]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "member d/big: No space left on device\n[]\n"


@pytest.mark.needs("userns")
def test_owners_that_a_user_namespace_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(whole(entry(b"f", owner=(5, 5))))
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-m", "minicontainer", "rootfs", "tar"]
    done = subprocess.run([*command, tmp_path / "a.tar", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(
        "minicontainer: member f: the file system or the user namespace does not support its owner"
    )
    done = subprocess.run([*command[:-1], "busybox", tmp_path / "r"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("root")
def test_hostile_members_as_root(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("canary")
    before = snapshot(tmp_path / "canary")
    for members in (
        [entry(b"l", SYMLINK, link=b"/"), entry(b"l/null", CHARACTER, device=(1, 3)), entry(b"l/canary", data=b"x")],
        [entry(b"c", SYMLINK, link=b"../canary"), entry(b"c", FILE, mode=0o4777, owner=(5, 5)), entry(b"c", FIFO)],
        [entry(b"c", SYMLINK, link=os.fsencode(tmp_path / "canary")), entry(b"c", BLOCK, mode=0o777, device=(7, 0))],
        [entry(b"c", SYMLINK, link=b"../canary", owner=(9, 9), mode=0o777, mtime=1)],
        [entry(b"d/", DIRECTORY, owner=(9, 9)), entry(b"d", SYMLINK, link=b"..")],
    ):
        rootfs.tar(io.BytesIO(whole(*members)), tmp_path / "jail")
        assert snapshot(tmp_path / "canary") == before
        assert tmp_path.stat().st_uid == 0
    assert set(os.listdir(tmp_path)) == {"canary", "jail"}


def test_an_ordinary_user(user_directory: Path, as_user: Run) -> None:
    members = [
        entry(b"./", DIRECTORY, mode=0o755),
        entry(b"closed/", DIRECTORY, mode=0o555),
        entry(b"closed/suid", data=b"x", mode=0o6755, owner=(0, 0)),
        pax({b"SCHILY.xattr.security.capability": CAPABILITY}) + entry(b"capable", data=b"x", mode=0o755),
        entry(b"null", CHARACTER, device=(1, 3), mode=0o666),
        entry(b"pipe", FIFO, mode=0o600),
        entry(b"l", SYMLINK, link=b"/etc/passwd", owner=(0, 0)),
    ]
    archive, out = user_directory / "a.tar", user_directory / "out"
    archive.write_bytes(whole(*members))
    done = as_user([sys.executable, "-m", "minicontainer", "rootfs", "tar", archive, out])
    assert (done.returncode, done.stdout) == (0, "")
    told = done.stderr.splitlines()
    assert [line.removeprefix("minicontainer: member ") for line in told] == [
        "closed/suid: its set-id bits are left out: it belongs to an ordinary user here",
        "capable: its extended attribute security.capability is left out: Operation not permitted",
        "null: skipped: to make a character device needs the privilege CAP_MKNOD",
    ]
    assert {path.lstat().st_uid for path in [out, *out.rglob("*")]} == {user_directory.stat().st_uid}
    assert stat.S_IMODE((out / "closed/suid").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "closed").stat().st_mode) == 0o555
    assert sorted(p.name for p in out.iterdir()) == ["capable", "closed", "l", "pipe"]


def test_an_ordinary_users_failure_leaves_nothing(user_directory: Path, as_user: Run) -> None:
    members = [entry(b"a/b/", DIRECTORY, mode=0), entry(b"a/b/c", data=b"x", mode=0), entry(b"..")]
    (user_directory / "a.tar").write_bytes(whole(*members))
    command = [sys.executable, "-m", "minicontainer", "rootfs", "tar", user_directory / "a.tar", user_directory / "out"]
    done = as_user(command)
    assert done.returncode == 125
    assert done.stderr == "minicontainer: member ..: its name leads upwards (..)\n"
    assert os.listdir(user_directory) == ["a.tar"]
    assert as_user([*command[:-1], "/etc/mine"]).stderr.count("Permission denied") == 1


def test_an_ordinary_users_busybox(user_directory: Path, as_user: Run) -> None:
    command = [sys.executable, "-m", "minicontainer", "rootfs", "busybox", user_directory / "r"]
    for _ in range(2):
        done = as_user(command)
        assert (done.returncode, done.stderr) == (0, "")
    assert {p.lstat().st_uid for p in (user_directory / "r").rglob("*")} == {user_directory.stat().st_uid}
    assert stat.S_IMODE((user_directory / "r/root").stat().st_mode) == 0o700
    command = ["unshare", "--user", "--map-root-user", "chroot", user_directory / "r", "/bin/sh", "-c", "echo works"]
    assert as_user(command).stdout == "works\n"
