#!/usr/bin/env python3
"""The rig: runs a command on a real kernel in a throw-away virtual machine, over this machine's own files.

    tests/rig/vm.py [OPTIONS] -- COMMAND [ARGUMENT...]

Theory of operation. QEMU emulates the whole processor (TCG, with AMD's SVM), so that neither /dev/kvm nor privilege is
needed here. The guest boots a Debian kernel (boot.py), and its root is the host's: shared read-only over 9p, with an
overlay on a tmpfs above, so that writes vanish (init.sh). It has pure cgroup v2 with every controller, /dev/kvm, tun,
fuse, nft, an ext4 disk at $RIG_DISK, kernels to boot inside in $RIG_GUESTS, a user `rig` (uid 1000), a TMPDIR that can
be an overlay's upper directory, and no network but lo (setup.sh). $RIG is 1 there.

The command runs as root, in the current directory and with the caller's environment (what PASSED names). Guest and host
talk through a directory of the host, shared over 9p: job and settings go in; output comes out as growing files that are
copied on while the VM runs, and at last its exit status. That is also ours; 124 if the time was over, and 125 if the
rig could not start or the guest died (what its console said last is then on stderr).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import BinaryIO

from boot import HERE, Boot, prepare, tool
from packages import RigError

TIMED_OUT, BROKEN = 124, 125
BOOT, BOOTS = 120, 3  # seconds for a boot (8 where nothing else runs), and how many are tried
PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TERM|COLUMNS|VIRTUAL_ENV|PYENV_\w+|(PYTHON|PYTEST|MINICONTAINER|HYPOTHESIS)\w*"
)
APPEND = (
    "console=ttyS0 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests 8250.nr_uarts=1 "
    "cgroup_no_v1=all panic=-1 oops=panic net.ifnames=0"
)


@dataclass(frozen=True)
class Job:
    """What to run, and in which machine. ``memory`` in MiB, ``timeout`` and ``silence`` (without output) in seconds."""

    command: Sequence[str]
    memory: int = 2048
    cpus: int = field(default_factory=lambda: min(len(os.sched_getaffinity(0)), 4))
    timeout: float = 600
    silence: float = inf
    output: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    modules: Sequence[str] = ()
    verbose: bool = False
    time: bool = False


def run(job: Job, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None) -> int:
    """Runs the job in a VM of its own; its output goes to these files as it comes. RigError if that cannot be."""
    boot = prepare()
    if job.output is not None:
        job.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rig-") as directory:
        control = Path(directory)
        _write_control(control, job, boot)
        out, err = stdout or sys.stdout.buffer, stderr or sys.stderr.buffer
        streams = [Stream(control / "out", out), Stream(control / "err", err)]
        if job.verbose:
            streams.append(Stream(control / "console", err))
        started = time.monotonic()
        in_time = _run_machine(_qemu(control, job, boot), control, started + job.timeout, streams, job.silence)
        return _result(control, job, in_time, time.monotonic() - started)


class Stream:
    """A file that the guest appends to, and where it is copied."""

    def __init__(self, path: Path, sink: BinaryIO) -> None:
        path.touch()
        self.path, self.sink, self.offset, self.heard = path, sink, 0, time.monotonic()

    def copy(self) -> None:
        with open(self.path, "rb") as source:
            source.seek(self.offset)
            while chunk := source.read(1 << 16):
                self.offset += len(chunk)
                self.sink.write(chunk)
                self.heard = time.monotonic()
        self.sink.flush()


# ---- what the guest is told


def _write_control(control: Path, job: Job, boot: Boot) -> None:
    (control / "setup.sh").write_bytes((HERE / "setup.sh").read_bytes())
    settings = {
        "release": boot.release,
        "modules": str(boot.modules),
        "output": str(job.output.resolve()) if job.output else "",
        "extra": " ".join(job.modules),
        "reach": shlex.join(_closed_directories()) or "/",
    }
    (control / "config").write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()), encoding="utf-8")
    lines = [f"export {name}={shlex.quote(value)}" for name, value in _environment(job, boot).items()]
    lines += [f"cd {shlex.quote(os.getcwd())} || exit {BROKEN}", "exec " + shlex.join(job.command)]
    (control / "job").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")


def _environment(job: Job, boot: Boot) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    passed["PATH"] = passed.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    own = {"RIG": "1", "RIG_DISK": "/run/disk", "RIG_GUESTS": str(boot.guests), "TMPDIR": "/run/disk/tmp"}
    if job.output is not None:
        own["RIG_OUTPUT"] = str(job.output.resolve())
    return {**passed, **own, **job.env}


def _closed_directories() -> list[str]:
    """Directories on the way to the tree and to Python that an ordinary user may not enter."""
    goals = {Path.cwd(), Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent}
    on_the_way = {directory for goal in goals for directory in (goal, *goal.parents)}
    return sorted(str(directory) for directory in on_the_way if directory.stat().st_mode & 0o005 != 0o005)


# ---- the machine


def _qemu(control: Path, job: Job, boot: Boot) -> list[str]:
    """The command line. setpriv: QEMU dies with us; prlimit: 9p holds a descriptor for each open file."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 65536 if limit == resource.RLIM_INFINITY else min(limit, 65536)
    loglevel = "loglevel=7" if job.verbose else "quiet"
    return [
        *(tool("setpriv"), "--pdeathsig", "KILL", tool("prlimit"), f"--nofile={files}:{files}"),
        *(tool("qemu-system-x86_64"), "-name", "rig", "-accel", "tcg,thread=multi", "-cpu", "max,+svm"),
        *("-M", "q35,smm=off,hpet=off,vmport=off,sata=off,smbus=off"),
        *("-smp", str(job.cpus), "-m", str(job.memory), "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0x501,iosize=1"),
        *("-chardev", f"file,id=console,path={_escape(control / 'console')}", "-serial", "chardev:console"),
        *("-kernel", str(boot.image), "-initrd", str(boot.initrd)),
        *("-append", f"{APPEND} {loglevel} rig.writes={job.memory // 2}"),
        *("-drive", f"if=none,id=disk,format=raw,snapshot=on,cache=unsafe,file={_escape(boot.disk)}"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *_share("rigroot", Path("/"), "readonly=on,multidevs=remap"),
        *_share("rigctl", control, "multidevs=forbid"),
        *(_share("rigout", job.output.resolve(), "multidevs=remap") if job.output else ()),
    ]


def _share(tag: str, path: Path, options: str) -> tuple[str, ...]:
    source = f"local,id={tag},path={_escape(path)},security_model=none,{options}"
    return ("-fsdev", source, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}")


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")


def _run_machine(
    command: list[str], control: Path, deadline: float, streams: list[Stream], silence: float = inf
) -> bool:
    """Runs QEMU to its end, copying what the guest writes; False if it had to be killed when the time was over, or when
    the command had said nothing for ``silence`` seconds.

    A boot that takes too long is given up, reported, and started again: beside another one, an emulated machine was
    once not ready after 200 seconds."""
    for boot in range(1, BOOTS + 1):
        with open(control / "qemu", "wb") as log:
            qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        give_up, begun = (min(deadline, time.monotonic() + BOOT) if boot < BOOTS else deadline), 0.0
        try:
            while qemu.poll() is None and time.monotonic() < give_up:
                for stream in streams:
                    stream.copy()
                if (control / "booted").exists():
                    begun = begun or time.monotonic()
                    give_up = min(deadline, max(begun, *(stream.heard for stream in streams)) + silence)
                time.sleep(0.02)
            in_time = qemu.poll() is not None
        finally:
            qemu.kill()
            qemu.wait()
        for stream in streams:
            stream.copy()
        if in_time or (control / "booted").exists() or time.monotonic() >= deadline:
            break
        print(f"rig: not booted after {BOOT} s, started again", file=sys.stderr, flush=True)
    return in_time


def _result(control: Path, job: Job, in_time: bool, seconds: float) -> int:
    """The exit status of the job, from what the machine left."""
    try:
        status, begun, ended = (control / "status").read_text(encoding="ascii").split()
    except FileNotFoundError:
        if not in_time:
            when = "" if (control / "booted").exists() else ", before the command was started"
            late = seconds >= job.timeout
            why = f"timeout after {job.timeout:g} s{when}" if late else f"nothing was said for {job.silence:g} s"
            print(f"rig: {why}", file=sys.stderr)
            return TIMED_OUT
        said = (control / "qemu").read_text(errors="replace") + (control / "console").read_text(errors="replace")
        raise RigError("the VM ended without a result\n" + "\n".join(said.splitlines()[-60:])) from None
    if job.time:
        times = f"boot {float(begun):.2f} s, command {float(ended) - float(begun):.2f} s, total {seconds:.2f} s"
        print(f"rig: {times}", file=sys.stderr)
    return int(status)


# ---- the command line


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vm.py",
        usage="%(prog)s [OPTIONS] -- COMMAND [ARGUMENT...]",
        description="Runs a command on a real kernel in a throw-away virtual machine, over this machine's own files.",
        epilog="Exit status: the command's; 124 timeout; 125 the rig could not start, or the guest died.",
    )
    add = parser.add_argument
    add("--memory", type=int, default=Job.memory, metavar="MIB", help="of the guest (default %(default)s)")
    add("--cpus", type=int, metavar="N", help="virtual processors (default: as many as here, at most 4)")
    add("--timeout", type=float, default=Job.timeout, metavar="SECONDS", help="default %(default)s")
    add("--silence", type=float, default=inf, metavar="SECONDS", help="give up a command that says nothing for so long")
    add("--output", type=Path, metavar="DIR", help="made here, and writable in the guest at the same path")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]", help="one more variable for the command")
    add("--module", action="append", default=[], metavar="NAME", help="one more kernel module")
    add("--verbose", action="store_true", help="the kernel's console on stderr")
    add("--time", action="store_true", help="how long booting, the command and all took, on stderr")
    add("--prepare", action="store_true", help="only fill the cache")
    add("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command and not options.prepare:
        parser.error("no command")
    return options


def _job(options: argparse.Namespace) -> Job:
    env = {}
    for item in options.env:
        name, equals, value = item.partition("=")
        if equals or name in os.environ:
            env[name] = value if equals else os.environ[name]
    chosen = {"cpus": options.cpus} if options.cpus else {}
    return Job(
        command=options.command,
        memory=options.memory,
        timeout=options.timeout,
        silence=options.silence,
        output=options.output,
        env=env,
        modules=options.module,
        verbose=options.verbose,
        time=options.time,
        **chosen,
    )


def _terminated(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)
    try:
        if options.prepare:
            prepare()
            return 0
        return run(_job(options))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return 128 + signal.SIGPIPE
    except (RigError, OSError) as error:
        print(f"rig: {error}", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
