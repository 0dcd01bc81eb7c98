"""The serial port of a machine (csrc/kvm/serial.c): what the guest sends, and what it is to receive."""

from __future__ import annotations

import errno
import threading

from minicontainer.errors import StepError
from minicontainer.native import ffi, lib

KEPT = 16 << 20  # bytes of output that are kept
CHUNK = 8192  # what csrc/kvm/serial.c holds

_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


class Serial:
    """A 16550A at 0x3f8. What the guest sends goes to the descriptor ``fd``; without one the latest KEPT bytes are
    kept.

    ``vm`` is the descriptor of the machine whose interrupt 4 it raises, or -1; ``eager``: nothing waits for a line's
    end."""

    def __init__(self, fd: int | None = None, vm: int = -1, *, eager: bool = False) -> None:
        self.control = ffi.gc(lib.mc_serial_new(-1 if fd is None else fd, vm, eager), lib.mc_serial_free)
        if self.control == ffi.NULL:
            raise MemoryError
        self.lost = 0  # bytes of output that were not kept
        self._kept = bytearray()
        self._order = threading.RLock()  # of what processors bring at the same time; a signal's handler may look
        self._fd = fd

    def close(self) -> None:
        """Forgets the descriptors, whose numbers may soon be something else's. ``output`` is still there."""
        lib.mc_serial_unplug(self.control)

    def input(self, data: bytes, *, overrun: bool = False) -> int:
        """Bytes for the guest to receive: how many were taken. With ``overrun`` all are: what finds no place is
        lost."""
        return lib.mc_serial_input(self.control, data, len(data), overrun)

    def flush(self, *, wait: bool = True) -> bool:
        """Writes what waits for a line's end, or takes it into ``output``: whether that was all. Without ``wait``, what
        a reader does not take now is kept. OSError as write(2)'s."""
        if self._fd is None:
            self._take()
            return True
        result = lib.mc_serial_flush(self.control, wait)
        while result == -errno.EINTR:
            result = lib.mc_serial_flush(self.control, wait)
        if result < 0 and result != -errno.EAGAIN:
            raise StepError(-result, "write(serial output)")
        return result == 0

    def _take(self) -> None:
        with self._order:
            buffer = _uncleared("char[]", CHUNK)
            while count := lib.mc_serial_output(self.control, buffer, CHUNK):
                self._kept += ffi.buffer(buffer, count)
            if len(self._kept) > 2 * KEPT:
                self._forget()

    def _forget(self) -> None:
        self.lost += len(self._kept) - KEPT
        del self._kept[:-KEPT]

    @property
    def output(self) -> bytes:
        """What the guest has sent: the latest KEPT bytes, and nothing where it went to a descriptor."""
        with self._order:
            if self._fd is None:
                self._take()
            if len(self._kept) > KEPT:
                self._forget()
            return bytes(self._kept)
