"""What a run of a compiled container takes from the host: its cgroup with limits and devices, and a range of ids."""

from __future__ import annotations

import os

from minicontainer import runtime
from minicontainer.compiled.payload import Payload
from minicontainer.compiled.variants import Name
from minicontainer.container.cgroup import devices, limits, placement
from minicontainer.container.host import Host
from minicontainer.container.ids import ranges
from minicontainer.errors import UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import hierarchy
from minicontainer.linux.devices import program
from minicontainer.native import ffi, lib
from minicontainer.spec import Limits, Spec


def put(payload: Payload, spec: Spec, host: Host, name: Name) -> None:
    """Writes the part of struct mc_compiled on resources. The container was started once, so they are available."""
    _put_mark(payload)
    _put_cgroup(payload, spec.limits)
    if spec.limits.pids is None:
        payload.struct.pids = payload.string(ffi.string(limits.PIDS_DEFAULT).decode())
    payload.struct.lines = payload.array("struct mc_line", lines(payload, spec.limits, name))
    allowed = devices.rules(spec, host)
    if allowed is not None:
        payload.struct.devices = payload.span(program(allowed))
        if any(not {"r", "w"} <= set(device.access) for device in spec.devices):
            payload.struct.flags |= lib.MC_COMPILED_MUST_HAVE_CGROUP
        if host.in_host_userns:
            payload.struct.flags |= lib.MC_COMPILED_HOST_DEVICES
    if host.userns == "range":
        _put_ids(payload, ranges.parse_range(spec.userns))


def _put_mark(payload: Payload) -> None:
    struct = payload.struct
    struct.mark = runtime.mark().encode("ascii")
    info = os.stat(f"{runtime.directory()}/mark")
    struct.mark_device = os.major(info.st_dev) << 32 | os.minor(info.st_dev)
    struct.mark_inode, struct.mark_time = info.st_ino, info.st_ctime_ns
    if runtime.suffix():
        struct.flags |= lib.MC_COMPILED_ROOT_GIVEN


def _put_cgroup(payload: Payload, wanted: Limits) -> None:
    """The place of the cgroup: below the root of the hierarchy, or below the caller's own, wherever that is then."""
    struct, needed = payload.struct, limits.controllers(wanted)
    if wanted:
        struct.flags |= lib.MC_COMPILED_MUST_HAVE_CGROUP
    try:
        top, base = hierarchy(), placement.check(needed)
    except UnsupportedError:
        if needed:
            raise
        return
    struct.base = payload.string(top.path)
    if base.path != top.path:
        struct.flags |= lib.MC_COMPILED_CGROUP_OF_CALLER
        struct.base = payload.string(cgroupfs.unified().path.rstrip("/"))
    struct.needed = payload.string(" ".join(f"+{name}" for name in sorted(needed)))
    struct.accounted = payload.string(" ".join(f"+{name}" for name in sorted(placement.ACCOUNTING)))


def lines(payload: Payload, wanted: Limits, name: Name) -> list[tuple[int, int, int, int, int, int]]:
    """The lines for the files of the cgroup (struct mc_line). Lines of one option are a group: one of them must be
    written."""
    string, rows = payload.string, []
    groups: dict[str, int] = {}
    for setting in limits.settings(wanted):
        is_optional = (setting.field, setting.value) == ("oom_group", False)
        group = 0 if is_optional else groups.setdefault(setting.field, len(groups) + 1)
        value = "" if setting.value is None else str(setting.value)
        effective = 0
        if setting.file == "cpuset.cpus":
            effective = string(_as_list(limits.cpu_numbers(setting.data)))
        names = string(name(setting.field)), string(value)
        rows.append((string(setting.file), string(setting.data), *names, group, effective))
    return rows


def _as_list(numbers: set[int]) -> str:
    """CPUs as the kernel shows them: ``0-2,5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _put_ids(payload: Payload, chosen: ranges.Range | None) -> None:
    struct = payload.struct
    if chosen is not None:
        struct.ids = lib.MC_IDS_SHARED
        struct.uid_first, struct.gid_first, struct.id_count = chosen
        return
    struct.ids, pool = lib.MC_IDS_POOL, ranges.pool()
    struct.uid_first, struct.gid_first, struct.id_count = pool.uid, pool.gid, pool.size
    struct.excluded = payload.array("uint32_t", [min(id_, 2**32 - 1) for pair in pool.excluded for id_ in pair])
