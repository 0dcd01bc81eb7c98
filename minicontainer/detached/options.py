"""Checks the options of detached containers, which are those of docker's command line."""

from __future__ import annotations

from _collections_abc import Mapping  # collections.abc imports collections

from minicontainer.errors import SpecError
from minicontainer.spec import size, text, whole
from minicontainer.spec.values import is_digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.spec import Spec

LOG_SIZE, LOG_FILES = 10 * 2**20, 3
LOG_LEAST = 65536  # bytes: more than the entries of one read(2) of output


def check_restart(value: str, spec: Spec) -> str:
    """``no``, ``on-failure[:N]``, ``always``, ``unless-stopped`` (as ``always``: minicontainer does not start
    containers at boot). A container in the user namespace of another container cannot be restarted: its monitor has
    the ID-mapped ROOTFS for one start only."""
    policy, colon, times = text("restart", value).partition(":")
    if policy not in ("no", "always", "unless-stopped", "on-failure") or (colon and not _is_count(policy, times)):
        raise SpecError("restart", value, "must be no, on-failure[:N], always or unless-stopped")
    if value != "no" and (spec.network.startswith("container:") or spec.joined("userns")):
        raise SpecError("restart", value, "cannot be in the namespaces of another container", "minicontainer start")
    return value


def _is_count(policy: str, times: str) -> bool:
    return policy == "on-failure" and is_digits(times, 9) and times[0] != "0"


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Checks names and values of labels. SpecError."""
    for key, value in _mapping("labels", labels).items():
        if "=" in text("labels", key):
            raise SpecError("labels", key, "a name cannot hold =", "NAME=VALUE")
        text("labels", value, empty=True)
    return dict(labels)


def log_sizes(options: Mapping[str, Any]) -> tuple[int, int]:
    """``max-size`` in bytes (0: no limit) and ``max-file``. SpecError for an invalid value."""
    for key in _mapping("log", options):
        if key not in ("max-size", "max-file"):
            raise SpecError("log", key, "must be max-size=SIZE or max-file=N")
    largest: object = options.get("max-size", LOG_SIZE)
    bytes_ = 0 if str(largest) in ("0", "-1") else size("log max-size", largest, least=LOG_LEAST)  # type: ignore[arg-type]
    return bytes_, whole("log max-file", options.get("max-file", LOG_FILES), 1, 1000)


def _mapping(what: str, value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(what, value, f"must be a mapping, not {type(value).__name__}")
    return value
