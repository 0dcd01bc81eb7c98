"""One spec run again and again: what was found out once is not looked up again, unless it can have changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from box import copy_of

import minicontainer as mc
from minicontainer.container.compilation import compile_spec
from minicontainer.container.ids import users

pytestmark = pytest.mark.needs("root", "cgroup2")


def test_a_plain_spec_is_looked_at_once(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = mc.Spec(("/bin/true",), rootfs=str(rootfs))
    compile_spec(spec)
    first = compile_spec(spec)  # the second one is kept
    with monkeypatch.context() as patch:
        patch.setattr(users, "identity", lambda *_: pytest.fail("looked up again"))
        assert compile_spec(spec) is first


def test_another_caller_is_looked_at_anew(rootfs: Path) -> None:
    spec = mc.Spec(("/bin/true",), rootfs=str(rootfs))
    found = compile_spec(spec)
    assert found.is_current()
    read, write = os.pipe()
    if not (pid := os.fork()):
        os.setegid(1000)
        group = found.is_current()
        os.seteuid(1000)
        os.write(write, bytes([group, found.is_current()]))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 2) == b"\0\0"
    os.close(read)
    os.close(write)
    assert found.is_current()


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "1000"},
        {"group_add": ("5",)},
        {"ipc": "host"},
        {"privileged": True},
        {"userns": "keep-id"},
        {"mounts": (mc.Mount.volume("/etc:/mnt:ro"),)},
        {"devices": (mc.Device.option("/dev/null:/dev/other"),)},
    ],
)
def test_what_hangs_on_files_or_rights_is_looked_at_each_time(rootfs: Path, fields: dict[str, Any]) -> None:
    spec = mc.Spec(("/bin/true",), rootfs=str(rootfs), **fields)
    assert not compile_spec(spec).is_current()


def test_a_root_file_system_that_goes_is_missed(rootfs: Path, tmp_path: Path) -> None:
    spec = mc.Spec(("/bin/true",), rootfs=str(copy_of(rootfs, tmp_path / "root")))
    assert mc.run(spec).returncode == 0
    (tmp_path / "root").rename(tmp_path / "elsewhere")
    with pytest.raises(mc.SpecError, match="no such directory"):
        mc.run(spec)
    (tmp_path / "root").symlink_to("/")
    with pytest.raises(mc.SpecError, match="the host's own root"):
        mc.run(spec)


def test_a_users_number_is_the_one_of_now(rootfs: Path, tmp_path: Path) -> None:
    root = copy_of(rootfs, tmp_path / "root")
    spec = mc.Spec(("id", "-u"), rootfs=str(root), user="someone")
    for number in ("1234", "1235"):
        (root / "etc" / "passwd").write_text(f"someone:x:{number}:{number}::/:/bin/sh\n", encoding="ascii")
        assert mc.run(spec, capture_output=True, text=True).stdout == f"{number}\n"
