"""Guests, files and surroundings that mean no good: each is an end that is documented, or one line; what they take is
bounded, and nothing is left of them. (test_kvm_ends.py has the exit codes, test_kvm_bad_kernels.py the files.)"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kernels as k
import pytest
from box import CLI, Done, refusal, until
from supplies import Run

from minicontainer import light
from minicontainer.errors import Error, SpecError, StepError, UnsupportedError
from minicontainer.kvm import Access, KernelError, Machine, Vm, guests
from minicontainer.kvm.result import CODES

pytestmark = pytest.mark.needs("kvm")

START = 0x1000
PATIENCE = 60.0  # seconds; the rig is slow
PEAK = 96 << 10  # KiB of memory that a command may take, of which the interpreter has a third
HELLO = b"Hello from real mode.\n"


def machine(code: bytes, **options: Any) -> Machine:
    """One that is about to execute the code in real mode."""
    made = Machine(**options)
    made.memory.write(START, code)
    made.enter(START)
    return made


# ---- whatever a guest does


@pytest.mark.parametrize("mode", ["real", "protected", "long", "user64"])
def test_any_code_ends_in_a_way_that_is_documented(mode: str) -> None:
    """Random bytes: whatever they do to ports, memory and processor state, it can be told, and done once more."""
    place = START if mode == "real" else 0x10000
    for seed in range(12):
        rng = random.Random(f"{mode} {seed}")
        with Machine("1M", irqchip=seed == 0) as m:
            m.memory.write(place, rng.randbytes(rng.choice([8, 64, 1024])))
            m.enter(place, mode)
            for _ in range(2):
                result = m.run(timeout=0.05, max_exits=300)
                assert result.reason in CODES
                assert result.detail.isprintable()
                assert sum(count.count for count in result.exits.values()) <= 602
                result.as_dict()


def test_accesses_without_a_device() -> None:
    """All ports are read; and a byte of every MiB from the end of memory to 4 GiB is read and written."""
    with machine(b"\x31\xd2\xec\x42\x75\xfc\xf4") as m:  # xor dx, dx; 1: in al, dx; inc dx; jnz 1b; hlt
        result = m.run(timeout=PATIENCE)
    assert (result.reason, result.exits["io"].count) == ("halt", 65536)
    walk = b"\xbb\0\0\x20\0\x8a\x03\x88\x03\x81\xc3\0\0\x10\0\x75\xf4\xf4"
    with Machine("2M") as m:  # mov ebx, 2 MiB; 1: mov al, [ebx]; mov [ebx], al; add ebx, 1 MiB; jnz 1b; hlt
        m.memory.write(0x10000, walk)
        m.enter(0x10000, "protected")
        result = m.run(timeout=PATIENCE)
    assert (result.reason, result.registers["rbx"]) == ("halt", 0)
    assert result.exits["mmio"].count == 2 * (4096 - 2)


def test_retained_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicontainer.kvm.serial.OUTPUT_MAX", 200)
    with Machine() as m:
        m.load(guests.path("flood"))
        result = m.run(timeout=PATIENCE, max_exits=1000)
    assert (len(result.output), result.output_lost >= 800) == (200, True)
    assert b"lazy dog; and again" in result.output


def test_unread_output_is_bounded() -> None:
    with machine(b"\xeb\xfe") as m:  # a loop
        m.start()
        taken = [m.serial.input(b"x" * 100_000) for _ in range(3)]
        assert m.run(timeout=0.05).reason == "timeout"
    assert 0 < taken[0] < 100_000
    assert taken[1:] == [0, 0]


# ---- what is left


def held() -> tuple[int, int, int]:
    """Descriptors, threads, mappings of KVM."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), maps.count("kvm-vcpu")


def resident() -> int:
    """KiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4


def refused() -> None:
    with Machine() as m, pytest.raises(KernelError):
        m.load("/dev/null")
    with pytest.raises(SpecError):
        Machine("2M", 255)
    with machine(b"\xe4\x03") as m:  # in al, 3
        m.port(3)(fails)
        with pytest.raises(LookupError):
            m.run(timeout=PATIENCE)


def fails(access: Access) -> int:
    raise LookupError(access.address)


def said(name: str, **options: Any) -> bytes:
    with Machine(**options) as m:
        m.load(guests.path(name))
        return m.run(timeout=PATIENCE).output


def test_nothing_is_left_of_two_hundred_machines() -> None:
    def some() -> None:
        assert said("hello") == HELLO
        refused()

    for _ in range(10):
        some()
    before, memory = held(), resident()
    for _ in range(95):
        some()
    for _ in range(5):
        assert said("smp").count(b"This is processor") == 2
        assert said("hello", irqchip=True, cpus=3) == HELLO
    until(lambda: held() == before)  # a thread that was joined may still be on its way out
    assert resident() < memory + (24 << 10)  # a machine's memory alone is 2 MiB, its processor's some KiB


def test_machines_in_many_threads_at_once() -> None:
    before = held()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(said, ["hello", "hello64", "hello32", "self-modifying"] * 10))
    assert outputs[:4] == [HELLO, b"Hello from long mode.\n", b"Hello from protected mode.\n", outputs[3]]
    assert outputs == outputs[:4] * 10
    until(lambda: held() == before)  # a thread that was joined may still be on its way out


def test_two_that_loop_are_ended_each_by_itself() -> None:
    """The deadline of one is not that of the other, and stopping one does not stop the other."""
    with machine(b"\xeb\xfe") as one, machine(b"\xeb\xfe") as other:
        reasons: dict[str, str] = {}

        def run(name: str, m: Machine, timeout: float) -> None:
            reasons[name] = m.run(timeout=timeout).reason

        threads = [
            threading.Thread(target=run, args=("one", one, 0.1)),
            threading.Thread(target=run, args=("other", other, PATIENCE)),
        ]
        for thread in threads:
            thread.start()
        threads[0].join()
        assert reasons == {"one": "timeout"}
        other.stop("enough")
        threads[1].join()
        assert reasons == {"one": "timeout", "other": "enough"}


# ---- a host that has not what it takes


@pytest.mark.parametrize("room", [0, 1, 2])
def test_threads_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    before = held()
    true: Callable[..., Any] = light.start_new_thread  # type: ignore[attr-defined]
    made: list[int] = []

    def start(*words: Any) -> Any:
        made.append(1)
        if len(made) > room:
            raise RuntimeError("can't start new thread")
        return true(*words)

    with Machine(cpus=3, irqchip=True) as m:
        m.load(guests.path("hello"))
        monkeypatch.setattr(light, "start_new_thread", start)
        with pytest.raises(UnsupportedError, match=r"^threads: the system gives no more of them \(ulimit -u"):
            m.run(timeout=PATIENCE)
        monkeypatch.undo()
        assert m.run(timeout=PATIENCE).reason == "halt"
    until(lambda: held() == before)  # a thread that was joined may still be on its way out


def test_no_interval_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise StepError(25, "KVM_CREATE_PIT2()")  # ENOTTY

    monkeypatch.setattr(Vm, "create_pit2", none)
    assert said("hello") == HELLO
    with pytest.raises(StepError, match=r"KVM_CREATE_PIT2.*this KVM has no interval timer; only guests with"):
        said("timer")


def test_more_processors_than_kvm_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vm, "check_extension", lambda *_: 2)
    with pytest.raises(SpecError, match=r"^cpus 3: is more than KVM gives a machine here \(2\)$"):
        said("hello", cpus=3, irqchip=True)
    assert said("hello", cpus=2, irqchip=True) == HELLO


def limited(what: int, bound: int, *words: object) -> Done:
    """The command under a limit of its caller's (setrlimit(2))."""
    return subprocess.run(
        [*CLI, "kvm-boot", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(what, (bound, bound)),
    )


def test_limits_of_the_caller_are_one_line() -> None:
    done = limited(resource.RLIMIT_AS, 500 << 20, "hello", "--memory", "1g")
    refusal(done, 125, ["--memory 1g: cannot be mapped", "ulimit -v"])
    done = limited(resource.RLIMIT_NOFILE, 5, "hello", "--serial", "none")
    refusal(done, 125, ["Too many open files"])


# ---- the command, and files that are larger than they should be


# A program that has little memory itself: what a process had before execve(2) counts as its child's (getrusage(2)).
MEASURE = """
import os, sys
pid = os.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
os.write(2, b"%d %d" % (os.waitstatus_to_exitcode(status), usage.ru_maxrss))
"""


def peak_of(*words: object, stdin: int = subprocess.DEVNULL) -> tuple[int, int]:
    """The command's exit code, and KiB of the most that it had in memory."""
    command = [sys.executable, "-ISc", MEASURE, *CLI, "kvm-boot", *map(str, words)]
    done = subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    code, peak = done.stderr.split()[-2:]
    return int(code), int(peak)


def test_sparse_files_are_not_read(tmp_path: Path) -> None:
    sparse = k.sparse(tmp_path / "sparse", 1 << 30)
    (tmp_path / "bzimage").write_bytes(k.bzimage())
    heads = [b"", b"\x7fELF\x02\x01\x01", k.changed(k.bzimage(), 0x24C, "<I", (1 << 30) - 4096)]
    for head in heads:
        k.sparse(sparse, 1 << 30, head)
        code, peak = peak_of(sparse, "--memory", "64M", "--timeout", "5")
        assert (code, peak < PEAK) == (126, True), (head[:8], peak)
    code, peak = peak_of(tmp_path / "bzimage", "--memory", "64M", "--initrd", sparse)
    assert (code, peak < PEAK) == (125, True), peak


@pytest.mark.parametrize("words", ["flood --max-exits 20000", "pio-storm --max-exits 20000", "loop --timeout 0.3"])
def test_a_guest_that_goes_on_takes_no_memory(words: str) -> None:
    for more in ("", " --stats", " --trace=/dev/null"):
        code, peak = peak_of(*(words + more).split())
        assert (code, peak < PEAK) == (120 if "exits" in words else 124, True), (words, more, peak)


def test_input_that_the_guest_never_takes_is_not_read_on() -> None:
    read, write = os.pipe()
    with subprocess.Popen(["head", "-c", "50000000", "/dev/zero"], stdout=write) as source:
        os.close(write)
        code, peak = peak_of("loop", "--timeout", "0.5", stdin=read)
        os.close(read)
        assert (code, peak < PEAK) == (124, True), peak
        assert source.wait() == -signal.SIGPIPE  # there was somebody no more to whom it could be written


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_that_are_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    """No descriptor of the machine takes their numbers."""
    redirections = " ".join(f"{fd}<&-" for fd in closed)
    script = f'exec "$@" {redirections}'
    for words, code in ((["hello"], 0), (["triple-fault"], 121), (["/nowhere"], 127), (["echo", "--timeout=0.2"], 124)):
        command = ["sh", "-c", script, "sh", *CLI, "kvm-boot", *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == (code != 0 and 2 not in closed)
        assert done.stdout == (HELLO.decode() if words == ["hello"] and 1 not in closed else done.stdout)


def test_a_full_disk_is_one_line(minicontainer_cli: Run) -> None:
    for option in ("--serial=/dev/full", "--trace=/dev/full", "--meta=/dev/full", "--explain=json:/dev/full"):
        done = minicontainer_cli("kvm-boot", "hello", option)
        assert (done.returncode, done.stdout) == (125, "" if "serial" in option else HELLO.decode())
        assert done.stderr.startswith(
            "minicontainer: write(serial output /dev/full)" if "serial" in option else "minicontainer: "
        )
        assert done.stderr.endswith("No space left on device\n")
        assert len(done.stderr.splitlines()) == 1


def test_words_that_mean_no_good(minicontainer_cli: Run) -> None:
    big = "9" * 5000
    for words in (
        ["hello", "--memory", big],
        ["hello", "--memory", "-1"],
        ["hello", "--cpus", "1e3"],
        ["hello", "--cpus", big],
        ["hello", "--timeout", "nan"],
        ["hello", "--timeout", "inf"],
        ["hello", "--max-exits", "-1"],
        ["hello", "--entry", big],
        ["hello", "--load-address", "-1"],
        ["hello", "--load-address", "0x1ffffe"],
        ["hello", "--dump-memory", f"0:{big}"],
        ["hello", "--dump-memory", "0x1fffff:2"],
        ["hello", "--mode", "line\nfeed"],
        ["hello", "--gdb", "nowhere.invalid:99999"],
        ["hello", "--step=\x1b[2J"],
        ["hello", "world"],
        ["hello", "--no-such"],
    ):
        done = minicontainer_cli("kvm-boot", *words)
        assert done.returncode in (125, 126), words
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("minicontainer: ")
        assert done.stderr[:-1].isprintable(), words
        assert done.stdout == ""


def test_a_closed_machine_says_so() -> None:
    m = machine(b"\xf4")
    m.run(timeout=PATIENCE)
    m.close()
    m.close()
    with pytest.raises(Error, match="closed"):
        m.run()
