"""The kernel's constants by name, as the compiler knows them: ``from minicontainer.linux.constants import MS_BIND``.

csrc/plan/constants.h lists them. Primitives also take flags by name: ``"MS_BIND|MS_REC"``.
"""

from __future__ import annotations

from minicontainer.native import lib


def __getattr__(name: str) -> int:
    value = getattr(lib, name, None)
    if not isinstance(value, int) or name.startswith("MC_"):
        raise AttributeError(f"module {__name__!r} has no constant {name!r} (csrc/plan/constants.h lists them)")
    return value


def __dir__() -> list[str]:
    return sorted(name for name in dir(lib) if not name.lower().startswith("mc_"))
