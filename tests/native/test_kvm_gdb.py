"""A machine served to gdb: by the protocol over a socket, and by gdb itself."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minicontainer.errors import Error, UnsupportedError
from minicontainer.kvm.bus import Access
from minicontainer.kvm.debug import gdb
from minicontainer.kvm.debug.gdb import execution, probe
from minicontainer.kvm.debug.gdb.packets import Decoder, Signal, encode
from minicontainer.kvm.machine import Machine
from minicontainer.kvm.result import Result
from minicontainer.native import LIBEXEC

pytestmark = pytest.mark.needs("kvm")

GUESTS = Path(LIBEXEC) / "guests"
AT = 0x100000
# xor eax, eax; 2: inc eax; 4: cmp eax, 5; 7: jne 2; 9: hlt -- the same in 16, 32 and 64 bits
COUNT = bytes.fromhex("31c0 ffc0 83f805 75f9 f4")
LOOP, COMPARE, HALT = AT + 2, AT + 4, AT + 9
ENDLESS = bytes.fromhex("ebfe f4")  # jmp to itself; hlt
RAX, RBX, RIP, XMM1, CS, CR2 = 0, 1, 16, 41, 18, 60  # in the description of x86-64
RESET = 0xFFFFFFF0  # where KVM-AMD puts a processor that has shut down
PATIENCE = 60


class Client:
    """As much of gdb as a test needs."""

    def __init__(self, server: gdb.Server) -> None:
        self.socket = socket.create_connection(server.address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = Decoder()
        self.events: list[bytes | Signal] = []
        assert self.ask(b"QStartNoAckMode") == b"OK"
        self.socket.sendall(b"+")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def event(self) -> bytes | Signal | None:
        """What comes next; None at the connection's end."""
        while not self.events:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.events += self.decoder.feed(data)
        return self.events.pop(0)

    def reply(self) -> bytes | None:
        """The next packet."""
        while isinstance(event := self.event(), Signal):
            pass
        return event

    def send(self, packet: bytes) -> None:
        self.socket.sendall(encode(packet))

    def ask(self, packet: bytes) -> bytes | None:
        self.send(packet)
        return self.reply()

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex((self.ask(b"p%x" % number) or b"").decode()), "little")

    def set_register(self, number: int, value: int, size: int = 8) -> bytes | None:
        return self.ask(b"P%x=%s" % (number, value.to_bytes(size, "little").hex().encode()))


class Run(threading.Thread):
    """A machine's run beside the test. ``end()`` gives its result, or raises what it raised."""

    def __init__(self, machine: Machine, timeout: float = PATIENCE) -> None:
        super().__init__()
        self.machine, self.timeout = machine, timeout
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.machine.run(timeout=self.timeout)
        except BaseException as error:
            self.error = error

    def end(self) -> Result:
        self.join(PATIENCE)
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


Served = tuple[Client, Run]
Make = Callable[..., Machine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a machine of a few bytes, or of a guest's file."""
    machines = []

    def of(code: bytes | str, mode: str | None = "long", *, memory: str = "2M", cpus: int | None = None) -> Machine:
        path = GUESTS / code if isinstance(code, str) else tmp_path / "guest.bin"
        if isinstance(code, bytes):
            path.write_bytes(code)
        machines.append(Machine(memory, cpus))
        machines[-1].load(path, mode=None if isinstance(code, str) else mode)
        return machines[-1]

    yield of
    for machine in machines:
        machine.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "gdb"]


@contextmanager
def served(machine: Machine) -> Iterator[Served]:
    """The machine, run and served to a client."""
    with gdb.Server(machine) as server, Client(server) as client:
        run = Run(machine)
        try:
            yield client, run
        finally:
            client.socket.close()
            if run.is_alive():
                run.join(5)
            if run.is_alive():
                machine.stop()
            run.join()


@pytest.fixture(params=["hardware", "stepping"])
def breakpoints(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breakpoints as this host has them, and without the processor's help."""
    if request.param == "stepping":
        monkeypatch.setattr(execution, "has_breakpoints", lambda user: False)


# ---- standing


def test_the_machine_waits_before_its_first_instruction(make: Make) -> None:
    with served(make(COUNT)) as (client, run):
        assert client.ask(b"?") == b"T05thread:1;"
        assert client.register(RIP) == AT
        assert client.ask(b"m%x,%x" % (AT, len(COUNT))) == COUNT.hex().encode()
        assert client.ask(b"c") == b"W00"
        assert client.reply() is None
        result = run.end()
    assert (result.reason, result.registers["rax"]) == ("halt", 5)


def test_registers_of_all_kinds_are_read_and_written(make: Make) -> None:
    with served(make(COUNT)) as (client, _):
        assert client.set_register(RBX, 0x1122334455667788) == b"OK"
        assert client.register(RBX) == 0x1122334455667788
        assert client.set_register(XMM1, 7 << 100 | 9, 16) == b"OK"
        assert client.register(XMM1) == 7 << 100 | 9
        assert client.set_register(CR2, 0xABC) == b"OK"
        assert client.register(CR2) == 0xABC
        everything = client.ask(b"g")
        assert everything is not None
        assert everything[16:32] == struct.pack("<Q", 0x1122334455667788).hex().encode()
        assert client.ask(b"G" + everything) == b"OK"
        assert client.ask(b"G" + struct.pack("<Q", 3).hex().encode()) == b"OK"
        assert (client.register(RAX), client.ask(b"g")) == (3, b"03" + everything[2:])
        assert client.set_register(CS, 0x18, 4) == b"E16"  # the guest alone can load it
        assert client.set_register(RAX, 1, 4) == b"E16"
        assert client.ask(b"p1000") == b"E16"


def test_memory_is_the_guests_own_view(make: Make) -> None:
    """Linear addresses: the last page's table entry is led elsewhere, and then to nowhere."""
    machine = make(COUNT)
    with served(machine) as (client, _):
        assert client.ask(b"M1ffffe,2:abcd") == b"OK"
        assert machine.memory[0x1FFFFE:0x200000] == b"\xab\xcd"
        assert client.ask(b"m1ffffe,4") == b"abcd"  # the rest is mapped, and no memory
        assert client.ask(b"m200000,1") == client.ask(b"M1ffffe,4:01020304") == b"E0e"
        assert client.ask(b"m%x,1" % (1 << 40)) == b"E0e"  # not mapped
        assert client.ask(b"mffffffffffffffff,10") == b"E0e"
        tables = machine.processors[0].vcpu.get_sregs().cr3
        directory = tables + 2 * 4096 + 8  # the second 2 MiB of the first GiB
        assert client.ask(b"X%x,8:" % directory + struct.pack("<Q", 0x83)) == b"OK"
        assert client.ask(b"m3ffffe,2") == b"abcd"
        assert client.ask(b"X3ffffe,1:#") == b"OK"  # escaped on its way
        assert machine.memory[0x1FFFFE] == b"\x23"


def test_a_guest_of_32_bits_is_described_as_one(make: Make) -> None:
    with served(make(COUNT, "protected")) as (client, _):
        assert b"<architecture>i386</architecture>" in (client.ask(b"qXfer:features:read:target.xml:0,fff") or b"")
        assert client.register(8) == AT
        assert client.ask(b"vCont;s:1") == b"T05thread:1;"
        assert client.register(8) == AT + 2


def test_in_real_mode_addresses_are_linear_too(make: Make, breakpoints: None) -> None:
    """jmp 0x0100:0 leads to 0x1000 again, with a base in cs."""
    machine = make(bytes.fromhex("ea05000001") + COUNT, "real")
    with served(machine) as (client, run):
        assert client.ask(b"s") == b"T05thread:1;"
        regs, sregs = machine.processors[0].vcpu.get_regs(), machine.processors[0].vcpu.get_sregs()
        assert (regs.rip, sregs.cs.base, client.register(8)) == (5, 0x1000, 0x1005)
        assert client.ask(b"m1005,2") == b"31c0"
        assert client.ask(b"Z0,1007,1") == b"OK"
        assert client.ask(b"c") == b"T05thread:1;"
        assert client.register(8) == 0x1007
        assert client.set_register(8, 0x100E, 4) == b"OK"
        assert machine.processors[0].vcpu.get_regs().rip == 0xE
        assert client.ask(b"z0,1007,1") == b"OK"
        assert client.ask(b"c") == b"W00"
        assert run.end().reason == "halt"


# ---- going on


def test_steps(make: Make) -> None:
    with served(make(COUNT)) as (client, _):
        seen = []
        for _step in range(6):
            assert client.ask(b"vCont;s:1;c") == b"T05thread:1;"
            seen.append(client.register(RIP) - AT)
        assert seen == [2, 4, 7, 2, 4, 7]


def test_a_breakpoint_stops_each_time_until_it_is_gone(make: Make, breakpoints: None) -> None:
    with served(make(COUNT)) as (client, run):
        assert b"hwbreak+" in (client.ask(b"qSupported:swbreak+;hwbreak+") or b"")
        assert client.ask(b"Z0,%x,1" % LOOP) == b"OK"
        for count in range(3):
            assert client.ask(b"c") == b"T05thread:1;swbreak:;"
            assert (client.register(RIP), client.register(RAX)) == (LOOP, count)
        assert client.ask(b"Z1,%x,1" % COMPARE) == b"OK"
        assert client.ask(b"c") == b"T05thread:1;hwbreak:;"
        assert client.register(RIP) == COMPARE
        assert client.ask(b"m%x,2" % LOOP) == b"ffc0"  # the guest's code is as it was
        assert client.ask(b"z0,%x,1" % LOOP) == client.ask(b"z1,%x,1" % COMPARE) == b"OK"
        assert client.ask(b"c") == b"W00"
        assert run.end().registers["rax"] == 5


def test_more_breakpoints_than_a_processor_has(make: Make) -> None:
    with served(make(COUNT)) as (client, run):
        for address in (AT + 1, AT + 3, AT + 5, AT + 6, AT + 7, HALT):
            assert client.ask(b"Z0,%x,1" % address) == b"OK"
        for count in range(1, 6):
            assert client.ask(b"c") == b"T05thread:1;"
            assert (client.register(RIP), client.register(RAX)) == (AT + 7, count)
        assert client.ask(b"c") == b"T05thread:1;"
        assert client.register(RIP) == HALT
        assert client.ask(b"c") == b"W00"
        assert run.end().reason == "halt"


def test_a_step_over_hlt_ends_the_machine_where_nothing_can_wake_it(make: Make) -> None:
    with served(make(COUNT)) as (client, run):
        assert client.ask(b"s%x" % HALT) == b"W00"
        assert run.end().registers["rip"] == HALT + 1


def test_a_jump_to_a_breakpoint_stops_at_once(make: Make, breakpoints: None) -> None:
    with served(make(COUNT)) as (client, _):
        assert client.ask(b"Z0,%x,1" % HALT) == b"OK"
        assert client.ask(b"c%x" % HALT) == b"T05thread:1;"
        assert (client.register(RIP), client.register(RAX)) == (HALT, 0)


def test_an_interrupt_stops_a_guest_that_never_ends(make: Make) -> None:
    with served(make(ENDLESS)) as (client, run):
        for _again in range(3):
            client.send(b"c")
            client.socket.sendall(b"\x03")
            assert client.reply() == b"T02thread:1;"
            assert client.register(RIP) == AT
        assert client.ask(b"c%x" % (AT + 2)) == b"W00"
        assert run.end().reason == "halt"


def test_ports_are_served_while_it_is_stepped(make: Make) -> None:
    """mov al, 'H'; mov dx, 0x500; out dx, al; in al, dx; hlt."""
    machine = make(bytes.fromhex("b048 66ba0005 ee ec f4"))
    seen = []

    @machine.port(0x500)
    def device(access: Access) -> int:
        seen.append((access.write, access.value))
        return 0x42

    with served(machine) as (client, run):
        for _step in range(4):
            assert client.ask(b"s") == b"T05thread:1;"
        assert (client.register(RIP), client.register(RAX) & 0xFF) == (AT + 8, 0x42)
        assert client.ask(b"c") == b"W00"
        assert run.end().reason == "halt"
    assert seen == [(True, 0x48), (False, 0)]


# ---- leaving


def test_when_the_client_detaches_the_guest_runs_on(make: Make) -> None:
    with served(make(COUNT)) as (client, run):
        assert client.ask(b"Z0,%x,1" % LOOP) == client.ask(b"D") == b"OK"
        assert client.reply() is None
        assert run.end().registers["rax"] == 5


def test_when_the_client_vanishes_the_guest_runs_on_and_another_finds_it(make: Make) -> None:
    machine = make(ENDLESS)
    with gdb.Server(machine) as server:
        run = Run(machine)
        with Client(server) as client:
            client.ask(b"Z0,%x,1" % (AT + 2))
        with Client(server) as client:
            assert client.ask(b"?") == b"T05thread:1;"
            client.send(b"vCont;c")
        with Client(server) as client:
            assert client.register(RIP) == AT
            assert client.ask(b"c%x" % (AT + 2)) == b"W00"  # the first one's breakpoint went with it
        assert run.end().reason == "halt"


def test_kill_ends_the_machine(make: Make) -> None:
    with served(make(ENDLESS)) as (client, run):
        client.send(b"k")
        assert client.reply() is None
        assert run.end().reason == "stopped"
    with served(make(ENDLESS)) as (client, run):
        client.send(b"c")
        assert client.ask(b"vKill;1") == b"OK"  # and while it runs
        assert run.end().reason == "stopped"


def test_the_time_limit_holds_while_it_waits(make: Make) -> None:
    machine = make(COUNT)
    with gdb.Server(machine) as server, Client(server) as client:
        assert machine.run(timeout=0.05).reason == "timeout"
        assert client.register(RIP) == AT
        assert client.ask(b"c") == b"O" + f"timeout: rip {AT:#x}\n".encode().hex().encode()
        assert client.reply() == b"W7c"


def test_stop_ends_a_stopped_machine(make: Make) -> None:
    machine = make(COUNT)
    with served(machine) as (client, run):
        assert client.register(RIP) == AT
        while not machine.processors[0].control.thread:  # it is not in Machine.run yet
            time.sleep(0.001)
        machine.stop()
        assert run.end().reason == "stopped"


def test_a_fault_can_be_looked_at(make: Make) -> None:
    """ud2, with no handler, nor one for that."""
    with served(make(bytes.fromhex("ffc0 0f0b"))) as (client, run):
        text = client.ask(b"c") or b""
        assert bytes.fromhex(text[1:].decode()).startswith(b"triple-fault: shutdown at rip 0x")
        assert client.reply() == b"T0bthread:1;"
        assert client.register(RIP) in (AT + 2, RESET)
        assert run.is_alive()
        assert client.ask(b"c") == b"W79"
        assert run.end().reason == "triple-fault"


def test_what_a_device_raises_passes_and_nothing_is_left(make: Make) -> None:
    machine = make(bytes.fromhex("66ba0005 ee f4"))

    @machine.port(0x500)
    def device(access: Access) -> int:
        raise ZeroDivisionError

    with gdb.Server(machine) as server, Client(server) as client:
        client.send(b"c")
        with pytest.raises(ZeroDivisionError):
            machine.run(timeout=PATIENCE)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(server.address)


def test_closing_the_machine_closes_the_server(make: Make) -> None:
    machine = make(COUNT)
    server = gdb.Server(machine)
    with Client(server) as client:
        assert client.register(RIP) == AT
        machine.close()
        assert client.reply() is None
    server.close()


def test_the_machine_goes_on_without_the_server(make: Make) -> None:
    machine = make(COUNT)
    with gdb.Server(machine) as server, Client(server) as client:
        run = Run(machine)
        assert client.ask(b"Z0,%x,1" % LOOP) == b"OK"
        assert client.ask(b"c") == b"T05thread:1;"
    assert run.end().registers["rax"] == 5
    assert (machine.hooks.gate, machine.hooks.on_debug, machine.on_end) == (None, None, None)


def test_a_client_that_never_reads_delays_nothing(make: Make) -> None:
    machine = make(COUNT)
    with gdb.Server(machine) as server, Client(server) as client:
        client.socket.setblocking(False)
        request = encode(b"m%x,1fff" % AT) * 1000
        try:
            while True:
                client.socket.send(request)
        except BlockingIOError:
            pass
        server.close()


# ---- what is sent badly


def test_packets_that_are_broken_or_make_no_sense(make: Make) -> None:
    machine = make(COUNT)
    with gdb.Server(machine) as server, socket.create_connection(server.address, timeout=PATIENCE) as plain:
        plain.sendall(b"garbage\x00$?#00")
        assert plain.recv(1) == b"-"
        plain.sendall(b"$?#3f")
        assert plain.recv(1) == b"+"
    with served(machine) as (client, _):
        for packet in (b"", b"\xff\xfe", b"m,", b"Z9,0,0", b"vCont;x", b"qXfer:auxv:read::0,10"):
            assert client.ask(packet) == b""
        client.socket.sendall(bytes(set(range(256)) - {3, ord("-")}) * 20 + b"$")
        client.socket.sendall(b"$" + b"a" * 100000 + b"#00")
        assert client.ask(b"?") == b"T05thread:1;"


# ---- several processors


def test_all_processors_stop_when_one_does(make: Make) -> None:
    """The guest smp: its second processor begins at 0x8000, in real mode, once the first has told it to."""
    with served(make("smp", memory="4M")) as (client, run):
        assert client.ask(b"qfThreadInfo") == b"m1,2"
        assert bytes.fromhex((client.ask(b"qThreadExtraInfo,2") or b"").decode()) == b"processor 1, not started"
        assert client.ask(b"vCont;s:1") == b"T05thread:1;"
        assert client.register(8) == AT + 1
        if probe.has_breakpoints(user=False):
            assert client.ask(b"Z0,8000,1") == b"OK"
            assert client.ask(b"c") == b"T05thread:2;"
            assert client.register(8) == 0x8000
            assert client.ask(b"Hg1") == b"OK"
            waiting = client.register(8)
            assert client.ask(b"vCont;s:2") == b"T05thread:2;"
            assert client.register(8) == 0x8001
            assert client.ask(b"Hg1") == b"OK"
            assert client.register(8) == waiting  # only the second was to go on
        assert client.ask(b"c") == b"W00"
        assert run.end().output == b"This is processor 0.\nThis is processor 1.\n"


# ---- the host


def test_code_at_cpl_3_is_stepped_or_refused(make: Make) -> None:
    machine = make(COUNT, "user64")
    if not probe.has_steps(user=True):
        with pytest.raises(UnsupportedError, match=r"CPL 3.*--mode long"):
            gdb.Server(machine)
        return
    with served(machine) as (client, _):
        assert client.ask(b"s") == b"T05thread:1;"
        assert client.register(RIP) == LOOP


def test_a_port_in_use_is_said(make: Make) -> None:
    machine = make(COUNT)
    with gdb.Server(machine) as server, pytest.raises(Error, match=r"gdb 127.0.0.1:\d+: Address already in use"):
        gdb.Server(machine, *server.address)


# ---- gdb itself

SCRIPT = """
set pagination off
set confirm off
target remote 127.0.0.1:{port}
break next
continue
info registers rip
stepi
x/i $pc
x/s $rsi
delete
break done
continue
print/x $rdx
continue
"""


@pytest.mark.needs("gdb")
def test_gdb_breaks_on_a_symbol_steps_and_continues(make: Make, tmp_path: Path) -> None:
    machine = make("hello64", memory="4M")
    with gdb.Server(machine) as server:
        run = Run(machine)
        script = tmp_path / "script.gdb"
        script.write_text(SCRIPT.format(port=server.address[1]), encoding="ascii")
        command = ["gdb", "-nx", "-batch", "-x", str(script), str(GUESTS / "hello64")]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        result = run.end()
    said = done.stdout
    assert "Breakpoint 1, 0x" in said, said + done.stderr
    assert "<next>" in said
    assert "<next+1>:\ttest   %al,%al" in said
    assert '"ello from long mode.' in said
    assert "in done ()" in said
    assert "0x3f8" in said
    assert "exited normally" in said
    assert (result.reason, result.output) == ("halt", b"Hello from long mode.\n")
