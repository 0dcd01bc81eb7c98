"""``minicontainer kvm-boot`` as a user types it: options, exit codes, what is told on stderr; and its console at a
terminal."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import kernels as k
import pytest
from box import CLI, HEEDING, Done, refusal, until
from ptys import Session, session
from supplies import Run

from minicontainer.kvm import guests
from minicontainer.kvm.boot import setup

pytestmark = pytest.mark.needs("kvm")

HELLO = "Hello from real mode.\n"
GREETING = "Type, and it comes back. Ctrl-D ends.\r\n"
FLOOD = "The quick brown fox jumps over the lazy dog; and again, and again."
WELCOME = r"Ctrl-A x ends the machine, Ctrl-A h helps\r\n"
Boot = Callable[..., Done]


@pytest.fixture
def boot(minicontainer_cli: Run) -> Boot:
    """``boot(WORD..., timeout=...)``"""
    return lambda *words, **more: minicontainer_cli("kvm-boot", *words, **more)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    """``write(code)``: a file that holds it."""

    def make(code: bytes) -> Path:
        path = tmp_path / "kernel.bin"
        path.write_bytes(code)
        return path

    return make


# ---- what runs, and how it ends


def test_a_guest_by_its_name_and_by_its_path(boot: Boot) -> None:
    for word in ("hello", guests.path("hello")):
        done = boot(word)
        assert (done.returncode, done.stdout, done.stderr) == (0, HELLO, "")


def test_list(boot: Boot) -> None:
    done = boot("--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == guests.names()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("triple-fault",), 121, "kernel triple-fault: the guest has caused a triple fault, shutdown at rip 0x"),
        (("hole",), 122, "kernel hole: KVM cannot go on, an instruction that KVM cannot emulate"),
        (("loop", "--timeout", "0.1"), 124, "--timeout 0.1: the time limit is reached, rip 0x1000"),
        (("pio-storm", "--max-exits", "5"), 120, "--max-exits 5: the limit of exits is reached, rip 0x10"),
    ],
)
def test_ends_that_are_errors_have_a_code_and_a_line(boot: Boot, words: tuple[str, ...], code: int, says: str) -> None:
    refusal(boot(*words), code, [says])


def test_a_guest_chooses_its_own_code(boot: Boot, write: Callable[[bytes], Path]) -> None:
    done = boot(write(b"\xb0\x2a\xe6\xf4"))  # mov al, 42; out 0xf4, al
    assert (done.returncode, done.stdout, done.stderr) == (42, "", "")


def test_a_guest_finds_a_bios_data_area(boot: Boot, write: Callable[[bytes], Path]) -> None:
    code = write(b"\xa0\x01\x04\xe6\xf4")  # mov al, [0x401]; out 0xf4, al: the port of COM1, 0x3f8
    assert boot(code).returncode == 0
    assert boot(code, "--bios-data").returncode == 3
    done = boot(code, "--bios-data", "--memory", "64k")
    refusal(done, 125, ["--bios-data: needs 1 MiB of memory (--memory 1m)"])


@pytest.mark.parametrize(
    ("code", "returncode"),
    [
        (b"\xba\x01\x05\xb0\x2a\xee\xf4", 42),  # mov dx, 0x501; mov al, 42; out dx, al; hlt
        (b"\xba\x01\x05\xb8\x2a\x01\xef\xf4", 42),  # ... ax, 0x12a; out dx, ax
        (b"\xba\x01\x05\x31\xc0\xee\xeb\xfe", 0),  # xor ax, ax; out dx, al; jmp to itself
        (b"\xba\x01\x05\xec\x04\x07\xe6\xf4", 7),  # in al, dx; add al, 7; out 0xf4, al: reads are 0
    ],
)
def test_a_guest_has_its_own_port_for_its_code(
    boot: Boot, write: Callable[[bytes], Path], code: bytes, returncode: int
) -> None:
    done = boot(write(code), "--debug-exit", "0x501", "--timeout", "20")
    assert (done.returncode, done.stdout, done.stderr) == (returncode, "", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 125, ["KERNEL"]),
        (("hello", "--debug-exit", "0x10000"), 125, ["--debug-exit 0x10000: is no port (such as 0x501)"]),
        (("hello", "--debug-exit", "0x3f8"), 125, ["--debug-exit 0x3f8: is a port that prints (such as 0x501)"]),
        (("hello", "--debug-exit", "0xe9"), 125, ["--debug-exit 0xe9: is a port that prints"]),
        (("hello", "--debug-exit", "0x92"), 125, ["--debug-exit 0x92: is the port of another device (such as 0x501)"]),
        (("hello", "--debug-exit", "0x40"), 125, ["--debug-exit 0x40: is the port of another device"]),
        (("hello", "--debug-exit", "0x3d4", "--screen"), 125, ["--debug-exit 0x3d4: is the port of another device"]),
        (("hello", "--debug-exit", "exit"), 125, ["--debug-exit exit: is no port"]),
        (("no-such-guest",), 127, ["no-such-guest", "No such file"]),
        (("helo",), 127, ["kernel helo: No such file", "(did you mean the guest hello? kvm-boot --list)"]),
        (("/",), 126, ["/", "is a directory"]),
        (("multiboot", "--initrd", "/nowhere,x"), 125, ["--initrd /nowhere,x: /nowhere: No such file or directory"]),
        (("hello", "--mode", "unreal"), 125, ["--mode unreal", "real, protected"]),
        (("hello", "--load-address", "here"), 125, ["--load-address here", "0x100000"]),
        (("hello", "--entry", "0x200000"), 125, ["--entry 0x200000", "memory"]),
        (("hello", "--memory", "0"), 125, ["--memory 0"]),
        (("hello", "--cpus", "2"), 125, ["--cpus 2", "--irqchip"]),
        (("hello", "--timeout", "never"), 125, ["--timeout never"]),
        (("hello", "--max-exits", "0"), 125, ["--max-exits 0"]),
        (("hello", "--step=0"), 125, ["--step 0"]),
        (("hello", "--serial", "/no/such/file"), 125, ["--serial /no/such/file", "no directory /no/such"]),
        (("hello", "--meta", "/"), 125, ["--meta /", "directory"]),
        (("hello", "--explain=text"), 125, ["--explain text", "json:FILE"]),
        (("hello", "--dump-memory", "0x1000"), 125, ["--dump-memory 0x1000", "ADDRESS:BYTES"]),
        (("hello", "--initrd", "file"), 125, ["--initrd file", "Linux"]),
    ],
)
def test_mistakes_are_one_line(boot: Boot, words: tuple[str, ...], code: int, says: list[str]) -> None:
    refusal(boot(*words), code, says)


def test_a_kernel_that_gzip_has_packed_is_unpacked(boot: Boot, tmp_path: Path) -> None:
    """If its format is known: else nobody says that it is one, and 1f 8b is ``pop ds; mov``."""
    for name in ("hello64", "hello"):
        with open(guests.path(name), "rb") as guest:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(guest.read()))
    done = boot(tmp_path / "hello64.gz")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello from long mode.\n", "")
    refusal(boot(tmp_path / "hello.gz"), 126, [f"kernel {tmp_path}/hello.gz: is packed by gzip (gunzip)"])


def test_a_bzimage_whose_last_paragraph_is_not_full(boot: Boot, write: Callable[[bytes], Path]) -> None:
    """As memtest86+ is made: its size in paragraphs of 16 bytes is rounded up, and it has no payload to unpack."""
    code = b"\x66\xba\xf8\x03\xb0M\xee\xb0\x0a\xee\xfa\xf4"  # mov dx, 0x3f8; M, newline; cli; hlt
    image = bytearray(k.bzimage())
    at = k.SETUP_SIZE + setup.ENTRY_64
    image[at : at + len(code)] = code
    done = boot(write(bytes(image[:-8])))
    assert (done.returncode, done.stdout, done.stderr) == (0, "M\n", "")


def test_where_a_flat_binary_goes_and_is_entered(boot: Boot, write: Callable[[bytes], Path]) -> None:
    """inc ax; out 0xf4, al (32 bits: inc eax): the first byte is left out by --entry."""
    code = write(b"\x40\xe6\xf4")
    assert boot(code).returncode == 1
    assert boot(code, "--load-address", "0x4000", "--entry", "0x4001").returncode == 0
    assert boot(code, "--mode", "protected").returncode == 1
    dump = boot(code, "--load-address", "20480", "--dump-memory", "0x5000:3", "--dump-registers")
    assert "00005000  40 e6 f4" in dump.stderr
    assert re.search(r"rip 000000000000500[13]\b", dump.stderr)


# ---- what is told


def test_explain(boot: Boot) -> None:
    done = boot("hello", "--explain")
    assert (done.returncode, done.stdout) == (0, HELLO)
    calls = ["open(/dev/kvm", "KVM_CREATE_VM()", "KVM_SET_USER_MEMORY_REGION(slot 0", "KVM_CREATE_VCPU()"]
    calls += ["KVM_SET_SREGS()", "KVM_SET_REGS()", "KVM_RUN: io out 0x3f8 1 byte: 48 'H'", "KVM_RUN: hlt"]
    places = [done.stderr.index(call) for call in calls]
    assert places == sorted(places)
    assert re.search(r"^first guest instruction after \d+\.\d us$", done.stderr, re.MULTILINE)


def test_explain_as_json(boot: Boot, tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    done = boot(f"--explain=json:{file}", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, HELLO, "")
    events = json.loads(file.read_text(encoding="utf-8"))
    assert next(e["call"] for e in events if e["side"] == "cpu0") == "KVM_RUN: io out 0x3f8 1 byte: 48 'H'"
    assert [e["at_us"] for e in events] == sorted(e["at_us"] for e in events)
    assert all(e["error"] is None for e in events)


TRACED = re.compile(r"^ *(\d+) cpu0 +[\d.]+ us +[\d.]+ in guest  rip 0x[\da-f]+  (\w+)(?: (.*))?$")


@pytest.mark.parametrize("to_file", [False, True])
def test_trace(boot: Boot, tmp_path: Path, to_file: bool) -> None:
    file = tmp_path / "trace"
    done = boot("hello", f"--trace={file}" if to_file else "--trace")
    assert (done.returncode, done.stdout) == (0, HELLO)
    text = file.read_text(encoding="utf-8") if to_file else done.stderr
    assert done.stderr == ("" if to_file else text)
    lines = [match.groups() for match in map(TRACED.match, text.splitlines()) if match]
    assert len(lines) == len(text.splitlines()) == len(HELLO) + 1
    assert [int(number) for number, *_ in lines] == list(range(1, len(lines) + 1))
    assert lines[0][1:] == ("io", "out 0x3f8 1 byte: 48 'H'")
    assert lines[-1][1:] == ("hlt", None)


def test_stats(boot: Boot) -> None:
    done = boot("hello", "--stats")
    rows = {
        m[1]: int(m[2]) for m in re.finditer(r"^(\S+(?: 0x\w+)?) +(\d+) +[\d.]+ +[\d.]+$", done.stderr, re.MULTILINE)
    }
    assert rows == {"io": len(HELLO), "hlt": 1, "port 0x3f8": len(HELLO)}
    assert re.search(r"^ran [\d.]+ ms, [\d.]+ ms of it in KVM_RUN$", done.stderr, re.MULTILINE)


def test_steps(boot: Boot, write: Callable[[bytes], Path]) -> None:
    code = write(b"\x40\x43\x90\xf4")  # inc ax; inc bx; nop; hlt
    lines = boot(code, "--step").stderr.splitlines()
    assert [line.split()[0] for line in lines] == [f"{rip:#010x}" for rip in (0x1000, 0x1001, 0x1002, 0x1003)]
    assert [re.findall(r"\b(?:rax|rbx)=(\w+)", line) for line in lines] == [
        ["0", "0"],
        ["1", "0"],
        ["1", "1"],
        ["1", "1"],
    ]
    done = boot(code, "--step=2")
    assert (done.returncode, done.stderr.splitlines()) == (0, lines[:2])


def test_dumps(boot: Boot, write: Callable[[bytes], Path]) -> None:
    done = boot(
        write(b"\xb8\x34\x12\xf4 a dump"), "--dump-registers", "--dump-memory", "0x1000:20", "--dump-memory", "0:1"
    )
    lines = done.stderr.splitlines()
    assert "   rax 0000000000001234" in lines[0]
    assert lines[-3:] == [
        "00001000  b8 34 12 f4 20 61 20 64 75 6d 70 00 00 00 00 00  |.4.. a dump.....|",
        f"00001010  {'00 00 00 00':47}  |....|",
        f"00000000  {'00':47}  |.|",
    ]


def test_json(boot: Boot, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = boot("triple-fault", "--stats", "--meta", file)
    assert done.returncode == 121
    data = json.loads(file.read_text(encoding="utf-8"))
    assert (data["reason"], data["returncode"], data["exits"]["shutdown"]["count"]) == ("triple-fault", 121, 1)
    assert data["kernel"] == guests.path("triple-fault")
    assert int(data["registers"]["rip"], 16) > 0x1000
    assert 0 < data["guest_time"] <= data["walltime"]


def test_serial(boot: Boot, tmp_path: Path) -> None:
    file = tmp_path / "said"
    for word, stdout in (("stdio", HELLO), ("none", ""), (str(file), "")):
        done = boot("hello", "--serial", word)
        assert (done.returncode, done.stdout, done.stderr) == (0, stdout, "")
    assert file.read_text(encoding="utf-8") == HELLO


# ---- streams


def test_what_a_pipe_holds_is_typed(boot: Boot) -> None:
    """All of it, though the guest has place for less at a time; and its end ends nothing."""
    text = "x" * 6000
    done = boot("echo", "--timeout", "120", input=f"{text}\x04", timeout=130)
    assert (done.returncode, done.stdout) == (0, GREETING.replace("\r\n", "\n") + text)


def test_a_reader_that_ends_ends_it(boot: Boot) -> None:
    command = [*CLI, "kvm-boot", "flood", "--timeout", "60"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{FLOOD}\n".encode()
        process.stdout.close()
        assert process.wait(60) != 124


def test_a_full_disk_is_reported(boot: Boot) -> None:
    with open("/dev/full", "wb") as full:
        done = boot("flood", "--timeout", "60", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125
    assert "No space left on device" in done.stderr


def test_a_closed_pipe_of_input_is_no_end(boot: Boot) -> None:
    assert boot("hello", stdin=subprocess.DEVNULL).returncode == 0


def test_ctrl_c_ends_it_with_a_code_of_its_own() -> None:
    command = [*HEEDING, *CLI, "kvm-boot", "flood"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read().decode()
        assert process.wait(60) == 130
    assert re.fullmatch(r"minicontainer: kernel flood: interrupted, rip 0x\w+\n", said)


# ---- at a terminal


@pytest.fixture
def echo() -> Iterator[Session]:
    """The guest that sends back what is typed, at a terminal, after its greeting."""
    with session("kvm-boot", "echo") as opened:
        opened.expect(WELCOME)
        opened.expect(r"Ctrl-D ends\.\r+\n")
        assert opened.is_raw()
        yield opened


def is_as_before(opened: Session, before: list[object]) -> bool:
    return opened.attributes() == before


def before_it() -> list[object]:
    """A new terminal's attributes."""
    with session("kvm-boot", "--list") as opened:
        opened.ends()
        return opened.attributes()


def test_what_is_typed_comes_back(echo: Session) -> None:
    echo.type("typed\r")
    echo.expect(r"typed\r+\n")
    echo.type("\x03\x1a")  # Ctrl-C and Ctrl-Z are the guest's
    echo.expect("\x03\x1a")
    echo.type("\x04")
    assert echo.ends() == 0
    assert is_as_before(echo, before_it())


def test_the_escape_helps_and_ends(echo: Session) -> None:
    echo.type("\x01h")
    echo.expect(r"Ctrl-A x +end the machine")
    echo.type("a\x01\x01b")
    echo.expect("a\x01b")
    echo.type("\x01?")
    echo.expect(r"Ctrl-A Ctrl-A +send Ctrl-A")
    echo.type("\x01x")
    assert echo.ends() == 0
    assert is_as_before(echo, before_it())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_the_terminal_is_restored_when_a_signal_ends_it(echo: Session, number: int, code: int) -> None:
    echo.process.send_signal(number)
    assert echo.ends() == code
    assert is_as_before(echo, before_it())


@pytest.mark.parametrize(
    ("words", "code"),
    [(("loop", "--timeout", "0.3"), 124), (("triple-fault",), 121), (("pio-storm", "--max-exits", "3"), 120)],
)
def test_the_terminal_is_restored_at_every_end(words: tuple[str, ...], code: int) -> None:
    with session("kvm-boot", *words) as opened:
        opened.expect(WELCOME)
        opened.expect(r"minicontainer: [^\r\n]*rip 0x\w+\r\n")
        assert opened.ends() == code
        assert is_as_before(opened, before_it())


def test_the_escape_works_on_a_guest_that_never_listens() -> None:
    with session("kvm-boot", "loop") as opened:
        opened.expect(WELCOME)
        opened.type("x" * 5000)  # more than its port has place for
        opened.type("\x01x")
        assert opened.ends() == 0


def test_the_escape_works_while_the_guest_floods() -> None:
    with session("kvm-boot", "flood") as opened:
        opened.expect("lazy dog")
        opened.type("\x01x")
        assert opened.ends() == 0


@contextmanager
def stuck() -> Iterator[tuple[Session, subprocess.Popen[bytes]]]:
    """The guest that floods, at a terminal, its output a pipe that nobody reads."""
    with session("kvm-boot", "--list") as terminal:
        terminal.ends()
        command = ["setsid", "--ctty", *HEEDING, *CLI, "kvm-boot", "flood"]
        process = subprocess.Popen(command, stdin=terminal.slave, stdout=subprocess.PIPE, stderr=terminal.slave)
        assert process.stdout is not None
        try:
            terminal.expect(WELCOME)
            until(lambda: is_blocked(process.pid))
            yield terminal, process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def is_blocked(pid: int) -> bool:
    """Whether its main thread waits in write(2) or poll(2) for the pipe."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()[0] in ("1", "7")
    return False


def test_the_escape_works_without_a_reader() -> None:
    """Keys before it are for the guest, which stands still: they may not hold it up."""
    with stuck() as (terminal, process):
        terminal.type("keys\x01x")
        assert process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_without_a_reader(number: int) -> None:
    with stuck() as (terminal, process):
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert not terminal.is_raw()


def test_it_goes_on_raw_after_a_stop(echo: Session) -> None:
    """Job control: whoever stops it and lets it go on finds a terminal that the shell has set back."""
    attributes = echo.attributes()
    echo.process.send_signal(signal.SIGSTOP)
    until(
        lambda: Path(f"/proc/{echo.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"
    )
    os.system(f"stty sane < {os.ttyname(echo.slave)}")
    assert not echo.is_raw()
    echo.process.send_signal(signal.SIGCONT)
    until(echo.is_raw)
    assert echo.attributes()[3] == attributes[3]
    echo.type("still\r")
    echo.expect("still")
