"""A small PC: memory, processors, a bus with devices, and a kernel.

    with Machine(memory="2M") as m:
        m.load("kernel.bin")

        @m.port(0x500)
        def answer(access: Access) -> int | None:
            return 42

        result = m.run(timeout=5)

Theory of operation. The constructor opens /dev/kvm and creates the machine and its memory; ``load`` copies a kernel to
it; ``start`` creates the processors in the kernel's initial state, and ``run`` runs them: the first in the calling
thread, each other in its own, until one of them ends the machine; then all are stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from minicontainer.errors import Error, SpecError
from minicontainer.kvm import acpi, boot, devices, guests, processor, threads
from minicontainer.kvm.boot.kernel import CPUS_MAX, Entry, InMemory, Kernel
from minicontainer.kvm.bus import Bus, Handler
from minicontainer.kvm.descriptor import Watch
from minicontainer.kvm.drive import Hooks, Processor
from minicontainer.kvm.exits import GuestEnd
from minicontainer.kvm.memory import GuestMemory
from minicontainer.kvm.result import CODES, Outcome, Result
from minicontainer.kvm.serial import Serial
from minicontainer.kvm.system import Kvm
from minicontainer.native import ffi, lib, now
from minicontainer.spec import decimal, whole

TSS_ADDRESS, IDENTITY_MAP_ADDRESS = 0xFFFBD000, 0xFFFBC000  # below 4 GiB (Linux Documentation/virt/kvm/api.rst)
SECONDS_MAX = 10**9
RETRY_INTERVAL = 0.01  # seconds between two tries to write output that the reader did not take

Self = TypeVar("Self", bound="Machine")


def bounds(timeout: float | str | None, max_exits: int | str | None) -> tuple[float | None, int]:
    """The limits of a run: seconds (None: none), number of exits (0: no limit). SpecError: a value is not allowed."""
    limit = None if timeout is None else decimal("timeout", timeout, 0.001, SECONDS_MAX, "seconds")
    return limit, 0 if max_exits is None else whole("max_exits", max_exits, 1, 2**63 - 1)


class Machine:
    """One virtual machine; see the module. ``close()``, or the end of a ``with``, frees it.

    memory   bytes, or "64M"; in whole pages
    cpus     number of processors; None: as many as the kernel requests, usually 1
    irqchip  interrupt controllers and a timer inside KVM; None: if the kernel requests them
    serial   descriptor for the guest's output; None: it is retained for ``result.output``
    want_ports  exits are also counted by port
    watch    called for every ioctl: (call, start, end, result), times in nanoseconds
    SpecError, UnsupportedError (no KVM here), StepError (an ioctl failed)."""

    def __init__(
        self,
        memory: int | str = boot.MEMORY,
        cpus: int | None = None,
        *,
        irqchip: bool | None = None,
        serial: int | None = None,
        want_ports: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.cpus = None if cpus is None else whole("cpus", cpus, 1, CPUS_MAX)
        self.irqchip = irqchip
        self.want_ports = want_ports
        self.entry: Entry | None = None
        self.processors: list[Processor] = []
        self.bus = Bus()
        self.hooks = Hooks()
        self.on_end: Callable[[Result], None] | None = None
        self.board = ffi.new("struct mc_board *")
        self._serial_fd = serial
        self._stop_reason = ""
        self._running = threading.Lock()  # held by run
        self.bus.ports.update(devices.PORTS)
        self._closers: list[Callable[[], None]] = []  # an ExitStack would cost 20 us with cold caches
        try:
            self.memory = GuestMemory(memory)
            self.at_close(self.memory.close)
            self.kvm = Kvm(watch=watch)
            self.at_close(self.kvm.close)
            self.vm = self.kvm.create_vm()
            self.at_close(self.vm.close)
            self.memory.attach(self.vm)
        except BaseException:
            self.close()
            raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the machine and its memory. Error: it runs (``stop`` ends the run)."""
        if not self._running.acquire(blocking=False):
            raise Error("machine: it runs, and cannot be closed before that has ended (Machine.stop)")
        try:
            while self._closers:
                self._closers.pop()()
        finally:
            self._running.release()

    def at_close(self, function: Callable[[], None]) -> None:
        """Registers a function that ``close()`` calls before it frees processors and memory."""
        self._closers.append(function)

    # ---- kernel and devices

    def load(
        self,
        kernel: str | os.PathLike[str] | bytes | Kernel,
        *,
        mode: str | None = None,
        load_address: int | None = None,
        entry: int | None = None,
        initrd: str | None = None,
        append: str | None = None,
    ) -> Entry:
        """Copies a kernel to memory: a flat binary, boot sector, ELF or bzImage, recognised by its first bytes.
        ``mode`` (real, protected, long, user64, pvh, linux), ``load_address`` and ``entry`` override the file's own
        values. ``kernel``: a path, the name of a guest of this package ("hello"), or the bytes of the file.

        KernelError (also a FileNotFoundError ...); SpecError: an option does not apply to this kernel."""
        options = boot.Options(mode, load_address, entry, initrd, append)
        if isinstance(kernel, Kernel):
            self.entry = boot.load(kernel, self.memory, options)
        else:
            with self._open_kernel(kernel) as file:
                self.entry = boot.load(file, self.memory, options)
        return self.entry

    def _open_kernel(self, kernel: object) -> Kernel:
        if isinstance(kernel, (bytes, bytearray, memoryview)):
            return InMemory("<bytes>", bytes(kernel))
        if isinstance(kernel, str):
            return Kernel(guests.find(kernel))
        if isinstance(kernel, os.PathLike):
            return Kernel(os.fsdecode(kernel))
        raise SpecError("kernel", kernel, f"must be a path, a guest's name or bytes, not {type(kernel).__name__}")

    def __repr__(self) -> str:
        state = "closed" if not self._closers else self.entry.kind if self.entry is not None else "nothing loaded"
        processors = f", {len(self.processors)} running" if self._running.locked() else ""
        return f"<minicontainer.Machine: {self.memory.size >> 10} KiB, {state}{processors}>"

    def enter(self, rip: int, mode: str = "real") -> None:
        """Instead of ``load``: the processors enter code that the caller has written to memory, at ``rip``, in real,
        protected, long or user64 mode. The tables for these modes are written above the first 8 KiB, but not to the
        page of ``rip`` and the next one."""
        if mode not in ("real", "protected", "long", "user64"):
            raise SpecError("mode", mode, "is no mode to enter without a file", "real, protected, long, user64")
        self.memory.offset(rip, 1)
        self.entry = Entry("memory", mode, rip, {}, [(rip & ~0xFFF, 0x2000)])

    def port(self, first: int, count: int = 1) -> Callable[[Handler], Handler]:
        """A decorator: the function handles ``count`` ports from ``first`` on. It is called with each Access, and
        returns the value that the guest reads. The machine itself handles the serial port (0x3f8 to 0x3ff), and writes
        to the ports of the debug console (0xe9) and debug-exit (0xf4)."""

        def add(handler: Handler) -> Handler:
            self.bus.add_ports(first, count, handler)
            return handler

        return add

    def mmio(self, address: int, size: int = 4096) -> Callable[[Handler], Handler]:
        """A decorator: the function handles ``size`` bytes of guest physical addresses without memory."""
        for region in self.memory.regions:
            if address < region.address + region.size and region.address < address + size:
                raise SpecError("address", hex(address), f"would never be asked: memory is {self.memory.describe()}")

        def add(handler: Handler) -> Handler:
            self.bus.add_addresses(address, size, handler)
            return handler

        return add

    def end(self, reason: str = "stopped") -> None:
        """Called by a device's handler: ends the run with this access."""
        raise GuestEnd(reason)

    # ---- running

    def start(self) -> None:
        """Creates interrupt controllers and processors, ready to enter the kernel. ``run`` calls it if necessary."""
        if not self._closers:
            raise Error("machine: it is closed")
        if self.processors:
            return
        entry = self.entry
        if entry is None:
            raise Error("machine: nothing was loaded into it (Machine.load)")
        self.irqchip = entry.irqchip if self.irqchip is None else self.irqchip
        count = max(entry.cpus, 1) if self.cpus is None else self.cpus
        self._check_count(count, entry)
        if self.irqchip:
            self._make_irqchip()
        self.serial = Serial(self._serial_fd, self.vm.fd if self.irqchip else -1, eager=self.irqchip)
        self.at_close(self.serial.close)
        board = self.board
        board.vm, board.irqchip, board.cpus, board.serial = self.vm.fd, self.irqchip, count, self.serial.control
        if entry.linux:
            acpi.write(self.memory, count)
        tables = processor.write_tables(entry, self.memory)
        initial = processor.InitialState(self.kvm, self.memory, entry, tables, count, self.irqchip)
        self.processors = [self._make_processor(initial, number) for number in range(count)]

    def _make_processor(self, initial: processor.InitialState, number: int) -> Processor:
        vcpu = self.vm.create_vcpu(number)
        self.at_close(vcpu.close)
        initial.set_up(vcpu, number)
        return Processor(
            vcpu,
            number,
            board=self.board,
            bus=self.bus,
            serial=self.serial,
            hooks=self.hooks,
            ports=self.want_ports,
        )

    def _check_count(self, count: int, entry: Entry) -> None:
        most = self.vm.check_extension("KVM_CAP_MAX_VCPUS") if count > 1 else 1
        if count > most:
            raise SpecError("cpus", count, f"is more than KVM gives a machine here ({most})")
        if count > 1 and not self.irqchip:
            raise SpecError("cpus", count, "need interrupts to be started by", "--irqchip")

    def _make_irqchip(self) -> None:
        """Creates PICs, IOAPIC and PIT. KVM requires them before the processors, which then get local APICs. Intel
        processors need the two addresses."""
        self.vm.set_identity_map_addr(IDENTITY_MAP_ADDRESS)
        self.vm.set_tss_addr(TSS_ADDRESS)
        self.vm.create_irqchip()
        self.vm.create_pit2(lib.KVM_PIT_SPEAKER_DUMMY)

    def run(self, timeout: float | None = None, max_exits: int | None = None) -> Result:
        """Runs the guest to its end, and returns the result. ``timeout`` in seconds; after it, or after ``max_exits``
        exits, the machine is stopped, and ``run`` can be called again to continue. An exception of a handler is raised
        here."""
        limit, most = bounds(timeout, max_exits)
        if not self._running.acquire(blocking=False):
            raise Error("machine: it runs already")
        try:
            return self._run(limit, most)
        finally:
            self._running.release()

    def _run(self, limit: float | None, most: int) -> Result:
        self.start()
        self.board.trace = self.board.trace or self.hooks.tracer is not None
        started, before = now(), sum(p.control.guest_ns for p in self.processors)
        self.board.deadline_ns = 0 if limit is None else started + int(limit * 1e9)
        self.board.max_exits = self.board.exits + most if most else 0
        outcome = self._run_processors()
        guest_ns = sum(p.control.guest_ns for p in self.processors) - before
        result = self.result(outcome, (now() - started) / 1e9, guest_ns / 1e9)
        if self.on_end is not None:
            self.on_end(result)
        return result

    def _run_processors(self) -> Outcome:
        try:
            outcome = threads.run(self.processors, self.board)
        except BaseException:
            with suppress(OSError):
                self.serial.flush(wait=False)
            raise
        self._flush_output(outcome)
        return outcome or Outcome(self._stop_reason or "stopped")

    def _flush_output(self, outcome: Outcome | None) -> None:
        """Writes the rest of the guest's output to its descriptor. It waits for a slow reader until the deadline or
        ``stop``."""
        board = self.board
        in_time = outcome is not None and outcome.reason != "timeout"
        while self._serial_fd is not None and not self.serial.flush(wait=False) and in_time and not board.stop:
            time.sleep(RETRY_INTERVAL)
            in_time = not board.deadline_ns or now() < board.deadline_ns
        board.stop = 0

    def stop(self, reason: str = "stopped") -> None:
        """Ends ``run`` from another thread or from a handler; the result's reason is ``reason``."""
        self._stop_reason = reason
        self.board.stop = 1
        threads.kick(self.processors)

    def result(self, outcome: Outcome, walltime: float = 0.0, guest_time: float = 0.0) -> Result:
        """The result of a run, with the present state of the processors."""
        vcpu = self.processors[outcome.vcpu].vcpu
        return Result(
            reason=outcome.reason,
            returncode=outcome.code or CODES.get(outcome.reason, 0),
            detail=outcome.detail,
            vcpu=outcome.vcpu,
            output=self.serial.output,
            output_lost=self.serial.lost,
            state=(bytes(ffi.buffer(vcpu.get_regs())), bytes(ffi.buffer(vcpu.get_sregs()))),
            tallies=[p.tally() for p in self.processors],
            walltime=walltime,
            guest_time=guest_time,
        )
