"""Who the program is: users and groups by the files that the container sees (``-u``, ``--group-add``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box import Box

import minicontainer as mc
from minicontainer.container.filesystem.view import MISSING, View

pytestmark = pytest.mark.needs("root")

Make = Callable[..., mc.Container]
WHO = "grep -E '^(Uid|Gid|Groups)' /proc/self/status; echo home: $HOME"


@pytest.mark.parametrize(
    ("options", "uid", "gid", "groups"),
    [
        ("-u 1000", 1000, 1000, "20"),
        ("-u user", 1000, 1000, "20"),
        ("-u user:daemon", 1000, 1, ""),
        ("-u daemon:user", 1, 1000, ""),
        ("-u 12:34", 12, 34, ""),
        ("-u 77", 77, 0, ""),
        ("-u user:", 1000, 1000, "20"),
        ("-u :777", 0, 777, ""),
        ("-u :daemon --group-add 44", 0, 1, "44"),
        ("-u 1000:1000 --group-add tty --group-add 44", 1000, 1000, "5 44"),
        ("-u user --group-add 44 --group-add 20", 1000, 1000, "20 44"),
        ("--group-add 5", 0, 0, "5"),
        ("--userns host -u 4294967294:4294967294", 4294967294, 4294967294, ""),
    ],
)
def test_user(own_box: Box, options: str, uid: int, gid: int, groups: str) -> None:
    """By number or name; the groups of the container's /etc/group, unless a group is given."""
    with open(own_box.rootfs / "etc/group", "a", encoding="ascii") as f:
        f.write("more:x:20:user\n")
    lines = own_box.sh("grep -E '^(Uid|Gid|Groups)' /proc/self/status", *options.split()).splitlines()
    assert lines[0].split()[1:] == [str(uid)] * 4
    assert lines[1].split()[1:] == [str(gid)] * 4
    assert lines[2].split()[1:] == groups.split()


def test_home_is_the_users(box: Box) -> None:
    assert box.sh("echo $HOME", "-u", "user") == "/home/user"
    assert box.sh("echo $HOME", "-u", "4711") == "/"
    assert box.sh("echo $HOME") == "/root"


def test_names_of_a_hostile_rootfs(own_box: Box) -> None:
    """Ids out of range, broken lines and a link to the host's file are not believed."""
    passwd = own_box.rootfs / "etc/passwd"
    passwd.write_text(
        "big:x:99999999999:0::/:\nhuge:x:5:99999999999::/:\nbad\n::::\nx:x:²:²::/:\nnul:x:5:5::/\0:\n", encoding="utf-8"
    )
    for name in ("big", "huge", "bad", "x", "nul"):
        own_box.refused("true", options=["--user", name], says=[f"--user {name}", "/etc/passwd"])
    passwd.unlink()
    passwd.symlink_to("/../../../../etc/passwd")
    own_box.refused("true", options=["--user", "daemon"], says=["--user daemon"])
    passwd.unlink()
    os.mkfifo(passwd)
    own_box.refused("true", options=["--user", "daemon"], says=["--user daemon"], timeout=60)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """An /etc with users and groups of its own."""
    path = tmp_path / "etc"
    path.mkdir()
    (path / "passwd").write_text("bob:x:1234:55::/bobs:/bin/sh\n1235:x:7:8::/:/bin/sh\n", encoding="ascii")
    (path / "group").write_text("bobs:x:55:\nmore:x:66:eve,bob\n", encoding="ascii")
    return path


def who(box: Box, *options: object) -> list[str]:
    """uid, gid, groups and home of a program."""
    uid, gid, groups, home = box.sh(WHO, *options).splitlines()
    return [uid.split()[1], gid.split()[1], " ".join(groups.split()[1:]), home.removeprefix("home: ")]


BOB = ["1234", "55", "66", "/bobs"]


def test_by_the_files_of_a_volume(box: Box, etc: Path) -> None:
    """As ``exec`` sees them: a directory, or each file; a number too."""
    files = ["-v", f"{etc}/passwd:/etc/passwd", "-v", f"{etc}/group:/etc/../etc/group:ro"]
    for volumes in (["-v", f"{etc}:/etc"], files):
        for user in ("bob", "1234", "bob:"):
            assert who(box, *volumes, "-u", user) == BOB
        assert who(box, *volumes, "-u", "bob:bobs", "--group-add", "more") == ["1234", "55", "66", "/bobs"]
        assert who(box, *volumes, "-u", "1235") == ["1235", "0", "", "/"], "a number is no name"
        box.refused("true", options=[*volumes, "-u", "user"], says=["-u user: is not in the container's /etc/passwd"])
        box.refused("true", options=[*volumes, "--group-add", "daemon"], says=["--group-add daemon", "/etc/group"])


def test_what_a_mount_covers_is_not_seen(box: Box, etc: Path) -> None:
    for options in (["--tmpfs", "/etc"], ["-v", f"{etc}:/etc", "--tmpfs", "/etc/passwd/../../etc/"]):
        if len(options) == 2:
            box.refused("true", options=[*options, "-u", "user"], says=["-u user", "/etc/passwd"])
            assert who(box, *options, "-u", "1000") == ["1000", "0", "", "/"]
        else:
            box.refused("true", options=options, says=["/etc is given more than once"])


def test_where_links_lead(own_box: Box, etc: Path) -> None:
    """Links of ROOTFS lead a volume to its place; and those of a volume, into the container."""
    root = own_box.rootfs
    (root / "etc").rename(root / "config")
    (root / "etc").symlink_to("usr/../config")
    (root / "real").symlink_to("/etc/passwd")
    (root / "config/passwd").unlink()
    (root / "config/passwd").touch()
    assert who(own_box, "-v", f"{etc}/passwd:/real", "-v", f"{etc}/group:/etc/group", "-u", "bob") == BOB
    (etc / "passwd").rename(etc / "users")
    (etc / "passwd").symlink_to("/../etc/users")
    assert who(own_box, "-v", f"{etc}:/config", "-u", "bob") == BOB
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to(f"{'../' * 40}{etc}/users")
    own_box.refused("true", options=["-v", f"{etc}:/config", "-u", "bob"], says=["-u bob"])


def test_exec_and_run_agree(make: Make, etc: Path) -> None:
    volume = mc.Mount("/etc", str(etc))
    for user in ("bob", "1234", ":66", "bob:66", "1235"):
        c = make("sh", "-c", f"{WHO}; exec sleep 1000", mounts=(volume,), user=user)
        entered = c.run(["sh", "-c", WHO], user=user, capture_output=True, text=True)
        own = c.run(
            ["sh", "-c", "grep -E '^(Uid|Gid|Groups)' /proc/1/status"], user="0", capture_output=True, text=True
        )
        assert entered.stdout.splitlines()[:3] == own.stdout.splitlines()[:3]


def test_the_library_takes_numbers(rootfs: Path) -> None:
    spec = mc.Spec(["sh", "-c", WHO], rootfs=str(rootfs), user=1000, group_add=(44, "tty"))
    assert (spec.user, spec.group_add) == ("1000", ("44", "tty"))
    lines = mc.run(spec, capture_output=True, text=True).stdout.split()
    assert (lines[1], lines[6], lines[11:13]) == ("1000", "1000", ["5", "44"])
    wrong: Any
    for wrong, words in (
        (-1, "user -1: must be a whole number from 0"),
        (2**32 - 1, "user 4294967295: must be"),
        (True, "user True: must be a name or a number, not bool"),
        ((1, 2), "must be a name or a number, not tuple ('UID:GID' for both)"),
        (1.5, "user 1.5: must be a name or a number, not float"),
    ):
        with pytest.raises(mc.SpecError) as e:
            mc.Spec(rootfs=str(rootfs), user=wrong)
        assert words in str(e.value)
    with pytest.raises(mc.SpecError, match="group_add tty: must be a sequence"):
        mc.Spec(rootfs=str(rootfs), group_add="tty")  # type: ignore[arg-type]


def test_mounts_cover_each_other_in_their_order(tmp_path: Path) -> None:
    for name in ("root/etc", "over"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("root/etc/passwd", "over/passwd", "file"):
        (tmp_path / name).touch()
    file, over = mc.Mount("/etc/passwd", str(tmp_path / "file")), mc.Mount("/etc", str(tmp_path / "over"))
    for mounts, seen in (
        ((), "root/etc/passwd"),
        ((file,), "file"),
        ((over, file), "file"),
        ((file, over), "over/passwd"),
    ):
        before = os.listdir("/proc/self/fd")
        with View(mc.Spec(rootfs=str(tmp_path / "root"), mounts=mounts)) as view:
            place = view.find("/etc/passwd")
            assert os.readlink(f"/proc/self/fd/{place.fd}") == str(tmp_path / seen)
            assert view.find("/etc/none/more") == (
                place.mount if seen == "over/passwd" else view.find("/etc").mount,
                "/etc/none/more",
                MISSING,
            )
            with pytest.raises(NotADirectoryError):
                view.find("/etc/passwd/below")
        assert os.listdir("/proc/self/fd") == before
