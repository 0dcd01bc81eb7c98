"""``minicontainer kvm-boot``: makes a Machine from the options, runs it, and prints its report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from minicontainer.cli.console import Console
from minicontainer.cli.options import OptionalValues, json_destination, writable, write_json
from minicontainer.errors import SpecError
from minicontainer.kvm import boot
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.kvm.boot.pc import APPEND
from minicontainer.kvm.machine import Machine, bounds
from minicontainer.kvm.memory import GuestMemoryError
from minicontainer.kvm.result import Outcome, Result
from minicontainer.kvm.threads import kick, start

EPILOG = """The format of KERNEL is detected: a flat 16-bit binary (loaded and entered at 0x1000), a boot sector, an ELF
file for i386 or x86_64 (also with a PVH note), or a Linux bzImage. KERNEL may also be the name of a bundled guest
(--list); ./NAME is always a file.

At a terminal, Ctrl-A x stops the machine and Ctrl-A h shows help. Exit codes: 0 halted with interrupts off, powered
off or reset; the byte that the guest wrote to port 0xf4; 120 --max-exits; 121 triple fault; 122 internal error (an
instruction that KVM cannot emulate); 123 the processor refused the guest's state; 124 --timeout; 125 an error of
minicontainer; 126 KERNEL cannot be booted; 127 KERNEL was not found; 130 Ctrl-C."""

option = click.option


@click.command(
    "kvm-boot",
    cls=OptionalValues,
    epilog=EPILOG,
    context_settings={"max_content_width": 100},
)
@option("--list", "list_guests", is_flag=True, help="List the guests that come with minicontainer.")
@option(
    "--mode", help="Processor mode or boot protocol: real, protected, long, user64 (long mode at CPL 3), pvh or linux."
)
@option(
    "--load-address",
    metavar="ADDRESS",
    help="Load address of a flat binary. [default: 0x1000 in real mode, else 0x100000]",
)
@option("--entry", metavar="ADDRESS", help="Entry point. [default: from the file]")
@option("-m", "--memory", metavar="SIZE", help="Memory, in bytes or with k, m, g. [default: 2m; 256m for Linux]")
@option("--cpus", metavar="N", help="Number of processors. [default: as the guest asks for, mostly 1]")
@option(
    "--irqchip",
    is_flag=True,
    default=None,
    help="Add interrupt controllers and a timer, if the guest does not ask for them.",
)
@option("--initrd", metavar="FILE", help="Initial root file system for Linux (initramfs).")
@option("--append", metavar="TEXT", help=f"Linux kernel command line. [default: {APPEND}]")
@option("--timeout", metavar="SECONDS", help="Stop the machine after so many seconds (exit code 124).")
@option("--max-exits", metavar="N", help="Stop the machine after so many exits (exit code 120).")
@option(
    "--serial",
    default="stdio",
    show_default=True,
    metavar="WHERE",
    help="Serial port: stdio, none, or a file for its output.",
)
@option("--explain", is_flag=True, help="Show every ioctl with its time, then the exits; =json:FILE writes JSON.")
@option("--explain-to", hidden=True)
@option("--trace", is_flag=True, help="Show every exit as it happens; =FILE writes them to FILE.")
@option("--trace-to", hidden=True)
@option("--stats", is_flag=True, help="Show the number and time of exits by reason and port.")
@option("--step", is_flag=True, help="Single-step with registers and instructions; =N: only the first N.")
@option("--step-to", hidden=True)
@option("--dump-registers", is_flag=True, help="Show the registers at the end.")
@option("--dump-memory", metavar="A:N", multiple=True, help="Show N bytes at the address A at the end.")
@option("--meta", "--json", "meta", metavar="FILE", help="Write the result to FILE, as JSON.")
@option("--gdb", metavar="[HOST:]PORT", help="Wait for gdb at this address before the first instruction.")
@click.argument("kernel", required=False)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Boot KERNEL in a virtual machine (KVM)."""
    if options["list_guests"]:
        from minicontainer.kvm import guests

        width = max(map(len, guests.GUESTS))
        click.echo("\n".join(f"{name:{width}}  {text}" for name, text in guests.GUESTS.items()))
        return 0
    if options["kernel"] is None:
        raise click.UsageError("Missing argument 'KERNEL'.", ctx)
    return Boot(options).run()


class Boot:
    """One run of the command: checks the options, makes the machine, runs it, prints the report."""

    def __init__(self, options: dict[str, Any]) -> None:
        from minicontainer.kvm import guests

        self.options = options
        self.path = guests.find(options["kernel"])
        self.meta = writable("meta", options["meta"])
        self.explain = json_destination("explain", options["explain_to"]) if options["explain"] else None
        if options["gdb"] is not None and options["step"]:
            raise SpecError("step", None, "cannot be combined with --gdb, which steps itself")
        self._check(options)
        self.dumps = [span(text) for text in options["dump_memory"]]
        self.recorder: Any = None
        self.observers: list[Any] = []

    def _check(self, options: dict[str, Any]) -> None:
        """Check the options before the machine is made."""
        self.places = {name: number(name, options[name]) for name in ("load_address", "entry")}
        boot.check_mode(options["mode"])
        bounds(options["timeout"], options["max_exits"])
        count("step", options["step_to"])
        if options["gdb"] is not None:
            from minicontainer.kvm.debug.gdb import parse_address

            parse_address(options["gdb"])

    def run(self) -> int:
        """Run the command; return the exit code."""
        with ExitStack() as stack:
            output = self._output(stack)
            machine = self._machine(stack, output)
            result = self._run(machine)
            self._report(machine, result)
        return result.returncode

    # ---- before the run

    def _output(self, stack: ExitStack) -> int:
        """The descriptor for the output of the serial port."""
        where = self.options["serial"]
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
            memory = options["memory"] if options["memory"] is not None else boot.memory_wanted(kernel)
            machine = stack.enter_context(
                Machine(
                    memory,
                    options["cpus"],
                    irqchip=options["irqchip"],
                    serial=output,
                    want_ports=options["stats"],
                    watch=self.recorder,
                )
            )
            machine.load(
                kernel,
                mode=options["mode"],
                **self.places,
                initrd=options["initrd"],
                append=options["append"],
            )
        for address, length in self.dumps:
            try:
                machine.memory.offset(address, length)
            except GuestMemoryError:
                reason = f"is not all memory ({machine.memory.describe()})"
                raise SpecError("dump-memory", f"{address:#x}:{length}", reason) from None
        self._observe(stack, machine)
        return machine

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
                if self.options["serial"] == "stdio":
                    stack.enter_context(Console(machine))
                return machine.run(timeout, most)
        except KeyboardInterrupt:
            rip = machine.processors[0].vcpu.get_regs().rip
            return machine.result(Outcome("interrupted", detail=f"rip {rip:#x}"))

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


class Terminated(BaseException):
    """A signal ends this process; the machine and the terminal are restored while the stack unwinds."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals(machine: Machine) -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated, unless the caller ignores them; the exit code is then 128 and the signal.

    Python runs the handler of a signal that arrives just before KVM_RUN only after KVM_RUN. So a thread reads each
    signal (signal.set_wakeup_fd) and kicks the processors out of KVM_RUN."""
    import signal
    from threading import Thread

    def end(number: int, _frame: object) -> None:
        raise Terminated(number)

    def kick_out() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while os.read(signals, 1):
            kick(machine.processors)

    signals, wakeup = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(wakeup, False)
    listener = Thread(target=kick_out, daemon=True)
    start(listener)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, end)
    try:
        yield
    except Terminated as ended:
        raise click.exceptions.Exit(ended.exit_code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(wakeup)
        listener.join()
        os.close(signals)


# ---- values of options


def number(what: str, text: str | None) -> int | None:
    """An address: decimal, or hexadecimal with 0x."""
    if text is None:
        return None
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 52:
        raise SpecError(what, text, "is no address", "such as 0x100000")
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
    values = number("dump-memory", address), number("dump-memory", length)
    assert values[0] is not None
    assert values[1] is not None
    return values[0], values[1]
