"""What the loader asks of a format: is a kernel mine, is it sound, and how it is loaded and entered."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, Protocol

    from minicontainer.kvm.boot.kernel import Entry, Kernel
    from minicontainer.kvm.memory import GuestMemory

    class Format(Protocol):
        """A format of kernel files.

        name     what it is called in errors, and the ``kind`` of its entries
        modes    how its kernels can be entered; the first is the default; none: they are no kernels
        options  the fields of Options that it takes, beside ``mode``
        as_flat  whether its kernels may be loaded as flat binaries too"""

        @property
        def name(self) -> str: ...
        @property
        def modes(self) -> tuple[str, ...]: ...
        @property
        def options(self) -> tuple[str, ...]: ...
        @property
        def as_flat(self) -> bool: ...

        def is_mine(self, kernel: Kernel) -> bool:
            """Whether the kernel is of this format."""

        def memory(self, kernel: Kernel) -> int:
            """The default size of memory in bytes. KernelError: the kernel is not sound."""

        def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
            """Puts the kernel into memory, with what it is given."""

else:
    from minicontainer.records import NamedTuple

MEMORY, LINUX_MEMORY = 2 << 20, 256 << 20  # default memory in bytes: at least; of Linux, and at most of others
MIB = 1 << 20


class Usual:
    """What most formats have."""

    as_flat = False


class Options(NamedTuple):
    """Options for loading a kernel; None: the file's own value.

    screen  the machine has one (kvm/screen.py), of which the kernel is told"""

    mode: str | None = None
    load_address: int | None = None
    entry: int | None = None
    initrd: str | None = None
    append: str | None = None
    screen: bool = False


def memory_up_to(end: int) -> int:
    """The default memory of a kernel whose last byte in memory is before ``end``: whole MiB."""
    return max(MEMORY, min(-(-end // MIB) * MIB, LINUX_MEMORY))
