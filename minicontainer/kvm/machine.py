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

import time

from minicontainer.errors import Error, SpecError
from minicontainer.kvm import boot, devices, ports, processor, threads
from minicontainer.kvm.boot.kernel import CPUS_MAX, Entry, Kernel, entry_error, opened
from minicontainer.kvm.bus import Bus, check_addresses
from minicontainer.kvm.drive import Hooks, Processor
from minicontainer.kvm.exits import GuestEnd
from minicontainer.kvm.memory import GuestMemory
from minicontainer.kvm.registers import initial
from minicontainer.kvm.result import CODES, Outcome, Result
from minicontainer.kvm.rtc import Rtc
from minicontainer.kvm.serial import Serial
from minicontainer.kvm.system import Kvm
from minicontainer.native import ffi, lib, now
from minicontainer.spec import decimal, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from contextlib import suppress
    from typing import TypeVar

    from minicontainer.kvm.bus import Handler
    from minicontainer.kvm.descriptor import Watch
    from minicontainer.kvm.fwcfg import FwCfg
    from minicontainer.kvm.screen import Screen

    Self = TypeVar("Self", bound="Machine")
else:
    from minicontainer.light import suppress

TSS_ADDRESS, IDENTITY_MAP_ADDRESS = 0xFEFFD000, 0xFEFFC000  # below firmware (Linux Documentation/virt/kvm/api.rst)
SECONDS_MAX = 10**9
RETRY_INTERVAL = 0.01  # seconds between two tries to write output that the reader did not take


def bounds(timeout: float | str | None, max_exits: int | str | None) -> tuple[float | None, int]:
    """The limits of a run: seconds (None: none), number of exits (0: no limit). SpecError: a value is not allowed."""
    limit = None if timeout is None else decimal("timeout", timeout, 0.001, SECONDS_MAX, "seconds")
    return limit, 0 if max_exits is None else whole("max_exits", max_exits, 1, 2**63 - 1)


def flag(what: str, value: object) -> bool:
    """True or False. SpecError: it is neither."""
    if value not in (True, False):
        raise SpecError(what, value, "must be True or False")
    return bool(value)


class Machine:
    """One virtual machine; see the module. ``close()``, or the end of a ``with``, frees it.

    memory   bytes, or "64M"; in whole pages
    cpus     number of processors; None: as many as the kernel requests, usually 1
    irqchip  interrupt controllers and a timer inside KVM; None: if the kernel requests them
    serial   descriptor for the guest's output; None: it is retained for ``result.output``
    bios_data   the guest finds a BIOS data area, and with an irqchip an MP table
    fw_cfg   files for the guest: name -> content
    screen   a VGA in text mode, which ``machine.screen`` reads (kvm/screen.py); None without it
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
        bios_data: bool = False,
        fw_cfg: Mapping[str, bytes] | None = None,
        screen: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.cpus = None if cpus is None else whole("cpus", cpus, 1, CPUS_MAX)
        self.irqchip = None if irqchip is None else flag("irqchip", irqchip)
        self.want_ports, self.bios_data = flag("want_ports", want_ports), flag("bios_data", bios_data)
        self.entry: Entry | None = None
        self.processors: list[Processor] = []
        self.rtc = Rtc()
        self.bus = Bus({**devices.PORTS, **self.rtc.ports})
        self.hooks = Hooks()
        self.on_end: Callable[[Result], None] | None = None
        self.board = ffi.new("struct mc_board *")
        self._serial_fd = None if serial is None else whole("serial", serial, 0, 2**31 - 1)
        self._stop_reason = ""
        self._turns = threads.Turns()
        self._has_begun = self._is_closed = False  # start, close
        self._fw_cfg: FwCfg | None = None
        self._closers: list[Callable[[], None]] = []  # an ExitStack would cost 20 us with cold caches
        try:
            self.memory = GuestMemory(memory)
            self.screen = self._make_screen() if screen else None
            self.kvm = Kvm(watch=watch)
            self.at_close(self.kvm.close)
            self.vm = self.kvm.create_vm()
            self.at_close(self.vm.close)
            self.memory.attach(self.vm)
            if fw_cfg is not None:
                self._add_fw_cfg(fw_cfg)
        except BaseException:
            self.close()
            raise

    def _make_screen(self) -> Screen:
        from minicontainer.kvm.screen import Screen

        screen = Screen(self.memory)
        self.bus.ports.update(screen.vga.ports())
        return screen

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the machine and its memory. Error: it runs (``stop`` ends the run), or a view of its memory is in use,
        and all but the memory is free."""
        turn = object()
        try:
            self._turns.take(turn)
            if not self._turns.is_mine(turn):
                raise Error("machine: it runs, and cannot be closed before that has ended (Machine.stop)")
            self._is_closed = True
            while self._closers:
                self._closers.pop()()
            if hasattr(self, "memory"):
                self.memory.close()
        finally:
            self._turns.give_back(turn)

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
        registers: Mapping[str, int] | None = None,
    ) -> Entry:
        """Copies a kernel to memory: a flat binary, boot sector, ELF (also with a PVH note or multiboot's header) or
        bzImage, recognised by its first bytes. ``mode`` (real, protected, long, user64, pvh, linux, linux16, linux32,
        linux64, multiboot, multiboot2), ``load_address`` and ``entry`` override the file's own values.
        ``kernel``: a path, the name of a guest of this package ("hello"), or the bytes of the file.
        ``registers``: initial values of the first processor, above those of the kernel's protocol.

        KernelError (also a FileNotFoundError ...); SpecError: an option does not apply to this kernel."""
        self._check_not_begun()
        options = boot.Options(mode, load_address, entry, initrd, append, self.screen is not None)
        wanted = initial(registers) if registers is not None else None
        with opened(kernel) as file:
            loaded = boot.load(file, self.memory, options)
        self.entry = loaded._replace(registers=loaded.registers | wanted) if wanted else loaded
        return self.entry

    def load_firmware(self, image: str | os.PathLike[str] | bytes | Kernel) -> Entry:
        """Instead of ``load``: an image that ends at 4 GiB, where the processor begins after its reset, such as
        SeaBIOS. It finds fw_cfg (QEMU docs/specs/fw_cfg.rst). KernelError: it is no firmware."""
        from minicontainer.kvm import firmware

        self._check_not_begun()
        with opened(image) as file:
            self.entry, unmap = firmware.load(file, self.memory, self.vm)
        self.at_close(unmap)
        self.bus.add_ports(ports.I8042_COMMAND, 1, devices.no_keyboard)
        firmware.tell(self.memory, self.rtc, self._fw_cfg or self._add_fw_cfg({}))
        return self.entry

    def _check_not_begun(self) -> None:
        """Error: it is too late to say what is booted."""
        if self._has_begun:
            state = "has started" if self.processors else "was not started in full"
            raise Error(f"machine: it {state}, and cannot boot anything else (make another Machine)")

    def _add_fw_cfg(self, files: Mapping[str, bytes]) -> FwCfg:
        from minicontainer.kvm.fwcfg import FwCfg

        if not hasattr(files, "items"):
            raise SpecError("fw_cfg", files, "must be a dict of contents by name")
        self._fw_cfg = FwCfg(self.memory, self.bus)
        for name, content in files.items():
            self._fw_cfg.add(name, content)
        return self._fw_cfg

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else self.entry.kind if self.entry is not None else "nothing loaded"
        processors = f", {len(self.processors)} running" if self._turns else ""
        return f"<minicontainer.Machine: {self.memory.size >> 10} KiB, {state}{processors}>"

    def enter(self, rip: int, mode: str = "real", *, registers: Mapping[str, int] | None = None) -> None:
        """Instead of ``load``: the processors enter code that the caller has written to memory, at ``rip``, in real,
        protected, long or user64 mode. The tables for these modes are written above the first 8 KiB, but not to the
        page of ``rip`` and the next one. ``registers``: initial values by name."""
        if mode not in ("real", "protected", "long", "user64"):
            raise SpecError("mode", mode, "is no mode to enter without a file", "real, protected, long, user64")
        self._check_not_begun()
        self.memory.offset(rip, 1)
        if error := entry_error(self.memory, mode, rip):
            raise SpecError("entry", hex(rip), error)
        self.entry = Entry("memory", mode, rip, initial(registers or {}), [(rip & ~0xFFF, 0x2000)])

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
        check_addresses(address, size)
        for region in self.memory.regions:
            if address < region.address + region.size and region.address < address + size:
                raise SpecError("address", hex(address), f"would never be asked: memory is {self.memory.describe()}")

        def add(handler: Handler) -> Handler:
            self.bus.add_addresses(address, size, handler)
            return handler

        return add

    def end(self, reason: str = "stopped", code: int = 0) -> None:
        """Called by a device's handler: ends the run with this access. ``code``: the exit code, if not the reason's."""
        raise GuestEnd(reason, code)

    # ---- running

    def start(self) -> None:
        """Creates interrupt controllers and processors, ready to enter the kernel. ``run`` calls it if necessary."""
        if self._is_closed:
            raise Error("machine: it is closed")
        if self.processors:
            return
        self._check_not_begun()
        entry = self.entry
        if entry is None:
            raise Error("machine: nothing was loaded into it (Machine.load)")
        self.irqchip = entry.irqchip if self.irqchip is None else self.irqchip
        count = max(entry.cpus, 1) if self.cpus is None else self.cpus
        self._check_count(count, entry)
        self._has_begun = True
        if self.irqchip:
            self._make_irqchip()
        self.serial = Serial(self._serial_fd, self.vm.fd if self.irqchip else -1, eager=self.irqchip)
        self.at_close(self.serial.close)
        board = self.board
        board.vm, board.irqchip, board.cpus, board.serial = self.vm.fd, self.irqchip, count, self.serial.control
        if entry.linux:
            from minicontainer.kvm import acpi
            from minicontainer.kvm.boot import pc

            acpi.write(self.memory, count, vga=self.screen is not None)
            pc.write_reset_code(self.memory)
        if self._fw_cfg is not None:
            self._fw_cfg.announce_cpus(count)
        if self.bios_data:
            from minicontainer.kvm import biosdata

            entry = biosdata.write(entry, self.memory, count, irqchip=self.irqchip, screen=self.screen is not None)
        if self.screen is not None:
            entry = self.screen.reserve(entry)
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
        turn = object()
        try:
            self._turns.take(turn)
            if not self._turns.is_mine(turn):
                raise Error("machine: it runs already")
            return self._run(limit, most)
        finally:
            self._turns.give_back(turn)

    def _run(self, limit: float | None, most: int) -> Result:
        self.start()
        self.board.trace = self.board.trace or self.hooks.tracer is not None
        started, before = now(), self._guest_ns()
        self.board.deadline_ns = 0 if limit is None else started + int(limit * 1e9)
        self.board.max_exits = self.board.exits + most if most else 0
        outcome = self._run_processors()
        result = self.result(outcome, (now() - started) / 1e9, (self._guest_ns() - before) / 1e9)
        if self.on_end is not None:
            self.on_end(result)
        return result

    def _guest_ns(self) -> int:
        return sum([p.control.guest_ns for p in self.processors])

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
            detail=outcome.told(guessed=self.entry is not None and self.entry.guessed),
            vcpu=outcome.vcpu,
            output=self.serial.output,
            output_lost=self.serial.lost,
            state=(ffi.buffer(vcpu.get_regs())[:], ffi.buffer(vcpu.get_sregs())[:]),
            tallies=[p.tally() for p in self.processors],
            walltime=walltime,
            guest_time=guest_time,
        )
