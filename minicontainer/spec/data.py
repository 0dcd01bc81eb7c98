"""Converts a Spec to plain data (JSON's types) and back: the fields that differ from the defaults, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from minicontainer.errors import SpecError
from minicontainer.spec.container import Spec
from minicontainer.spec.limits import RATES, Limits
from minicontainer.spec.network import Port
from minicontainer.spec.parts import Device, DeviceRate, Mount, Ulimit

PARTS = {"ports": Port, "mounts": Mount, "devices": Device, "ulimits": Ulimit}


def to_data(spec: Spec | Limits) -> dict[str, Any]:
    """The fields that differ from the defaults, as plain data."""
    data = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if value != _default(field):
            data[field.name] = _plain(value)
    return data


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, Limits):
        return to_data(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
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
    rates = {name: tuple(DeviceRate(**rate) for rate in data[name]) for name in RATES if name in data}
    return Limits(**{**data, **rates})


def _field(name: str, value: Any) -> Any:
    if name == "limits":
        return limits_from_data(value)
    if name in PARTS:
        return tuple(PARTS[name](**item) for item in value)
    return tuple(value) if isinstance(value, list) else value
