"""Checks the options of a new detached container, and makes its spec and its Config."""

from __future__ import annotations

import time

from minicontainer import runtime
from minicontainer.container import host, seccomp
from minicontainer.detached.options import check_labels, check_restart, log_sizes
from minicontainer.detached.records import Config
from minicontainer.spec.values import SECONDS_MAX, decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import replace
    from typing import Any

    from minicontainer.detached.store import Entry
    from minicontainer.spec import Spec
else:
    from minicontainer.records import replace

CONFIG_OPTIONS = ("labels", "restart", "log", "interactive", "remove", "timeout")


def config_options(
    spec: Spec,
    *,
    labels: Mapping[str, str] | None = None,
    restart: str = "no",
    log: Mapping[str, Any] | None = None,
    interactive: bool = False,
    remove: bool = False,
    timeout: float = 0,
) -> dict[str, Any]:
    """Checks the options; returns them as fields of Config. SpecError for an invalid value."""
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


def new_config(entry: Entry, spec: Spec, options: Mapping[str, Any]) -> Config:
    """The config of a new container. A seccomp filter from a file is copied into the state directory, for exec and for
    restarts."""
    if spec.seccomp not in (None, "unconfined"):
        filter_ = seccomp.program(spec, host.permitted(spec, host.userns_mode(spec)))
        spec = replace(spec, seccomp=entry.add_file("seccomp", filter_))
    return Config(entry.id, spec, time.time(), mark=runtime.mark(), **options)


def detached_spec(spec: Spec) -> Spec:
    """The spec that a monitor starts: the container ends with its monitor. Cached in ``spec``, together with the
    compiled plan."""
    cached: Spec | None = spec.__dict__.get("_detached")
    if cached is None:
        cached = replace(spec, die_with_parent=True)
        object.__setattr__(spec, "_detached", cached)
    return cached


def check_host(spec: Spec) -> None:
    """Raises errors that can be detected before a start: in ROOTFS, sources of mounts, devices, fields that a virtual
    machine cannot honour."""
    if spec.isolation == "kvm":
        from minicontainer.container.machine import division

        division.check(spec)
    host.check_rootfs(spec.rootfs)
    host.check_sources(spec)
    host.check_devices(spec)
