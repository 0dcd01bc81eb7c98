"""Ranges of ids: no two running containers have one in common, and none is lost, whoever dies."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from box import Box, line_of, started, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minicontainer as mc
from minicontainer.container.ids import ranges
from minicontainer.errors import IsolationWarning, RangeRefusedError, UnsupportedError

pytestmark = pytest.mark.needs("root", "userns")


@pytest.fixture
def nothing_idle() -> Iterator[None]:
    """As in a process that has had no container yet."""
    cached = ranges._cache.pop("lease", None)
    if cached is not None:
        cached.close()
    yield
    cached = ranges._cache.pop("lease", None)
    if cached is not None:
        cached.close()


def first_id(pid: int) -> int:
    """Who root of its user namespace is outside."""
    inside, outside, count = Path(f"/proc/{pid}/uid_map").read_text(encoding="ascii").split()
    assert (inside, count) == ("0", "65536")
    return int(outside)


def test_each_running_container_has_its_own(rootfs: Path) -> None:
    spec = mc.Spec(("/bin/cat",), rootfs=str(rootfs))
    running = [mc.Popen(spec, stdin=mc.PIPE) for _ in range(4)]
    with started("run", rootfs, "sh", "-c", "echo here; exec sleep 1000") as other:
        assert line_of(other) == "here"
        children = Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text(encoding="ascii")
        firsts = [first_id(pid) for pid in (*(p.pid for p in running), *map(int, children.split()))]
    for p in running:
        p.communicate()
    assert len({first // ranges.WIDTH for first in firsts}) == 5


@pytest.mark.usefixtures("nothing_idle")
def test_one_behind_the_other_have_the_same(rootfs: Path) -> None:
    spec = mc.Spec(("cat", "/proc/self/uid_map"), rootfs=str(rootfs))
    said = [mc.run(spec, capture_output=True).stdout for _ in range(3)]
    assert len(set(said)) == 1
    assert [lease.ids.uid for lease in ranges._cache.values()] == [int(said[0].split()[1])]


@pytest.mark.usefixtures("nothing_idle")
def test_where_there_are_few_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "pool", lambda: ranges.Pool(950 * ranges.WIDTH, 950 * ranges.WIDTH, 1))
    ranges.allocate().release()
    assert not ranges._cache
    ranges.allocate().release()


@pytest.mark.usefixtures("nothing_idle")
def test_where_nothing_can_be_locked_it_is_said(rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(ranges, "DIRECTORY", str(tmp_path / "file" / "ids"))
    spec = mc.Spec(("cat", "/proc/self/uid_map"), rootfs=str(rootfs))
    with pytest.warns(IsolationWarning, match="userns auto: .*: not a directory; running as --userns host"):
        assert mc.run(spec, capture_output=True).stdout.split() == [b"0", b"0", b"4294967295"]
    with pytest.raises(RangeRefusedError, match="not a directory"):
        mc.run(["/bin/true"], rootfs=rootfs, userns="private")


@pytest.mark.usefixtures("nothing_idle")
def test_a_fork_does_not_have_its_parents() -> None:
    cached = ranges.allocate()
    cached.release()
    pid = os.fork()
    if pid == 0:
        mine = ranges.allocate()
        os._exit(0 if mine.ids != cached.ids else 1)
    assert os.waitpid(pid, 0)[1] == 0
    again = ranges.allocate()
    assert again is cached
    again.release()


@pytest.mark.usefixtures("nothing_idle")
def test_what_a_dead_owner_left_running_keeps_its_range(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    owner = os.fork()
    if owner == 0:
        p = mc.Popen(["/bin/sleep", "1000"], rootfs=rootfs)
        os.write(write, f"{p.pid} {p.cgroup.path if p.cgroup else ''}".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(write)
    os.waitpid(owner, 0)
    with open(read, encoding="ascii") as f:
        pid, _, cgroup = f.read().partition(" ")
    first = first_id(int(pid))
    monkeypatch.setattr(ranges, "pool", lambda: ranges.Pool(first, first, 1))
    with pytest.raises(UnsupportedError, match="all 1 ranges of ids are taken"):
        ranges.allocate()
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/uid_map").exists() or not Path(f"/proc/{pid}/uid_map").read_text("ascii"))
    lease = ranges.allocate()
    assert lease.ids == (first, first, ranges.WIDTH)
    lease.release()
    if cgroup:
        until(lambda: "populated 0" in Path(cgroup, "cgroup.events").read_text(encoding="ascii"))
        Path(cgroup).rmdir()


@pytest.mark.usefixtures("nothing_idle")
def test_ids_that_were_chosen_are_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    here = ranges.Range(900 * ranges.WIDTH + 5, 7, 100)
    monkeypatch.setattr(ranges, "pool", lambda: ranges.Pool(900 * ranges.WIDTH, 900 * ranges.WIDTH, 1))
    overlapping = here._replace(uid=here.uid + 50)
    shared = [ranges.allocate_shared(here), ranges.allocate_shared(overlapping)]
    with pytest.raises(UnsupportedError, match="are taken"):
        ranges.allocate()
    for lease in shared:
        lease.release()
    taken = ranges.allocate()
    with pytest.raises(UnsupportedError, match="a running container was given some of these ids"):
        ranges.allocate_shared(here)
    taken.release()
    ranges.allocate_shared(here).release()


@pytest.mark.usefixtures("nothing_idle")
def test_ranges_that_somebody_was_given_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    base = 1000 * ranges.WIDTH
    monkeypatch.setattr(ranges, "pool", lambda: ranges.Pool(base, base, 3, ((base + 10, base + ranges.WIDTH + 1),)))
    lease = ranges.allocate()
    assert lease.ids.uid == base + 2 * ranges.WIDTH
    with pytest.raises(UnsupportedError, match="are taken"):
        ranges.allocate()
    lease.release()


@pytest.mark.parametrize(
    ("uids", "gids", "expected"),
    [
        ([("containers", 1 << 20, 1 << 20)], [("containers", 1 << 21, 1 << 17)], (1 << 20, 1 << 21, 2)),
        ([("root", 100000, 65536), ("containers", 200000, 65535)], [("root", 300000, 70000)], (100000, 300000, 1)),
        ([("root", 2**32 - 65536, 2**40)], [("root", 2**33, 5)], (0x80000, 0x80000, len(ranges.FALLBACK))),
        ([("me", 0x80000, 65536)], [], (0x80000, 0x80000, len(ranges.FALLBACK))),
        ([], [], (0x80000, 0x80000, len(ranges.FALLBACK))),
    ],
)
def test_where_ranges_come_from(monkeypatch: pytest.MonkeyPatch, uids: Any, gids: Any, expected: Any) -> None:
    monkeypatch.setattr(ranges, "subid_entries", {"/etc/subuid": uids, "/etc/subgid": gids}.__getitem__)
    pool = ranges.pool.__wrapped__()
    assert pool[:3] == expected
    first = pool.at(0)
    assert (first is None) == (bool(uids) and uids[0][0] == "me")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_any_subuid_file_is_read(text: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode("utf-8", "surrogatepass"))
        file.flush()
        found = ranges.subid_entries(file.name)
    assert all(start >= 0 and count >= 0 and ":" not in name for name, start, count in found)
    assert len(found) <= len(text)


@pytest.mark.usefixtures("nothing_idle")
def test_a_range_that_lies_across_two_files_is_locked_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    base = 3 * ranges.IDS_PER_FILE - ranges.WIDTH // 2
    monkeypatch.setattr(ranges, "pool", lambda: ranges.Pool(base, base, 1))
    lease = ranges.allocate()
    assert len(lease.fds) == 2
    for part in (base + 7, base + ranges.WIDTH - 7):
        with pytest.raises(UnsupportedError, match="a running container was given some of these ids"):
            ranges.allocate_shared(ranges.Range(part, 7, 1))
    ranges.allocate_shared(ranges.Range(base - 1, 7, 1)).release()
    ranges.allocate_shared(ranges.Range(base + ranges.WIDTH, 7, 1)).release()
    lease.release()
    shared = ranges.allocate_shared(ranges.Range(0, 0, 4 * ranges.IDS_PER_FILE))
    with pytest.raises(UnsupportedError, match="are taken"):
        ranges.allocate()
    shared.release()


# ---- where a user namespace cannot show the files


def test_a_file_system_without_other_ids_is_said(box: Box) -> None:
    """A volume from /proc: the container runs, as with --userns host; who insists is refused."""
    options = ["-v", "/proc/sys/kernel:/mnt:ro"]
    done = box.run("cat", "/proc/self/uid_map", options=options)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "0", "4294967295"])
    assert done.stderr == (
        "minicontainer: warning: userns auto: /proc/sys/kernel: its file system, or one mounted in it, cannot be shown"
        " with other ids; running as --userns host\n"
    )
    said = box.refused("true", options=[*options, "--userns", "private"], says=["/proc/sys/kernel", "--userns host"])
    assert "userns private" in said


def test_a_library_s_caller_is_warned_once_a_spec(rootfs: Path) -> None:
    spec = mc.Spec(("/bin/true",), rootfs=str(rootfs), mounts=(mc.Mount.volume("/proc/sys:/mnt:ro"),))
    with pytest.warns(IsolationWarning, match="/proc/sys: its file system"):
        assert mc.run(spec).returncode == 0
    assert mc.run(spec).returncode == 0  # pytest makes an error of a warning that nobody expects
    private = mc.Spec(("/bin/true",), rootfs=spec.rootfs, mounts=spec.mounts, userns="private")
    with pytest.raises(RangeRefusedError, match="/proc/sys"):
        mc.run(private)


def test_files_keep_their_owners(own_box: Box) -> None:
    """Inside and outside, whatever the range; what another user of the container makes is that user's."""
    (own_box.rootfs / "home/user").chmod(0o777)
    os.chown(own_box.rootfs / "home/user", 1000, 1000)
    script = "stat -c %u:%g / /home/user; touch /new; su user -c 'touch /home/user/new'; chown 7:8 /new"
    assert own_box.sh(script).split() == ["0:0", "1000:1000"]
    made = [(own_box.rootfs / name).stat() for name in ("new", "home/user/new")]
    assert [(info.st_uid, info.st_gid) for info in made] == [(7, 8), (1000, 1000)]
