"""A description of the measured machine."""

from __future__ import annotations

import os
import platform


def describe() -> dict[str, str]:
    """Processor, kernel, cgroups, load."""
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cgroups": _cgroups(),
        "load average": load,
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _cgroups() -> str:
    with open("/proc/self/cgroup", encoding="ascii") as f:
        hierarchies = [line.split(":")[0] for line in f]
    return "v2 only" if hierarchies == ["0"] else "hybrid (v1 and v2)" if "0" in hierarchies else "v1 only"


def available_bytes() -> int:
    """MemAvailable."""
    with open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0


def lack_of_memory(gib: int) -> str:
    """Why a process cannot have ``gib`` GiB of memory here; "" if it can."""
    return f"less than {gib + 2} GiB of memory are available" if gib and available_bytes() < (gib + 2) << 30 else ""
