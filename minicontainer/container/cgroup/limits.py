"""Converts ``Limits`` to the cgroup v2 files that enforce them, with docker's and runc's meanings.

``controllers`` returns the controllers that a Limits needs, ``settings`` the lines to write, both without touching a
cgroup; ``place`` creates the cgroup and ``apply`` writes. A limit that this host cannot enforce is an
UnsupportedError, never ignored.
(A weight is a share, not a limit: io.weight counts only on devices with io.cost.qos or the bfq scheduler.)
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.container.cgroup import placement
from minicontainer.container.cgroup.placement import Place
from minicontainer.errors import SpecError, StepError, UnsupportedError
from minicontainer.linux.cgroup import Cgroup
from minicontainer.native import ffi, lib, now
from minicontainer.spec import Limits
from minicontainer.spec.limits import NO_LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NamedTuple

    from minicontainer.spec import DeviceRate

    Observe = Callable[[str, int], None]
else:
    from minicontainer.records import NamedTuple

__all__ = ["Setting", "apply", "change", "check", "controllers", "oom_killed", "place", "settings"]

PIDS_DEFAULT = ffi.new("char[]", b"2048")  # podman's
UNLIMITED = -1  # docker's
CPU_PERIOD = 100_000  # us, the kernel's default and docker's
CPU_QUOTA_LEAST = 1_000  # us: the kernel refuses less (min_cfs_quota_period)

# (field of Limits, controller that enforces it)
FIELDS = (
    ("memory", "memory"),
    ("memory_swap", "memory"),
    ("memory_reservation", "memory"),
    ("cpus", "cpu"),
    ("cpu_shares", "cpu"),
    ("cpuset_cpus", "cpuset"),
    ("pids", "pids"),
    ("blkio_weight", "io"),
    ("device_read_bps", "io"),
    ("device_write_bps", "io"),
    ("device_read_iops", "io"),
    ("device_write_iops", "io"),
    ("oom_group", "memory"),
)
IO_MAX = {
    "device_read_bps": "rbps",
    "device_write_bps": "wbps",
    "device_read_iops": "riops",
    "device_write_iops": "wiops",
}

# file -> the reason why it can be missing though its controller is enabled, and the remedy
MISSING = {
    "memory.swap.max": ("this kernel does not account swap", "boot with swapaccount=1"),
    "cpu.max": ("this kernel has no bandwidth control for cgroups", "a kernel with CONFIG_CFS_BANDWIDTH"),
    "io.max": ("this kernel does not throttle block devices", "a kernel with CONFIG_BLK_DEV_THROTTLING"),
    "io.weight": ("no policy on this host weighs I/O", "modprobe bfq, or a kernel with CONFIG_BLK_CGROUP_IOCOST"),
}


class Setting(NamedTuple):
    """One line to write to one file. At least one file of each ``field`` must exist."""

    field: str
    value: object
    file: str
    data: str


def place(limits: Limits, ident: str, *, owned: bool = False, devices: int = -1) -> Place | None:
    """Creates the cgroup of container ``ident`` (12 hex digits), as ``placement.place``; ``apply`` sets the limits, but
    for the default of ``pids``.

    None where the caller can create no cgroup and there is no limit; UnsupportedError, with the reason and a remedy,
    where there is a limit. With ``owned`` the caller holds the ownership lock already.
    """
    needed = {} if limits is NO_LIMITS else controllers(limits)
    pids = PIDS_DEFAULT if limits.pids is None else ffi.NULL
    return placement.place(ident, needed, owned=owned, pids=pids, devices=devices)


def check(limits: Limits) -> None:
    """UnsupportedError with the reason, where ``place`` could not enforce the limits on this host."""
    placement.check(controllers(limits))


def change(cgroup: Cgroup, limits: Limits, fields: Iterable[str]) -> None:
    """Writes the limits of an existing container; ``fields`` are those that changed. All limits of a controller are
    written together (swap is counted with memory). UnsupportedError as ``place``, SpecError as ``apply``."""
    touched = {controller for field, controller in FIELDS if field in fields}
    part = Limits(**{field: getattr(limits, field) for field, controller in FIELDS if controller in touched})
    placement.provide(cgroup, controllers(part))
    if part.pids == UNLIMITED:
        lib.mc_write_at(cgroup.fd, b"pids.max", b"max", 3)  # without a pids controller there is no limit
    apply(cgroup, part)


def apply(cgroup: Cgroup, limits: Limits, observe: Observe | None = None) -> None:
    """Writes the limits. SpecError for a CPU or device that does not exist; UnsupportedError for a missing file.

    Calls ``observe(call, start_ns)`` after each write."""
    if limits.cpuset_cpus is not None:
        check_cpus(limits.cpuset_cpus, cgroup.read("cpuset.cpus.effective"))
    missing: dict[str, Setting] = {}
    written: set[str] = set()
    for setting in settings(limits):
        start_ns = now()
        if _write(cgroup, setting):
            written.add(setting.field)
            if observe is not None:
                observe(f'write("{setting.file}", "{setting.data}")', start_ns)
        elif (setting.field, setting.value) != ("oom_group", False):  # an older kernel kills one process anyway
            missing.setdefault(setting.field, setting)
    for field, setting in missing.items():
        if field not in written:
            reason, hint = MISSING.get(
                setting.file, (f"this kernel's controller has no {setting.file}", "a newer kernel")
            )
            raise UnsupportedError(field, setting.value, reason, hint)


def oom_killed(cgroup: Cgroup) -> bool:
    """Whether the OOM killer has killed a process of the cgroup, or below it, at a memory limit."""
    return cgroup.events.get("oom_kill", 0) > 0


def controllers(limits: Limits) -> dict[str, tuple[str, object]]:
    """The controllers that enforce the limits, each with the first field that needs it and its value."""
    needed: dict[str, tuple[str, object]] = {}
    for field, controller in FIELDS:
        value = getattr(limits, field)
        if value not in (None, False, (), UNLIMITED) and controller not in needed:
            rates = ", ".join(f"{rate.path}:{rate.rate}" for rate in value) if isinstance(value, tuple) else ""
            needed[controller] = (field, rates or value)
    return needed


# ---- settings


def settings(limits: Limits) -> list[Setting]:
    """All lines to write, in order. Reads the numbers of block devices; else pure."""
    return [*_memory(limits), *_cpu(limits), *_pids(limits), *_weight(limits), *_rates(limits)]


def _memory(limits: Limits) -> list[Setting]:
    lines = []
    if limits.memory is not None:
        lines.append(Setting("memory", limits.memory, "memory.max", str(limits.memory)))
        field = "memory" if limits.memory_swap is None else "memory_swap"
        value = swap_max(int(limits.memory), None if limits.memory_swap is None else int(limits.memory_swap))
        lines.append(Setting(field, limits.memory_swap, "memory.swap.max", value))
    if limits.memory is not None or limits.oom_group is not None:
        field = "memory" if limits.oom_group is None else "oom_group"
        lines.append(Setting(field, limits.oom_group, "memory.oom.group", str(int(limits.oom_group is not False))))
    if limits.memory_reservation is not None:
        value = str(limits.memory_reservation)
        lines.append(Setting("memory_reservation", limits.memory_reservation, "memory.low", value))
    return lines


def _cpu(limits: Limits) -> list[Setting]:
    lines = []
    if limits.cpus is not None:
        lines.append(Setting("cpus", limits.cpus, "cpu.max", cpu_max(float(limits.cpus))))
    if limits.cpu_shares is not None:
        lines.append(Setting("cpu_shares", limits.cpu_shares, "cpu.weight", str(cpu_weight(int(limits.cpu_shares)))))
    if limits.cpuset_cpus is not None:
        lines.append(Setting("cpuset_cpus", limits.cpuset_cpus, "cpuset.cpus", limits.cpuset_cpus))
    return lines


def _pids(limits: Limits) -> list[Setting]:
    if limits.pids in (None, UNLIMITED):
        return []
    return [Setting("pids", limits.pids, "pids.max", str(limits.pids))]


def _weight(limits: Limits) -> list[Setting]:
    """The weight for both I/O policies (io.cost and bfq), since each device has its own."""
    weight = limits.blkio_weight
    if weight is None:
        return []
    return [
        Setting("blkio_weight", weight, "io.weight", str(io_weight(int(weight)))),
        Setting("blkio_weight", weight, "io.bfq.weight", str(weight)),
    ]


def _rates(limits: Limits) -> list[Setting]:
    lines = []
    for field, _ in FIELDS:
        if field in IO_MAX:
            rates: tuple[DeviceRate, ...] = getattr(limits, field)
            for rate in rates:
                data = f"{device_number(field, rate.path)} {IO_MAX[field]}={rate.rate}"
                lines.append(Setting(field, f"{rate.path}:{rate.rate}", "io.max", data))
    return lines


# ---- conversions


def swap_max(memory: int, memory_swap: int | None) -> str:
    """memory.swap.max, which counts swap alone, from docker's memory-swap, which counts memory too. Without
    memory-swap, as much swap as memory."""
    if memory_swap == UNLIMITED:
        return "max"
    return str(memory if memory_swap is None else memory_swap - memory)


def cpu_max(cpus: float) -> str:
    """cpu.max of a number of CPUs: microseconds in each period of 100 ms."""
    return f"{max(CPU_QUOTA_LEAST, round(cpus * CPU_PERIOD))} {CPU_PERIOD}"


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) of cpu.shares (2 to 262144): runc's ConvertCPUSharesToCgroupV2Value."""
    return 1 + (shares - 2) * 9999 // 262142


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) of blkio.weight (10 to 1000): runc's ConvertBlkIOToIOWeightValue."""
    return 1 + (weight - 10) * 9999 // 990


def cpu_numbers(text: str) -> set[int]:
    """The CPUs of ``0-2,5`` (cpuset(7) "List format")."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def check_cpus(wanted: str, available: str) -> None:
    """SpecError unless the cgroup may use all of these CPUs: the kernel would silently use others."""
    absent = cpu_numbers(wanted) - cpu_numbers(available)
    if absent:
        reason = f"CPU {min(absent)} is offline or not ours to use"
        raise SpecError("cpuset_cpus", wanted, reason, f"available: {available.strip()}")


def device_number(what: str, path: str) -> str:
    """``MAJOR:MINOR`` of a block device's node; SpecError for another file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise SpecError(what, path, os.strerror(error.errno or 0)) from None
    if not stat.S_ISBLK(status.st_mode):
        raise SpecError(what, path, "is not a block device", "lsblk lists them")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _write(cgroup: Cgroup, setting: Setting) -> bool:
    """Writes one line; False where the file does not exist."""
    try:
        cgroup.write(setting.file, setting.data)
    except StepError as error:
        if error.errno == errno.ENOENT:
            return False
        if error.errno == errno.ENODEV and setting.file == "io.max":
            reason = "cannot be limited: it is a partition, or gone"
            raise SpecError(setting.field, setting.value, reason, "give the whole disk") from None
        raise
    return True
