"""One run of a machine: the memfd that caller and monitor share (struct mc_vmm_run, csrc/vmm/machine.h), and what it
says after the start and after the end."""

from __future__ import annotations

import _signal  # signal imports enum
import mmap
import os

from minicontainer.errors import Error, StepError
from minicontainer.native import ffi, lib
from minicontainer.plan.timeline import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.plan import Plan
    from minicontainer.plan.timeline import Call

PANIC = "Kernel panic"  # after which Linux resets the machine (Linux kernel/panic.c)
ENDS = {  # enum mc_vmm_end -> the reason of a result
    lib.MC_VMM_RESET: "reset",
    lib.MC_VMM_POWEROFF: "poweroff",
    lib.MC_VMM_TRIPLE_FAULT: "triple-fault",
    lib.MC_VMM_KVM_ERROR: "kvm-error",
}
FORBIDDEN = "bad-system-call"  # a thread of the monitor has called what its role may not: the kernel has ended it


class MachineError(Error):
    """A virtual machine that could not run the program, or ended before it did. ``exit_code`` 125.

    ``console``: the end of what its kernel has printed."""

    exit_code = 125

    def __init__(self, what: str, reason: str, console: str = "") -> None:
        super().__init__(what, reason, console)
        self.what, self.reason, self.console = what, reason, console

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def on_host_clock(records: bytes, guests: int, hosts: int) -> bytes:
    """The records of a plan that a guest has walked, whose end was at ``guests`` ns of its clock and at ``hosts`` ns of
    this host's."""
    shift = hosts - guests
    return b"".join(
        RECORD.pack(begin and begin + shift, begin and (end or guests) + shift, result)
        for begin, end, result in RECORD.iter_unpack(records[: len(records) // RECORD.size * RECORD.size])
    )


class Run:
    """The shared memfd. ``plan``: the guest's, for its errors and its timeline."""

    OOM_KILLS = ffi.offsetof("struct mc_vmm_run", "exit") + ffi.offsetof("struct mc_guest_exited", "oom_kills")

    def __init__(self, start: bytes, plan: Plan) -> None:
        size = ffi.sizeof("struct mc_vmm_run")
        records = -(-(size + len(start)) // 8) * 8
        whole = records + len(plan.steps) * ffi.sizeof("struct mc_record")
        self.plan = plan
        self.fd = os.memfd_create("minicontainer-run", os.MFD_CLOEXEC)
        try:
            os.truncate(self.fd, whole)
            self._map = mmap.mmap(self.fd, whole)
        except BaseException:
            os.close(self.fd)
            raise
        self._view = ffi.from_buffer(self._map)
        self._content: Any = self._map
        self._is_forbidden = False
        self.struct = ffi.cast("struct mc_vmm_run *", self._view)
        self._map[size : size + len(start)] = start
        self.struct.magic, self.struct.size = lib.MC_VMM_RUN_MAGIC, whole
        self.struct.start, self.struct.start_size = size, len(start)
        self.struct.records, self.struct.nrecords = records, len(plan.steps)

    def keep(self) -> None:
        """Keeps the content as it is now, without the memfd: its machine has ended, or is started again with it."""
        if self._content is not self._map:
            return
        content = bytearray(self._map)
        view = ffi.from_buffer(content)
        self.struct = ffi.cast("struct mc_vmm_run *", view)
        ffi.release(self._view)
        self._map.close()
        self._view, self._content = view, content
        self.close()

    def close(self) -> None:
        """Closes the memfd; the struct stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def console(self) -> str:
        """The end of what the guest's kernel has printed."""
        struct = self.struct
        raw = bytes(ffi.buffer(struct.console, min(struct.console_size, lib.MC_VMM_CONSOLE)))
        return raw.decode("utf-8", "replace").replace("\r", "")

    @property
    def text(self) -> str:
        """What the guest's init could not do."""
        return ffi.string(self.struct.text).decode("utf-8", "replace")

    @property
    def end(self) -> str:
        """How the machine has ended whose program has not; "" for a program that has, and while it runs."""
        if self.struct.exited:
            return ""
        if self._is_forbidden:
            return FORBIDDEN
        if self.struct.end == lib.MC_VMM_RUNS:
            return ""
        return "panic" if PANIC in self.console else ENDS.get(self.struct.end, "kvm-error")

    def ended_early(self) -> MachineError | None:
        """The end of a machine whose program has not ended; None for another end, and while it runs."""
        if not self.end:
            return None
        if self.end == FORBIDDEN:
            return MachineError("machine", "its monitor was ended at a system call that it may not make", self.console)
        panic = next((line.partition("] ")[2] for line in self.console.splitlines() if PANIC in line), "")
        return MachineError("machine", f"the guest has ended before its program ({panic or self.end})", self.console)

    @property
    def was_out_of_memory(self) -> bool:
        """Whether the guest's kernel has killed a process for memory, while the program ran."""
        return bool(self.struct.exited and self.struct.exit.oom_kills)

    def status(self, of_monitor: int) -> int:
        """The program's exit code or minus its signal; of a program that has not ended, what the monitor's was."""
        if self.struct.exited:
            return int(self.struct.exit.status)
        self._is_forbidden = of_monitor == -_signal.SIGSYS
        return MachineError.exit_code if self._is_forbidden else of_monitor

    def failure(self) -> Error:
        """The error of a machine that has ended before its program ran, without a word of its init."""
        struct = self.struct
        what = ffi.string(struct.what).decode("utf-8", "replace")
        if struct.end == lib.MC_VMM_KVM_ERROR:
            reason = "a Linux kernel needs KVM on a processor with virtualisation (minicontainer doctor)"
            return MachineError("machine", f"its processor was stopped ({what}): {reason}", self.console)
        if struct.error and what.startswith("KVM_"):
            return StepError(-struct.error, what)
        if struct.error:
            return MachineError(what or "machine", os.strerror(-struct.error).lower(), self.console)
        reason = self.end or "its monitor has ended"
        return MachineError("machine", f"the guest has ended before its program ran ({reason})", self.console)

    def records(self) -> bytes:
        """The records of the guest's plan, on this host's clock, as if the guest's message that the program runs had
        taken no time."""
        struct = self.struct
        if not struct.started:
            return b""
        raw = self._content[struct.records : struct.records + struct.nrecords * RECORD.size]
        return on_host_clock(raw, struct.guest.end_ns, struct.started_ns)

    def notes(self) -> list[Call]:
        """The phases of the machine, for the timeline."""
        struct = self.struct
        times = [struct.entered_ns, struct.booted_ns, struct.ready_ns, struct.started_ns]
        names = ["the monitor makes the machine", "the kernel boots, init loads modules", "init starts the program"]
        return [
            ("machine", name, begin, end, 0)
            for name, begin, end in zip(names, times, times[1:], strict=False)
            if begin and end
        ]
