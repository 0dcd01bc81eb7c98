"""``compare microvm``: its contenders. It boots nothing here; figures come from the command itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kernels as k
import linuxes
import pytest

from minicontainer.compare import krunpeers, machinememory, microvm, targets
from minicontainer.compare.linux import MARK, QEMU, Marked
from minicontainer.errors import SpecError
from minicontainer.microvm import store

pytestmark = pytest.mark.needs("root")


def test_each_contender_is_a_command_that_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microvm, "MAKER", "sh")  # it is not executed here
    commands = microvm._commands("/boot/vmlinuz", str(tmp_path), "256M")
    assert {*commands, QEMU, microvm.COMPILED, *krunpeers.NAMES, microvm.MEMORY} == set(microvm.NAMES)
    assert len(list((tmp_path / "root/small").iterdir())) == 1000
    for name in set(commands) - {QEMU}:
        at = commands[name].index("run") + 1
        words = [*commands[name][:at], "--dry-run", *commands[name][at:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert ("MC_VMM" in done.stdout or "vmm" in done.stdout) == ("kvm" in commands[name])


def test_what_cannot_be_measured_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microvm, "MAKER", "no-such-tool")
    assert microvm.IMAGE_FILES not in microvm._commands("/boot/vmlinuz", str(tmp_path), "256M")
    assert "erofs-utils" in microvm.UNABLE[microvm.IMAGE_FILES]


# ---- libkrun


LIBKRUN = r"""
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/types.h>

int krun_create_ctx(void) { return 7; }
int krun_set_vm_config(uint32_t c, uint8_t n, uint32_t mib) { return printf("config %u %u %u\n", c, n, mib) < 0; }
int krun_add_virtiofs3(uint32_t c, const char *tag, const char *path, uint64_t shm, _Bool read_only)
{
    return printf("fs %u %s %s %d %d\n", c, tag, path, (int)shm, read_only) < 0;
}
int krun_add_virtio_console_default(uint32_t c, int i, int o, int e) { return printf("hvc %d %d %d\n", i, o, e) < 0; }
int krun_add_serial_console_default(uint32_t c, int i, int o) { return printf("serial %d %d\n", i, o) < 0; }
int krun_set_exec(uint32_t c, const char *program, char *const argv[], char *const envp[])
{
    return printf("exec %s %d %d\n", program, !argv[0], !envp[0]) < 0;
}
int krun_set_kernel(uint32_t c, const char *image, uint32_t format, const char *initrd, const char *words)
{
    return printf("kernel %s %u %s %s\n", image, format, initrd, words) < 0;
}
int krun_start_enter(uint32_t c)
{
    puts("minicontainer: init");
    fflush(stdout);
    return FAILS ? -22 : (int)pause();
}
"""


def library(at: Path, *, fails: int = 0) -> str:
    """What stands for libkrun: it tells how it is called, and then as a machine's program does."""
    target = at / "libkrun.so"
    command = ["gcc", "-shared", "-fPIC", f"-DFAILS={fails}", "-x", "c", "-", "-o", str(target)]
    subprocess.run(command, input=LIBKRUN, text=True, check=True)
    return str(target)


def test_a_machine_of_libkrun_is_killed_once_it_has_begun(tmp_path: Path) -> None:
    contender = Marked("libkrun", krunpeers.own_kernel(library(tmp_path), 256, "/root", "/mark"), ends=False)
    assert contender.parts == ("init",)
    (took,) = contender.once()
    assert took > 0


@pytest.mark.parametrize("kernel", [(), ("/vmlinux", "/initrd", "quiet")])
def test_libkrun_is_told_what_ours_is(tmp_path: Path, kernel: tuple[str, ...]) -> None:
    command = [*krunpeers.own_kernel(library(tmp_path, fails=1), 256, "/root", "/mark"), *kernel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with_own = ["hvc 0 1 2", "exec /mark 1 1"]
    with_other = ["kernel /vmlinux 1 /initrd quiet", "serial 0 1"]
    begin = ["config 7 1 256", "fs 7 /dev/root /root 0 0"]
    assert done.stdout.splitlines() == [*begin, *(with_other if kernel else with_own), MARK.decode()]
    assert (done.returncode, done.stderr) == (1, "krun_start_enter: Invalid argument\n")


def test_a_library_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"libkrunfw.so.5 cannot be read"):
        krunpeers.check(library(tmp_path))
    with pytest.raises(SpecError, match=r"none.so cannot be read"):
        krunpeers.check(str(tmp_path / "none.so"))


def test_a_kernel_that_is_registered_for_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir(0o700)
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "state"))
    image = k.CODE.ljust(0x200, b"\x90") + linuxes.banner("6.12.9") + b"\0".join(linuxes.WHOLE)
    linuxes.libkrunfw(tmp_path / krunpeers.BUNDLE, image=image)
    with krunpeers.registered(str(tmp_path / "libkrun.so")) as entry:
        assert [each.name for each in store.registered()] == [entry.name]
    assert store.registered() == []


# ---- memory


def test_memory_is_counted_without_a_guests() -> None:
    """Of this process's child, which has touched 64 MiB in one mapping."""
    code = "import mmap; m = mmap.mmap(-1, 64 << 20); m[:] = bytes(64 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in machinememory.tree(os.getpid())
        beside = machinememory.beside_guest(child.pid, 64 << 20)
        whole = machinememory.beside_guest(child.pid, 1 << 40)
        child.communicate(b"\n")
    assert whole - beside >= 64 << 20
    assert beside > 0


def test_a_figure_is_within_its_limit_or_not() -> None:
    limits = (targets.Limit("a, MiB", 12.0), targets.Limit("b, MiB", 1.0), targets.Limit("c, MiB", 1.0))
    judged = targets.within(limits, {"a, MiB": 12.0, "b, MiB": 1.5})
    assert targets.lines(judged) == [
        "kept: a, MiB 12.00 (at most 12.00)",
        "MISSED: b, MiB 1.50 (at most 1.00)",
        "not measured: c, MiB (at most 1.00)",
    ]
