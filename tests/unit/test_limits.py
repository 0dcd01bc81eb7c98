"""What a limit means, without any cgroup: conversions, lines to write, controllers needed, owners' names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.container.cgroup import limits
from minicontainer.errors import SpecError
from minicontainer.spec import DeviceRate, Limits

MIB = 2**20


def lines(wanted: Limits) -> dict[str, str]:
    return {setting.file: setting.data for setting in limits.settings(wanted)}


def test_memory_brings_as_much_swap_and_dies_as_a_whole() -> None:
    assert lines(Limits(memory="64M")) == {
        "memory.max": str(64 * MIB),
        "memory.oom.group": "1",
        "memory.swap.max": str(64 * MIB),
    }


def test_who_dies_out_of_memory() -> None:
    """All of it where memory is limited, as asked for elsewhere; one process needs no controller."""
    assert lines(Limits(memory="64M", oom_group=False))["memory.oom.group"] == "0"
    assert lines(Limits(oom_group=True)) == {"memory.oom.group": "1"}
    assert lines(Limits(oom_group=False)) == {"memory.oom.group": "0"}
    assert limits.controllers(Limits(oom_group=True)) == {"memory": ("oom_group", True)}
    assert limits.controllers(Limits(oom_group=False)) == {}


@pytest.mark.parametrize(("swap", "written"), [("64M", "0"), ("96M", str(32 * MIB)), (-1, "max")])
def test_memory_swap_is_memory_and_swap_together(swap: str | int, written: str) -> None:
    (found,) = [s for s in limits.settings(Limits(memory="64M", memory_swap=swap)) if s.file == "memory.swap.max"]
    assert (found.field, found.data) == ("memory_swap", written)


def test_reservation_is_memory_low_alone() -> None:
    assert lines(Limits(memory_reservation="16M")) == {"memory.low": str(16 * MIB)}


@pytest.mark.parametrize(("cpus", "written"), [(0.5, "50000"), (2, "200000"), (0.01, "1000"), (1.005, "100500")])
def test_cpus_are_a_quota_per_100_ms(cpus: float, written: str) -> None:
    assert lines(Limits(cpus=cpus)) == {"cpu.max": f"{written} 100000"}


@given(st.floats(0.01, 100_000))
def test_no_quota_is_below_what_the_kernel_takes(cpus: float) -> None:
    quota, period = limits.cpu_max(cpus).split()
    assert int(quota) >= 1000
    assert abs(int(quota) / int(period) - cpus) <= 1e-5


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
def test_cpu_shares_as_runc_converts_them(shares: int, weight: int) -> None:
    assert lines(Limits(cpu_shares=shares)) == {"cpu.weight": str(weight)}


@pytest.mark.parametrize(("blkio", "weight"), [(10, 1), (500, 4950), (1000, 10000)])
def test_blkio_weight_as_runc_converts_it(blkio: int, weight: int) -> None:
    assert lines(Limits(blkio_weight=blkio)) == {"io.weight": str(weight), "io.bfq.weight": str(blkio)}


@given(st.integers(2, 262143))
def test_more_shares_never_weigh_less(shares: int) -> None:
    assert 1 <= limits.cpu_weight(shares) <= limits.cpu_weight(shares + 1) <= 10000


def test_unlimited_needs_nothing() -> None:
    for wanted in (Limits(), Limits(pids=-1), Limits(memory_swap=-1)):
        assert limits.settings(wanted) == []
        assert limits.controllers(wanted) == {}


def test_each_controller_names_the_first_option_that_needs_it() -> None:
    wanted = Limits(memory_reservation="1M", cpus=2, cpu_shares=5, cpuset_cpus="0", pids=3, blkio_weight=20)
    assert limits.controllers(wanted) == {
        "memory": ("memory_reservation", MIB),
        "cpu": ("cpus", 2.0),
        "cpuset": ("cpuset_cpus", "0"),
        "pids": ("pids", 3),
        "io": ("blkio_weight", 20),
    }
    rates = Limits(device_read_iops=(DeviceRate("/dev/sda", 7),))
    assert limits.controllers(rates) == {"io": ("device_read_iops", "/dev/sda:7")}


def test_every_field_of_limits_is_known() -> None:
    assert [field for field, _ in limits.FIELDS] == list(Limits.__dataclass_fields__)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), min_size=1))
def test_cpu_lists(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    assert limits.cpu_numbers(text + "\n") == {n for first, more in ranges for n in range(first, first + more + 1)}


def test_absent_cpus_are_refused_with_those_that_are_there() -> None:
    limits.check_cpus("0,2-3", "0-3\n")
    with pytest.raises(SpecError, match=r"^cpuset_cpus 2-5: CPU 4 is offline or not ours to use \(available: 0-3\)$"):
        limits.check_cpus("2-5", "0-3\n")


@pytest.mark.parametrize(("path", "reason"), [("/dev/null", "is not a block device"), ("/dev/no-such", "No such file")])
def test_what_is_no_block_device_is_refused(path: str, reason: str) -> None:
    with pytest.raises(SpecError, match=f"device_read_bps {path}: {reason}"):
        limits.settings(Limits(device_read_bps=(DeviceRate(path, 1),)))
