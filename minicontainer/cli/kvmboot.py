"""``minicontainer kvm-boot``: makes a Machine from the options, runs it, and prints its report."""

from __future__ import annotations

import os
import sys

from minicontainer.cli.console import Console
from minicontainer.cli.kvmsignals import Terminated, ended_by_signals
from minicontainer.cli.options import json_destination, writable, write_json
from minicontainer.cli.outputs import show
from minicontainer.cli.syntax import Argument, Option, Syntax
from minicontainer.errors import Error, SpecError
from minicontainer.kvm import boot, bus, devices
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.kvm.boot.pc import APPEND, SCREEN_APPEND
from minicontainer.kvm.machine import Machine, bounds
from minicontainer.kvm.memory import GuestMemoryError
from minicontainer.kvm.result import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import Any

    from minicontainer.cli.vgascreen import Display
    from minicontainer.kvm.result import Result
    from minicontainer.kvm.screen import Screen
else:
    from minicontainer.light import ExitStack

EPILOG = """The format of KERNEL is detected: a flat 16-bit binary (loaded and entered at 0x1000), a boot sector, an ELF
file for i386 or x86_64 (also with a PVH note or a header of multiboot 1 or 2), or a Linux bzImage; what is packed
with gzip is unpacked. KERNEL may also be the name of a bundled guest (--list); ./NAME is always a file.

At a terminal, Ctrl-A x stops the machine and Ctrl-A h shows help. Exit codes: 0 halted with interrupts off, powered
off or reset; the byte that the guest wrote to port 0xf4; 120 --max-exits; 121 triple fault; 122 internal error (an
instruction that KVM cannot emulate); 123 the processor refused the guest's state; 124 --timeout; 125 an error of
minicontainer; 126 KERNEL cannot be booted; 127 KERNEL was not found; 130 Ctrl-C."""

OPTIONS = (
    Option("--list", "list_guests", is_flag=True, help="List the guests that come with minicontainer."),
    Option(
        "--mode",
        help="Processor mode or boot protocol: real, protected, long, user64 (long mode at CPL 3), pvh, linux,"
        " linux16, linux32, linux64, multiboot or multiboot2.",
    ),
    Option(
        "--load-address",
        metavar="ADDRESS",
        help="Load address of a flat binary. [default: 0x1000 in real mode, else 0x100000]",
    ),
    Option("--entry", metavar="ADDRESS", help="Entry point. [default: from the file]"),
    Option("-m", "--memory", metavar="SIZE", help="Memory, in bytes or with k, m, g. [default: 2m; 256m for Linux]"),
    Option("--cpus", metavar="N", help="Number of processors. [default: as the guest asks for, mostly 1]"),
    Option(
        "--irqchip",
        is_flag=True,
        default=None,
        help="Add interrupt controllers and a timer, if the guest does not ask for them.",
    ),
    Option(
        "--initrd",
        metavar="FILE",
        help="Initial root file system for Linux (initramfs), or multiboot's modules: FILE[ ARGUMENTS][,FILE...].",
    ),
    Option(
        "--append",
        metavar="TEXT",
        help=f"Kernel command line. [default of Linux: {APPEND}; {SCREEN_APPEND} with --screen]",
    ),
    Option(
        "--bios-data",
        is_flag=True,
        help="Write a BIOS data area, and with interrupt controllers an MP table, for kernels that look for them.",
    ),
    Option(
        "--firmware",
        metavar="FILE",
        help="Instead of KERNEL: an image that ends at 4 GiB and starts as a PC does, such as SeaBIOS or u-boot.rom.",
    ),
    Option(
        "--fw-cfg",
        metavar="NAME,file=FILE",
        multiple=True,
        help="A file for the guest to read from QEMU's fw_cfg device; also NAME,string=TEXT.",
    ),
    Option("--debug-exit", metavar="PORT", help="Another port that ends the machine as 0xf4 does, such as 0x501."),
    Option("--timeout", metavar="SECONDS", help="Stop the machine after so many seconds (exit code 124)."),
    Option("--max-exits", metavar="N", help="Stop the machine after so many exits (exit code 120)."),
    Option(
        "--serial",
        metavar="WHERE",
        help="Serial port: stdio, none, or a file for its output. [default: stdio; none with --screen]",
    ),
    Option(
        "--screen",
        is_flag=True,
        help="Add a VGA in text mode, shown at a terminal while the machine runs, and as text at its end.",
    ),
    Option("--explain", is_flag=True, help="Show every ioctl with its time, then the exits; =json:FILE writes JSON."),
    Option("--explain-to", hidden=True),
    Option("--trace", is_flag=True, help="Show every exit as it happens; =FILE writes them to FILE."),
    Option("--trace-to", hidden=True),
    Option("--stats", is_flag=True, help="Show the number and time of exits by reason and port."),
    Option("--step", is_flag=True, help="Single-step with registers and instructions; =N: only the first N."),
    Option("--step-to", hidden=True),
    Option("--dump-registers", is_flag=True, help="Show the registers at the end."),
    Option("--dump-memory", metavar="A:N", multiple=True, help="Show N bytes at the address A at the end."),
    Option("--meta", "--json", "meta", metavar="FILE", help="Write the result to FILE, as JSON."),
    Option("--gdb", metavar="[HOST:]PORT", help="Wait for gdb at this address before the first instruction."),
)


def kvm_boot(**options: Any) -> int:
    """Boot KERNEL in a virtual machine (KVM)."""
    if options["list_guests"]:
        from minicontainer.kvm import guests

        width = max(map(len, guests.GUESTS))
        show("\n".join(f"{name:{width}}  {text}" for name, text in guests.GUESTS.items()))
        return 0
    if options["kernel"] is None and options["firmware"] is None:
        raise Error("Missing argument 'KERNEL'. (see minicontainer kvm-boot --help)")
    return Boot(options).run()


class Boot:
    """One run of the command: checks the options, makes the machine, runs it, prints the report."""

    def __init__(self, options: dict[str, Any]) -> None:
        from minicontainer.kvm import guests

        self.options = options
        self.path = guests.find(options["kernel"]) if options["firmware"] is None else options["firmware"]
        self.meta = writable("meta", options["meta"])
        self.explain = json_destination("explain", options["explain_to"]) if options["explain"] else None
        if options["gdb"] is not None and options["step"]:
            raise SpecError("step", None, "cannot be combined with --gdb, which steps itself")
        self.serial = self._serial(options["serial"])
        self._check(options)
        self.dumps = [span(text) for text in options["dump_memory"]]
        self.recorder: Any = None
        self.observers: list[Any] = []

    def _check(self, options: dict[str, Any]) -> None:
        """Check the options before the machine is made."""
        self.load_address = number("load_address", options["load_address"], ADDRESS)
        self.entry = number("entry", options["entry"], ADDRESS)
        self.debug_exit = number("debug-exit", options["debug_exit"], PORT)
        if self.debug_exit in (*bus.SERIAL, devices.DEBUG_CONSOLE):
            raise SpecError("debug-exit", options["debug_exit"], "is a port that prints", "such as 0x501")
        boot.check_mode(options["mode"])
        self.fw_cfg: dict[str, bytes] | None = None
        if options["fw_cfg"]:
            from minicontainer.cli import fwcfg

            self.fw_cfg = fwcfg.files(options["fw_cfg"])
        if options["firmware"] is not None:
            from minicontainer.cli import fwcfg

            fwcfg.check_firmware_options(options)
        bounds(options["timeout"], options["max_exits"])
        count("step", options["step_to"])
        if options["gdb"] is not None:
            from minicontainer.kvm.debug.gdb import parse_address

            parse_address(options["gdb"])

    def _serial(self, where: str | None) -> str:
        """Where the output of the serial port goes."""
        has_screen = self.options["screen"]
        if has_screen and where == "stdio":
            raise SpecError("serial", where, "is where --screen is shown", "none, or a file")
        if where is None:
            return "none" if has_screen else "stdio"
        return where

    def run(self) -> int:
        """Run the command; return the exit code."""
        try:
            with ExitStack() as stack:
                output = self._output(stack)
                machine = self._machine(stack, output)
                result = self._run(machine)
                self._report(machine, result)
        except Terminated as ended:
            return ended.exit_code
        return result.returncode

    # ---- before the run

    def _output(self, stack: ExitStack) -> int:
        """The descriptor for the output of the serial port."""
        where = self.serial
        if where == "stdio":
            return 1
        path = os.devnull if where == "none" else writable("serial", where)
        assert path is not None
        return stack.enter_context(open(path, "wb", buffering=0)).fileno()

    def _machine(self, stack: ExitStack, output: int) -> Machine:
        options = self.options
        if self.explain is not None:
            from minicontainer.kvm.debug.explain import Recorder

            self.recorder = Recorder()
        with Kernel(self.path) as kernel:
            machine = stack.enter_context(
                Machine(
                    self._memory(kernel),
                    options["cpus"],
                    irqchip=options["irqchip"],
                    serial=output,
                    want_ports=options["stats"],
                    bios_data=options["bios_data"],
                    fw_cfg=self.fw_cfg,
                    screen=options["screen"],
                    watch=self.recorder,
                )
            )
            self._load(machine, kernel)
            if self.debug_exit is not None:
                self._add_debug_exit(machine.bus, self.debug_exit)
        for address, length in self.dumps:
            try:
                machine.memory.offset(address, length)
            except GuestMemoryError:
                reason = f"is not all memory ({machine.memory.describe()})"
                raise SpecError("dump-memory", f"{address:#x}:{length}", reason) from None
        self._observe(stack, machine)
        return machine

    def _memory(self, kernel: Kernel) -> int | str:
        wanted: int | str | None = self.options["memory"]
        if wanted is not None:
            return wanted
        if self.options["firmware"] is not None:
            return boot.LINUX_MEMORY
        return boot.memory_wanted(kernel, self.options["mode"])

    def _load(self, machine: Machine, kernel: Kernel) -> None:
        if self.options["firmware"] is not None:
            machine.load_firmware(kernel)
            return
        given = {name: self.options[name] for name in ("mode", "initrd", "append")}
        machine.load(kernel, load_address=self.load_address, entry=self.entry, **given)

    def _add_debug_exit(self, ports: bus.Bus, port: int) -> None:
        if port in ports.ports or port in KERNEL_PORTS:
            raise SpecError("debug-exit", hex(port), "is the port of another device", "such as 0x501")
        ports.add_ports(port, 1, devices.debug_exit)

    def _observe(self, stack: ExitStack, machine: Machine) -> None:
        """Install the observers of exits."""
        if self.recorder is not None:
            self.recorder.phase = "processors"
            self.observers.append(self.recorder.exit)
        if self.options["trace"]:
            from minicontainer.cli.observers import trace_to

            self.observers.append(trace_to(stack, writable("trace", self.options["trace_to"])))
        if self.observers:
            from minicontainer.kvm.debug.trace import Tracer

            machine.hooks.tracer = Tracer(self.observers)
        if self.options["step"]:
            from minicontainer.cli.observers import step_to_stderr

            step_to_stderr(machine, count("step", self.options["step_to"]))

    # ---- the run

    def _run(self, machine: Machine) -> Result:
        timeout, most = self.options["timeout"], self.options["max_exits"]
        machine.start()
        try:
            with ExitStack() as stack:
                stack.enter_context(ended_by_signals(machine))
                if self.options["gdb"] is not None:
                    self._serve_gdb(stack, machine)
                display = self._show_screen(stack, machine.screen)
                if self.serial == "stdio" or machine.screen is not None:
                    stack.enter_context(Console(machine, display))
                return machine.run(timeout, most)
        except KeyboardInterrupt:
            rip = machine.processors[0].vcpu.get_regs().rip
            return machine.result(Outcome("interrupted", detail=f"rip {rip:#x}"))

    def _show_screen(self, stack: ExitStack, screen: Screen | None) -> Display | None:
        """Show the screen; returns what draws it on the terminal. Nothing does if exits are reported there."""
        if screen is None:
            return None
        from minicontainer.cli import vgascreen

        traces = self.options["trace"] and self.options["trace_to"] is None
        reports = os.isatty(2) and (traces or self.options["step"])
        display = vgascreen.Display(screen, draws=vgascreen.is_terminal() and not reports)
        stack.enter_context(display)
        return display if display.draws else None

    def _serve_gdb(self, stack: ExitStack, machine: Machine) -> None:
        from minicontainer.kvm.debug import gdb

        server = stack.enter_context(gdb.Server(machine, *gdb.parse_address(self.options["gdb"])))
        print("minicontainer: gdb is awaited at {}:{}".format(*server.address[:2]), file=sys.stderr, flush=True)

    # ---- after the run

    def _report(self, machine: Machine, result: Result) -> None:
        from minicontainer.cli import kvmreport

        kvmreport.end(self.path, result, self.options)
        if self.recorder is not None:
            kvmreport.explain(self.recorder, self.explain)
        if self.options["stats"]:
            kvmreport.stats(result)
        if self.options["dump_registers"]:
            kvmreport.registers(result)
        for address, length in self.dumps:
            kvmreport.memory(machine, address, length)
        if self.meta is not None:
            write_json(self.meta, {"kernel": self.path, **result.as_dict()})


# ---- values of options

# What a number is, its limit, and an example.
ADDRESS = "address", 1 << 52, "0x100000"
PORT = "port", 1 << 16, "0x501"
# A PC's interrupt controllers and timer, for which KVM answers.
KERNEL_PORTS = {0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x40, 0x41, 0x42, 0x43, 0x61}


def number(what: str, text: str | None, kind: tuple[str, int, str]) -> int | None:
    """An ADDRESS or a PORT: decimal, or hexadecimal with 0x."""
    if text is None:
        return None
    name, limit, example = kind
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < limit:
        raise SpecError(what, text, f"is no {name}", f"such as {example}")
    return value


def count(what: str, text: str | None) -> int | None:
    """A positive number, or None."""
    from minicontainer.spec import whole

    return None if text is None else whole(what, text, 1, 2**63 - 1)


def span(text: str) -> tuple[int, int]:
    """Address and length of ``A:N``."""
    address, colon, length = text.partition(":")
    if not colon:
        raise SpecError("dump-memory", text, "must be ADDRESS:BYTES", "such as 0x1000:64")
    values = number("dump-memory", address, ADDRESS), number("dump-memory", length, ADDRESS)
    assert values[0] is not None
    assert values[1] is not None
    return values[0], values[1]


SYNTAX = Syntax("kvm-boot", kvm_boot, OPTIONS, [Argument("kernel", required=False)], width=100, epilog=EPILOG)
