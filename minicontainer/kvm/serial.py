"""The serial port of a machine (csrc/kvm/serial.c): the guest's output and input."""

from __future__ import annotations

import errno
import os
from _thread import RLock

from minicontainer.errors import StepError, quote
from minicontainer.native import ffi, lib

OUTPUT_MAX = 16 << 20  # bytes of output that are retained
CHUNK = 8192  # size of the output buffer in csrc/kvm/serial.c

_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


class Serial:
    """A 16550A at 0x3f8. The guest's output goes to the descriptor ``fd``; without one the last OUTPUT_MAX bytes are
    retained.

    ``vm`` is the descriptor of the machine whose interrupt 4 it raises, or -1; ``eager``: no line buffering."""

    def __init__(self, fd: int | None = None, vm: int = -1, *, eager: bool = False) -> None:
        self.control = ffi.gc(lib.mc_serial_new(-1 if fd is None else fd, vm, eager), lib.mc_serial_free)
        if self.control == ffi.NULL:
            raise MemoryError
        self.lost = 0  # bytes of output that were dropped
        self._output = bytearray()
        self._lock = RLock()  # of the output; reentrant, since a signal handler may read it
        self._fd = fd

    def close(self) -> None:
        """Stops using the descriptors, whose numbers may be reused. ``output`` stays readable."""
        lib.mc_serial_unplug(self.control)

    def input(self, data: bytes | bytearray | memoryview, *, overrun: bool = False) -> int:
        """Queues bytes for the guest to receive; returns how many. With ``overrun`` all are accepted, and those that do
        not fit are lost."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"serial input must be bytes, not {type(data).__name__}")
        raw = bytes(data)
        return lib.mc_serial_input(self.control, raw, len(raw), bool(overrun))

    def flush(self, *, wait: bool = True) -> bool:
        """Writes the buffered output to the descriptor, or moves it to ``output``; whether the buffer is empty then.
        Without ``wait``, output that the reader does not take at once stays buffered. OSError as of write(2)."""
        if self._fd is None:
            self._read_output()
            return True
        result = lib.mc_serial_flush(self.control, wait)
        while result == -errno.EINTR:
            result = lib.mc_serial_flush(self.control, wait)
        if result < 0 and result != -errno.EAGAIN:
            raise StepError(-result, f"write({_describe(self._fd)})")
        return result == 0

    def _read_output(self) -> None:
        with self._lock:
            buffer = _uncleared("char[]", CHUNK)
            count = CHUNK
            while count == CHUNK:
                count = lib.mc_serial_output(self.control, buffer, CHUNK)
                self._output += ffi.buffer(buffer, count)
            if len(self._output) > 2 * OUTPUT_MAX:
                self._trim()

    def _trim(self) -> None:
        self.lost += len(self._output) - OUTPUT_MAX
        del self._output[:-OUTPUT_MAX]

    @property
    def output(self) -> bytes:
        """The last OUTPUT_MAX bytes of the guest's output; empty if that goes to a descriptor."""
        with self._lock:
            if self._fd is None:
                self._read_output()
            if len(self._output) > OUTPUT_MAX:
                self._trim()
            return bytes(self._output)


def _describe(fd: int) -> str:
    """The serial output, with the path of its file (proc(5), /proc/PID/fd)."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        path = ""
    return f"serial output {quote(path)}" if path.startswith("/") else "serial output"
