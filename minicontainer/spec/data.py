"""Converts a Spec to plain data (JSON's types) and back: the fields that differ from the defaults, by name."""

from __future__ import annotations

from _collections_abc import Mapping  # collections.abc imports collections

from minicontainer.errors import SpecError
from minicontainer.records import initial_values, is_record
from minicontainer.spec.container import Spec
from minicontainer.spec.limits import RATES, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARTS = {"ports": "Port", "mounts": "Mount", "devices": "Device", "ulimits": "Ulimit"}


def to_data(spec: Spec | Limits) -> dict[str, Any]:
    """The fields that differ from the defaults, as plain data."""
    data = {}
    for name, default in initial_values(type(spec)).items():
        value = getattr(spec, name)
        if value != default:
            data[name] = _plain(value)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Limits):
        return to_data(value)
    if is_record(value):
        return {name: _plain(getattr(value, name)) for name in initial_values(type(value))}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def from_data(data: Mapping[str, Any]) -> Spec:
    """The Spec of plain data. SpecError where the data is not valid."""
    try:
        fields = {name: _field(name, value) for name, value in data.items()}
        return Spec(**fields)
    except (TypeError, AttributeError, KeyError) as e:
        raise SpecError("spec", None, f"is no spec: {e}") from None


def limits_from_data(data: Mapping[str, Any]) -> Limits:
    """The Limits of plain data."""
    from minicontainer.spec.parts import DeviceRate

    rates = {name: tuple(DeviceRate(**rate) for rate in data[name]) for name in RATES if name in data}
    return Limits(**{**data, **rates})


def _field(name: str, value: Any) -> Any:
    if name == "limits":
        return limits_from_data(value)
    if name in PARTS and value:
        from minicontainer import spec

        kind = getattr(spec, PARTS[name])
        return tuple(kind(**item) for item in value)
    return tuple(value) if isinstance(value, list) else value
