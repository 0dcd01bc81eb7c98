"""The formats of cgroup v2's files, and where control groups are, of what the kernel would say."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import UnsupportedError
from minicontainer.linux import cgroupfiles as files
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup
from minicontainer.native import ffi, lib

numbers = st.none() | st.integers(0, 2**63)
devices = st.tuples(st.integers(0, 4095), st.integers(0, 2**20)).map(lambda d: f"{d[0]}:{d[1]}")

HYBRID = r"""
23 30 0:21 / /proc rw,nosuid shared:12 - proc proc rw
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
41 31 0:38 /a\040b /sys/fs/cgroup/uni\134fied rw,relatime shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate
""".lstrip()
TABLE = """#subsys_name	hierarchy	num_cgroups	enabled
cpuset	3	1	1
memory	0	10	0
pids	0	1	1
"""


@given(numbers)
def test_a_number_or_max_survives_writing_and_reading(value: int | None) -> None:
    assert files.parse_number(files.show_number(value) + "\n") == value


@given(numbers, st.integers(1000, 10**6))
def test_cpu_max_survives_writing_and_reading(quota: int | None, period: int) -> None:
    assert files.parse_cpu_max(files.show_cpu_max((quota, period)) + "\n") == (quota, period)


@given(
    st.dictionaries(devices, st.dictionaries(st.sampled_from(["rbps", "wbps", "riops", "wiops"]), numbers, min_size=1))
)
def test_io_max_survives_writing_and_reading(value: dict[str, dict[str, int | None]]) -> None:
    assert files.parse_nested(files.show_nested(value)) == value


@given(st.dictionaries(st.from_regex("[a-z_]{1,20}", fullmatch=True), st.integers(0, 2**64 - 1)))
def test_flat_keyed_files(value: dict[str, int]) -> None:
    assert files.parse_flat("".join(f"{key} {number}\n" for key, number in value.items())) == value


def test_pressure_is_percent_and_seconds() -> None:
    text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    assert files.parse_pressure(text) == {
        "some": files.Pressure(1.5, 0.25, 0.0, 2.5),
        "full": files.Pressure(0.0, 0.0, 0.0, 7e-6),
    }


def usage(directory: Path, contents: dict[str, str]) -> dict[str, Any]:
    """The usage that is read of files with these contents."""
    for name, text in contents.items():
        (directory / name).write_text(text)
    with Cgroup.open(directory) as group:
        used = ffi.new("struct mc_usage *")
        lib.mc_measure(group.fd, 2**lib.MC_WAITED - 1, used)
        return dict(group.as_usage(used))


PRESSURE = "some avg10=1.50 avg60=0.25 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"


def test_usage_is_seconds_and_bytes(tmp_path: Path) -> None:
    io = "8:0 rbytes=10 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=2 rios=1 wios=1\n252:0 \n"
    contents = {
        "cpu.stat": "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnice_usec 5\nnr_periods 7\n",
        "io.stat": io,
        "memory.peak": "4096\n",
        "pids.peak": "3\n",
        **{f"{what}.pressure": PRESSURE.format(n) for what, n in (("cpu", 2500000), ("memory", 1), ("io", 0))},
    }
    assert usage(tmp_path, contents) == {
        "cputime": 3.0,
        "cputime_user": 2.0,
        "cputime_system": 1.0,
        "memory_peak": 4096,
        "pids_peak": 3,
        "io_read": 15,
        "io_write": 3,
        "pressure_cpu_some": 2.5,
        "pressure_memory_some": 1e-6,
        "pressure_io_some": 0.0,
    }


def test_what_the_kernel_does_not_account_is_none(tmp_path: Path) -> None:
    found = usage(tmp_path, {"io.stat": "", "cpu.stat": "usage_usec 5\n"})
    assert (found.pop("io_read"), found.pop("io_write"), found.pop("cputime")) == (0, 0, 5e-6)
    assert set(found.values()) == {None}


@given(st.text(st.sampled_from("0123456789 \n=totalusgercdbyw_"), max_size=200))
def test_any_content_is_read(text: str) -> None:
    with TemporaryDirectory() as directory:
        found = usage(Path(directory), dict.fromkeys(("cpu.stat", "io.stat", "memory.peak", "io.pressure"), text))
    assert all(value is None or value >= 0 for value in found.values())


def test_the_default_weight() -> None:
    assert files.parse_default_weight("default 250\n8:16 200\n") == 250
    assert files.parse_default_weight("100\n") == 100


# ---- where they are


def test_mounts_of_both_versions_with_escaped_paths() -> None:
    memory, cpu, _, unified = cgroupfs.parse_mounts(HYBRID)
    assert (memory.version, memory.path, memory.options) == (1, "/sys/fs/cgroup/memory", ("rw", "memory"))
    assert cpu.options == ("rw", "cpu", "cpuacct")
    assert unified == cgroupfs.CgroupMount(2, "/sys/fs/cgroup/uni\\fied", "/a b", ("rw", "nsdelegate"))


def test_membership_is_the_line_of_hierarchy_zero() -> None:
    assert cgroupfs.parse_membership("4:memory:/x\n0::/user.slice/a:b\n") == "/user.slice/a:b"
    assert cgroupfs.parse_membership("0::/gone (deleted)\n") == "/gone"
    assert cgroupfs.parse_membership("4:memory:/x\n") is None


@pytest.mark.parametrize(
    ("root", "own", "expected"),
    [("/", "/", "/cg"), ("/", "/a/b", "/cg/a/b"), ("/a", "/a/b", "/cg/b"), ("/a", "/a", "/cg")],
)
def test_own_directory_below_the_mount(monkeypatch: pytest.MonkeyPatch, root: str, own: str, expected: str) -> None:
    monkeypatch.setattr(cgroupfs, "unified", lambda: cgroupfs.CgroupMount(2, "/cg", root, ("rw",)))
    monkeypatch.setattr(cgroupfs, "_proc", lambda name: f"0::{own}\n")
    assert cgroupfs.membership() == expected


@pytest.mark.parametrize(("root", "own"), [("/a", "/ab"), ("/..", "/"), ("/a", "/")])
def test_a_mount_that_does_not_show_our_cgroup(monkeypatch: pytest.MonkeyPatch, root: str, own: str) -> None:
    monkeypatch.setattr(cgroupfs, "unified", lambda: cgroupfs.CgroupMount(2, "/cg", root, ("rw",)))
    monkeypatch.setattr(cgroupfs, "_proc", lambda name: f"0::{own}\n")
    with pytest.raises(UnsupportedError, match="is not below what is mounted at /cg"):
        cgroupfs.membership()


def test_no_cgroup2_mount_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroupfs, "mounts", lambda: cgroupfs.parse_mounts(HYBRID)[:3])
    with pytest.raises(UnsupportedError, match=r"no cgroup2 file system is mounted here \(mount -t cgroup2"):
        cgroupfs.unified()


@pytest.mark.parametrize(
    ("controller", "reason", "hint"),
    [
        ("memory", "the memory controller is bound to cgroup v1 at /sys/fs/cgroup/memory", "cgroup_no_v1=all"),
        (
            "cpu",
            "the cpu controller is bound to cgroup v1 at /sys/fs/cgroup/cpu,cpuacct",
            "unified_cgroup_hierarchy=1",
        ),
        ("io", "the io controller is bound to cgroup v1 at /sys/fs/cgroup/blkio", "cgroup_no_v1=all"),
        ("cpuset", "the cpuset controller is bound to cgroup v1, hierarchy 3", "cgroup_no_v1=all"),
        ("pids", "the pids controller is not enabled in this part of the hierarchy", "cgroup.subtree_control"),
        ("rdma", "the rdma controller is missing from this kernel", "a kernel with it"),
    ],
)
def test_why_a_controller_is_absent(controller: str, reason: str, hint: str) -> None:
    found = cgroupfs.explain_absence(controller, cgroupfs.parse_mounts(HYBRID), TABLE)
    assert found.reason == reason
    assert hint in found.hint


def test_a_controller_switched_off_at_boot() -> None:
    found = cgroupfs.explain_absence("memory", [], TABLE)
    assert found == (
        "the memory controller is switched off",
        "boot without cgroup_disable=memory, or with cgroup_enable=memory",
    )
    assert cgroupfs.explain_absence("memory", [], "").hint == "a kernel with CONFIG_MEMCG"
