"""The base class of Kvm, Vm and Vcpu: it owns a descriptor, and names its ioctls in errors and timelines."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from minicontainer.errors import StepError
from minicontainer.native import ffi, lib, now

# Called for every ioctl: (call, start, end in nanoseconds of CLOCK_MONOTONIC, result or -errno).
Watch = Callable[[str, int, int, int], None]
Self = TypeVar("Self", bound="Descriptor")


class Descriptor:
    """Owns ``fd`` until ``close()``, the end of a ``with``, or garbage collection."""

    def __init__(self, fd: int, watch: Watch | None = None) -> None:
        self.fd = fd
        self.watch = watch

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the descriptor. The kernel frees its object when the last descriptor is closed."""
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def __repr__(self) -> str:
        state = f"descriptor {self.fd}" if self.fd >= 0 else "closed"
        return f"<minicontainer.kvm.{type(self).__name__}: {state}>"

    def fileno(self) -> int:
        """The descriptor."""
        return self.fd

    def ioctl(self, name: str, argument: Any = ffi.NULL, *what: object) -> int:
        """ioctl(2) ``name`` (``"KVM_GET_REGS"``) with a structure. StepError (an OSError): its message has the ioctl
        and ``what``, the arguments as text."""
        return self._watched(lib.mc_ioctl, name, argument, what)

    def ioctl_value(self, name: str, argument: int = 0) -> int:
        """ioctl(2) ``name`` with a number."""
        return self._watched(lib.mc_ioctl_value, name, argument, (argument,) if argument else ())

    def _watched(self, function: Callable[..., int], name: str, argument: Any, what: tuple[object, ...]) -> int:
        if self.watch is None:
            result = function(self.fd, getattr(lib, name), argument)
        else:
            start = now()
            result = function(self.fd, getattr(lib, name), argument)
            self.watch(_call(name, what), start, now(), result)
        if result < 0:
            raise StepError(-result, _call(name, what))
        return result

    def get(self, name: str, struct: str) -> Any:
        """The ``struct`` that the ioctl fills in."""
        value = ffi.new(struct + " *")
        self.ioctl(name, value)
        return value


def _call(name: str, what: tuple[object, ...]) -> str:
    return f"{name}({', '.join(map(str, what))})"
