"""Stock Linux, Debian's cloud kernel as it is, in a machine of ours: two processors, initrd, shell, poweroff, reboot,
gdb.

Each boot takes some seconds: the rig's own processor is emulated, and the guest's by that.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from box import CLI
from ptys import session

from minicontainer.cpio import newc
from minicontainer.kvm import Machine

pytestmark = [pytest.mark.needs("rig", "kvm-hardware"), pytest.mark.timeout(150)]

# What spares an emulated processor time (none of it changes what is tested).
QUICK = "console=ttyS0 mitigations=off tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on quiet panic=-1"
BOOT = 100.0
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
{body}
"""
FACTS = """echo processors: $(/bin/busybox grep -c ^processor /proc/cpuinfo)
echo apicids: $(/bin/busybox sed -n 's/^apicid.*: //p' /proc/cpuinfo)
echo kib: $(/bin/busybox sed -n 's/MemTotal: *//p' /proc/meminfo)
echo line: $(/bin/busybox cat /proc/cmdline)
echo interrupts: $(/bin/busybox grep -c ttyS0 /proc/interrupts)
/bin/busybox {end} -f
"""
SHELL = "exec /bin/busybox setsid /bin/busybox cttyhack /bin/busybox sh"


@pytest.fixture
def linux() -> str:
    return os.environ["RIG_GUESTS"] + "/vmlinuz"


def initrd(directory: Path, body: str) -> str:
    busybox = shutil.which("busybox")
    assert busybox
    files = {"bin/busybox": Path(busybox).read_bytes(), "init": INIT.format(body=body).encode()}
    path = directory / "initrd"
    path.write_bytes(newc(["bin", "proc", "dev"], files))
    return str(path)


def test_two_processors_an_initrd_and_poweroff(linux: str, tmp_path: Path) -> None:
    with Machine(memory="256M", cpus=2) as m:
        entry = m.load(linux, initrd=initrd(tmp_path, FACTS.format(end="poweroff")), append=f"{QUICK} word=1")
        result = m.run(timeout=BOOT)
    said = result.output.decode()
    assert entry.kind == "pvh", "the payload was not unpacked"
    assert result.reason == "poweroff", (result.detail, said[-2000:])
    assert result.returncode == 0
    assert "processors: 2\r\n" in said
    assert "apicids: 0 1\r\n" in said
    assert f"line: {QUICK} word=1\r\n" in said
    kib = re.search(r"kib: (\d+) kB", said)
    assert kib
    assert 180_000 < int(kib[1]) < 256 * 1024


def test_the_64_bit_protocol_and_reboot(linux: str, tmp_path: Path) -> None:
    with Machine(memory="256M") as m:
        entry = m.load(
            linux, mode="linux", initrd=initrd(tmp_path, FACTS.format(end="reboot")), append=f"{QUICK} reboot=t"
        )
        result = m.run(timeout=BOOT)
    assert entry.kind == "bzimage"
    assert "processors: 1\r\n" in result.output.decode()
    assert result.reason == "triple-fault", "reboot=t is a triple fault"


@pytest.mark.parametrize("way", ["", "reboot=k", "reboot=acpi", "reboot=bios"])
def test_reboot_is_an_end_without_an_error(linux: str, way: str) -> None:
    """Without a root file system the kernel panics, and restarts at once (panic=-1)."""
    command = [*CLI, "kvm-boot", linux, "--memory", "128M", "--append", f"{QUICK} {way}", "--timeout", str(BOOT)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "Unable to mount root fs" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shell_on_the_serial_line(linux: str, tmp_path: Path) -> None:
    words = ["kvm-boot", linux, "--memory", "256M", "--initrd", initrd(tmp_path, SHELL), "--append", QUICK]
    with session(*words) as s:
        before = s.attributes()
        s.expect("Ctrl-A x ends the machine")
        s.expect("~ # |/ # ", BOOT)
        assert s.is_raw()
        s.type("echo $((6 * 7)) in $(/bin/busybox uname -s)\r")
        s.expect("42 in Linux\r+\n", BOOT)
        s.type("/bin/busybox cat\r")
        s.type("typed \x01\x01 and")
        s.type(" ended\r")
        s.expect("typed \x01 and ended\r+\n", BOOT)
        s.type("\x03")
        s.expect("# ", BOOT)
        s.type("/bin/busybox poweroff -f\r")
        assert s.ends(BOOT) == 0
        assert s.attributes() == before


def test_the_comparison_boots_it_under_both(linux: str, tmp_path: Path) -> None:
    """No figure is asserted."""
    target = tmp_path / "figures.json"
    other = tmp_path / "minicontainer"
    other.write_text(f'#!/bin/sh\nexec {shlex.join(CLI)} "$@"\n', encoding="utf-8")
    other.chmod(0o755)
    names = ("kvm-boot", "qemu-microvm", "against")
    chosen = [word for name in names for word in ("--only", name)]
    words = ["compare", "linux", linux, "-n", "1", *chosen, "--against", other, "--meta", target]
    done = subprocess.run([*CLI, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kvm-boot / qemu-microvm: " in done.stdout
    assert re.search(r"^(kept|MISSED): kvm-boot / against [0-9.]+ \(at most 0.40\)$", done.stdout, re.M)
    samples = json.loads(target.read_text(encoding="utf-8"))["samples_ns"]
    for name in names:
        (init,), (total,) = samples["init"][name], samples["total"][name]
        assert 0 < init < total


def test_gdb_looks_into_linux(linux: str, tmp_path: Path) -> None:
    """It attaches before the first instruction, steps one, and lets the kernel go to its end."""
    words = [
        "kvm-boot",
        linux,
        "--memory",
        "256M",
        "--gdb",
        "127.0.0.1:4321",
        "--timeout",
        str(BOOT),
        "--append",
        QUICK,
    ]
    words += ["--initrd", initrd(tmp_path, FACTS.format(end="poweroff"))]
    machine = subprocess.Popen([*CLI, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert machine.stderr is not None
    try:
        assert b"gdb is awaited" in machine.stderr.readline()
        script = ["set confirm off", "set pagination off", "set tcp auto-retry on", "target remote 127.0.0.1:4321"]
        script += ["print/x $pc", "stepi", "print/x $pc", "continue"]
        asked = [word for line in script for word in ("-ex", line)]
        gdb = subprocess.run(
            ["gdb", "-nx", "-batch", *asked], capture_output=True, text=True, timeout=BOOT, check=False
        )
        out, err = machine.communicate(timeout=BOOT)
    finally:
        machine.kill()
        machine.wait()
    places = re.findall(r"^\$\d = (0x[0-9a-f]+)", gdb.stdout, re.MULTILINE)
    assert len(set(places)) == 2, gdb.stdout + gdb.stderr
    assert "exited normally" in gdb.stdout, gdb.stdout + gdb.stderr
    assert b"processors: 1\r\n" in out
    assert (machine.returncode, err) == (0, b"")
