"""What disturbs measurements on this host: swap, frequency scaling, SMT, load, a hypervisor, and the like.

Read from /proc and /sys below ``root``, which may be a copy. A ``note`` names the disturbance and the remedy; a value
that cannot be read is reported as such, not guessed.
"""

from __future__ import annotations

import glob
import os
from functools import partial

from minicontainer.doctor.findings import Probe, Verdict, note, ok

IDLE = 0.1  # load per CPU that a measurement tolerates
STEADY_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase", "pvm-clock")


def probes(root: str = "/") -> list[Probe]:
    """The probes, in the order of their effect on measurements."""
    there = {
        "load": load,
        "swap": swap,
        "frequency governor": governor,
        "turbo": turbo,
        "SMT": smt,
        "virtual machine": hypervisor,
        "transparent hugepages": hugepages,
        "NUMA balancing": numa,
        "address randomisation": aslr,
        "clock source": clock,
    }
    return [Probe(name, partial(ask, root)) for name, ask in there.items()]


def load(root: str) -> Verdict:
    """The load average of the last minute."""
    average, cpus = float(_read(root, "proc/loadavg").split()[0]), _cpus(root)
    text = f"{average:.2f} on {cpus} CPUs"
    return ok(text) if average <= IDLE * cpus else note(text, "stop other programs")


def swap(root: str) -> Verdict:
    """Swap: memory limits and times depend on what was swapped out."""
    lines = (line.split() for line in _read(root, "proc/meminfo").splitlines())
    fields = {line[0].rstrip(":"): int(line[1]) // 1024 for line in lines if len(line) > 1}
    total, free = fields.get("SwapTotal", 0), fields.get("SwapFree", 0)
    if not total:
        return ok("none")
    if total == free:
        return note(f"{total} MiB, unused", "as root: swapoff -a")
    return note(f"{total - free} of {total} MiB in use", "as root: swapoff -a")


def governor(root: str) -> Verdict:
    """The governors of cpufreq."""
    paths = glob.glob(os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    found = sorted({_read(root, os.path.relpath(path, root)) for path in paths})
    if not found:
        return note("unknown (a virtual machine, or no cpufreq driver)")
    if found == ["performance"]:
        return ok("performance")
    return note(", ".join(found), "as root: cpupower frequency-set -g performance")


def turbo(root: str) -> Verdict:
    """Whether the clock frequency may rise temporarily."""
    for path, on in (
        ("sys/devices/system/cpu/intel_pstate/no_turbo", "0"),
        ("sys/devices/system/cpu/cpufreq/boost", "1"),
    ):
        value = _optional(root, path)
        if value is not None:
            off = "1" if on == "0" else "0"
            return note("on", f"as root: echo {off} >/{path}") if value == on else ok("off")
    return note("unknown")


def smt(root: str) -> Verdict:
    """Whether CPUs share a core."""
    active = _optional(root, "sys/devices/system/cpu/smt/active")
    if active is None:
        return note("unknown")
    if active == "0":
        return ok("off")
    siblings = _optional(root, "sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    shared = f": CPU 0 shares its core ({siblings})" if siblings else ""
    return note(f"on{shared}", "as root: echo off >/sys/devices/system/cpu/smt/control, or --cpuset-cpus")


def hypervisor(root: str) -> Verdict:
    """Whether this host is a virtual machine, and its stolen time (proc(5), /proc/stat)."""
    kind = _optional(root, "sys/hypervisor/type")
    flagged = any(
        line.startswith("flags") and "hypervisor" in line.split() for line in _read(root, "proc/cpuinfo").splitlines()
    )
    if not flagged and kind is None:
        return ok("no")
    ticks = [int(field) for field in _read(root, "proc/stat").split("\n")[0].split()[1:9]]
    stolen = 100 * ticks[7] / max(1, sum(ticks)) if len(ticks) > 7 else 0.0
    vendor = kind or _optional(root, "sys/class/dmi/id/sys_vendor")
    named = f" ({vendor})" if vendor else ""
    return note(f"yes{named}; {stolen:.2f}% of its CPU time since boot was stolen", "repeat measurements, interleaved")


def hugepages(root: str) -> Verdict:
    """Transparent hugepages: page faults and memory use depend on free memory."""
    value = _optional(root, "sys/kernel/mm/transparent_hugepage/enabled")
    if value is None:
        return ok("not on this kernel")
    chosen = value.partition("[")[2].partition("]")[0]
    if chosen != "always":
        return ok(chosen)
    return note("always", "as root: echo madvise >/sys/kernel/mm/transparent_hugepage/enabled")


def numa(root: str) -> Verdict:
    """NUMA balancing: pages move between nodes during a measurement."""
    if _optional(root, "proc/sys/kernel/numa_balancing") in (None, "0"):
        return ok("off")
    return note("on", "as root: sysctl kernel.numa_balancing=0")


def aslr(root: str) -> Verdict:
    """Address space layout randomization."""
    value = _read(root, "proc/sys/kernel/randomize_va_space")
    return ok("off") if value == "0" else note("on: layouts differ from run to run", "setarch --addr-no-randomize")


def clock(root: str) -> Verdict:
    """The clock source: with a slow one, reading the time is a system call."""
    value = _optional(root, "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if value is None:
        return note("unknown")
    return ok(value) if value in STEADY_CLOCKS else note(f"{value}: reading the time is a system call")


def _cpus(root: str) -> int:
    return max(1, sum(line.startswith("processor") for line in _read(root, "proc/cpuinfo").splitlines()))


def _read(root: str, path: str) -> str:
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def _optional(root: str, path: str) -> str | None:
    try:
        return _read(root, path)
    except OSError:
        return None
