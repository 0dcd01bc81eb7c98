"""The signals that end ``minicontainer kvm-boot`` while its machine runs."""

from __future__ import annotations

import _signal  # signal imports enum
import os

from minicontainer.kvm.threads import block_signals, kick, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import contextmanager
    from threading import Thread

    from minicontainer.kvm.machine import Machine
else:
    from minicontainer.light import Thread, contextmanager


class Terminated(BaseException):
    """A signal ends this process; the machine and the terminal are restored while the stack unwinds."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals(machine: Machine) -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated, unless the caller ignores them; the exit code is then 128 and the signal.

    Python runs the handler of a signal that arrives just before KVM_RUN only after KVM_RUN. So a thread reads each
    signal (signal.set_wakeup_fd) and kicks the processors out of KVM_RUN."""

    def end(number: int, _frame: object) -> None:
        raise Terminated(number)

    def kick_out() -> None:
        block_signals()
        while os.read(signals, 1):
            kick(machine.processors)

    signals, wakeup = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(wakeup, False)
    listener = Thread(target=kick_out, daemon=True)
    start(listener)
    _signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    before = {}
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            before[number] = _signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(-1)
        os.close(wakeup)
        listener.join()
        os.close(signals)
