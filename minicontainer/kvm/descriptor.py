"""The base class of Kvm, Vm and Vcpu: it owns a descriptor, and names its ioctls in errors and timelines. Mappings."""

from __future__ import annotations

import errno
import os
from _collections_abc import Callable  # collections.abc imports collections

from minicontainer.errors import SpecError, StepError
from minicontainer.native import check, ffi, lib, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from functools import lru_cache
    from typing import Any, TypeVar

    from minicontainer.kvm.stats import Stat

    Self = TypeVar("Self", bound="Descriptor")
else:
    from minicontainer.light import lru_cache

PAGE = 4096  # bytes: the unit of guest memory, and of what is mapped from descriptors

# Called for every ioctl: (call, start, end in nanoseconds of CLOCK_MONOTONIC, result or -errno).
Watch = Callable[[str, int, int, int], None]


def number(what: str, value: int, bits: int = 32) -> int:
    """``value``. TypeError: it is no whole number; SpecError: it has more than ``bits`` bits, or is negative."""
    if not isinstance(value, int) or not 0 <= value < 1 << bits:
        from minicontainer.kvm.misfits import refuse_number

        refuse_number(what, value, 0, (1 << bits) - 1)
    return value


def hexadecimal(value: object) -> object:
    """A number in hexadecimal, for an error's message; what is none as it is."""
    return hex(value) if isinstance(value, int) else value


def listed(what: str, values: Iterable[Any]) -> list[Any]:
    """The values as a list. TypeError: they are none."""
    try:
        return list(values)
    except TypeError:
        raise TypeError(f"{what} must be a sequence, not {type(values).__name__}") from None


def structure(call: str, kind: str, values: object) -> Any:
    """A pointer to a new ``kind`` of these values: by name, in order, or the value. SpecError: one does not fit;
    TypeError: one is no number. Both name the call, the field, the value and what is allowed."""
    try:
        return ffi.new(_pointer_to(kind), values)
    except (IndexError, OverflowError, TypeError):
        from minicontainer.kvm.misfits import refuse_values

        refuse_values(call, ffi.typeof(kind), values)
        raise


def must_be(call: str, kind: str, value: Any) -> None:
    """TypeError: ``value`` is no pointer to a ``kind``, as much as the ioctl reads."""
    if not isinstance(value, ffi.CData) or ffi.typeof(value) is not _pointer_to(kind) or not value:
        from minicontainer.kvm.misfits import kind_of

        raise TypeError(f"{call} takes a {kind} *, not {kind_of(value)}")


@lru_cache(maxsize=None)
def _pointer_to(kind: str) -> Any:
    return ffi.typeof(f"{kind} *")


@lru_cache(maxsize=None)
def _request(name: str) -> int:
    """The number of an ioctl."""
    found = getattr(lib, name, None)
    if not isinstance(found, int):
        raise SpecError("ioctl", name, "is none that is known here")
    return found


# What the destructors of mappings and of their parts need, by the id of the pointer that they are called with. They
# hold nothing themselves: in cycles of garbage, what they hold could be cleared before they are called.
_sizes: dict[int, int] = {}
_wholes: dict[int, Any] = {}


def mapped(fd: int, size: int, offset: int, what: str) -> Any:
    """Maps ``size`` bytes of a descriptor, from ``offset`` on: a ``char *``. They are unmapped when nothing refers to
    it any more, nor to a ``ffi.buffer`` or a ``part`` of it."""
    page = ffi.new("void **")
    check(lib.mc_run_map(fd, size, offset, page), "mmap", what, size)
    pages = ffi.cast("char *", page[0])
    _sizes[id(pages)] = size
    return ffi.gc(pages, _unmap)


def part(pages: Any, offset: int, kind: str) -> Any:
    """A pointer of the type ``kind`` to what is at ``offset`` of a mapping."""
    pointer = ffi.cast(kind, pages + offset)
    _wholes[id(pointer)] = pages
    return ffi.gc(pointer, _leave)


def _unmap(pages: Any) -> None:
    lib.mc_run_unmap(pages, _sizes.pop(id(pages)))


def _leave(pointer: Any) -> None:
    del _wholes[id(pointer)]


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
        return self._done(name, what, lib.mc_ioctl, argument)

    def ioctl_value(self, name: str, argument: int = 0) -> int:
        """ioctl(2) ``name`` with a number of 32 bits."""
        if argument or type(argument) is not int:
            number(name, argument)
            return self._done(name, (argument,), lib.mc_ioctl_value, argument)
        return self._done(name, (), lib.mc_ioctl_value, 0)

    def _done(self, name: str, what: tuple[object, ...], function: Callable[..., int], argument: Any) -> int:
        if self.watch is None:
            result = function(self.fd, _request(name), argument)
        else:
            start = now()
            result = function(self.fd, _request(name), argument)
            self.watch(_call(name, what), start, now(), result)
        if result < 0:
            raise StepError(-result, _call(name, what))
        return result

    def check_extension(self, capability: str | int) -> int:
        """KVM_CHECK_EXTENSION, of the system or a machine: 0 if the capability (``"KVM_CAP_IRQCHIP"`` or a number) is
        not supported, else 1 or a number that its documentation defines. SpecError: no such name."""
        from minicontainer.kvm import capabilities

        return self.ioctl_value("KVM_CHECK_EXTENSION", capabilities.number(capability))

    def get_stats(self) -> dict[str, Stat]:
        """KVM_GET_STATS_FD, of a machine or a processor: its statistics by name (KVM_CAP_BINARY_STATS_FD)."""
        from minicontainer.kvm import stats

        with Descriptor(self.ioctl_value("KVM_GET_STATS_FD")) as file:
            return stats.read(file.fd)

    def has_device_attr(self, group: int, attribute: int) -> bool:
        """KVM_HAS_DEVICE_ATTR, which systems, machines, processors and devices have (KVM_CAP_SYS_ATTRIBUTES ...)."""
        try:
            self._device_attr("KVM_HAS_DEVICE_ATTR", group, attribute, 0)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENODEV, errno.ENOTTY):
                raise
            return False
        return True

    def get_device_attr(self, group: int, attribute: int) -> int:
        """KVM_GET_DEVICE_ATTR of an attribute of 64 bits."""
        return self._device_attr("KVM_GET_DEVICE_ATTR", group, attribute, 0)

    def set_device_attr(self, group: int, attribute: int, value: int) -> None:
        """KVM_SET_DEVICE_ATTR of an attribute of 64 bits."""
        self._device_attr("KVM_SET_DEVICE_ATTR", group, attribute, value)

    def _device_attr(self, name: str, group: int, attribute: int, value: int) -> int:
        room = structure(name, "uint64_t", value)
        address = int(ffi.cast("uintptr_t", room))
        self.send(name, "struct kvm_device_attr", (0, group, attribute, address), group, attribute)
        return int(room[0])

    def get(self, name: str, struct: str) -> Any:
        """The ``struct`` that the ioctl fills in."""
        value = ffi.new(_pointer_to(struct))
        self.ioctl(name, value)
        return value

    def send(self, name: str, kind: str, values: object, *what: object) -> int:
        """The ioctl with a new ``structure`` of these values."""
        return self.ioctl(name, structure(name, kind, values), *what)

    def put(self, name: str, struct: str, value: Any) -> None:
        """The ioctl with a ``struct`` of the caller's, such as ``get`` returns. TypeError: it is something else."""
        must_be(name, struct, value)
        self.ioctl(name, value)


def _call(name: str, what: tuple[object, ...]) -> str:
    return f"{name}({', '.join(map(str, what))})"
