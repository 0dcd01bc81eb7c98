"""Observers of a running machine: the trace of its exits, and single-stepping."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO

from minicontainer.cli.outputs import to_write
from minicontainer.kvm.debug.disassembly import instruction
from minicontainer.kvm.debug.stepping import Stepper
from minicontainer.kvm.debug.trace import Exit, line
from minicontainer.kvm.drive import Processor
from minicontainer.kvm.machine import Machine

GENERAL = "rax rbx rcx rdx rsi rdi rsp rbp".split()


def trace_to(stack: ExitStack, path: str | None) -> Callable[[Exit], None]:
    """An observer that writes a line for each exit, to stderr or to a file."""
    file: IO[str] = sys.stderr
    if path is not None:
        file = stack.enter_context(to_write(path))
    start: list[int] = []

    def write_exit(exit_: Exit) -> None:
        if not start:
            start.append(exit_.entered)
        print(line(exit_, start[0]), file=file)

    return write_exit


def step_to_stderr(machine: Machine, most: int | None) -> None:
    """Print each instruction of the first processor before it is executed: ``most`` of them, or all."""

    def show(processor: Processor) -> None:
        regs = processor.vcpu.get_regs()
        code = instruction(processor.vcpu, machine.memory)
        values = " ".join(f"{name}={getattr(regs, name):x}" for name in GENERAL)
        print(f"{regs.rip:#010x}  {code:40}  {values} rflags={regs.rflags:x}", file=sys.stderr)

    Stepper(machine, show, most)
