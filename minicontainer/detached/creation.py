"""What a detached container is made of, before anything of it is there: checked options, its spec, its Config."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minicontainer import runtime
from minicontainer.container import host, seccomp
from minicontainer.detached.options import check_labels, check_restart, log_sizes
from minicontainer.detached.records import Config
from minicontainer.detached.store import Entry
from minicontainer.spec import Spec
from minicontainer.spec.values import SECONDS_MAX, decimal

WISHES = ("labels", "restart", "log", "interactive", "remove", "timeout")


def wishes(
    spec: Spec,
    *,
    labels: Mapping[str, str] | None = None,
    restart: str = "no",
    log: Mapping[str, Any] | None = None,
    interactive: bool = False,
    remove: bool = False,
    timeout: float = 0,
) -> dict[str, Any]:
    """Fields of Config. SpecError where one cannot be."""
    log_size, log_files = log_sizes(log or {})
    return {
        "labels": check_labels(labels or {}),
        "restart": check_restart(restart, spec),
        "log_size": log_size,
        "log_files": log_files,
        "interactive": interactive,
        "remove": remove,
        "timeout": decimal("timeout", timeout, 0, SECONDS_MAX, "seconds"),
    }


def config(entry: Entry, spec: Spec, wished: Mapping[str, Any]) -> Config:
    """That of a new container. A filter that comes of a file is kept as it is now: for what enters, and for another
    start."""
    if spec.seccomp not in (None, "unconfined"):
        filter_ = seccomp.program(spec, host.permitted(spec, host.userns_mode(spec)))
        spec = replace(spec, seccomp=entry.keep("seccomp", filter_))
    return Config(entry.id, spec, time.time(), mark=runtime.mark(), **wished)


def detached(spec: Spec) -> Spec:
    """As its monitor starts it: it ends with the monitor. Made once of a spec, with what is compiled for it."""
    found: Spec | None = spec.__dict__.get("_detached")
    if found is None:
        found = replace(spec, die_with_parent=True)
        object.__setattr__(spec, "_detached", found)
    return found


def check(spec: Spec) -> None:
    """What can be found amiss before a start: ROOTFS, sources of mounts, devices."""
    host.check_rootfs(spec.rootfs)
    host.check_sources(spec)
    host.check_devices(spec)
