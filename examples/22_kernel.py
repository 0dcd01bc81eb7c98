"""22. A kernel of one's own in four parts, from kernel/boot.S and kernel/kernel.c: a console, multiboot's information,
the timer's interrupt, a question. Each is compiled and booted as when it was written, and what it adds is printed.

Run: python examples/22_kernel.py     (it takes gcc). By hand, and in QEMU, whose exit code is twice ours plus 1:

    cd examples/kernel && gcc @flags -T kernel.ld boot.S kernel.c -o /tmp/kernel.elf
    minicontainer kvm-boot /tmp/kernel.elf --append 'ticks=5 hz=50 ask=1 exit=42'
    qemu-system-x86_64 -nographic -kernel /tmp/kernel.elf -append 'ticks=5 hz=50 ask=1 exit=42' \
        -device isa-debug-exit,iobase=0xf4
"""

import subprocess
import tempfile
from pathlib import Path

from minicontainer.kvm import Machine, Result

SOURCES = Path(__file__).with_name("kernel")
COMPILE = "gcc @flags -T kernel.ld boot.S kernel.c"


def boot(kernel: str) -> Result:
    with Machine(memory="16M", want_ports=True) as m:  # with interrupt controllers: multiboot's kernels expect them
        entry = m.load(kernel, append="ticks=5 hz=50 ask=1 exit=42")
        m.start()
        m.serial.input(b"Ada\n")  # waits in the port until the kernel asks
        result = m.run(timeout=60)
        print(f"  {entry.kind}, entered at {entry.rip:#x} in {entry.mode} mode; {result.reason} {result.returncode}")
        return result


said = ""
with tempfile.TemporaryDirectory() as directory:
    for part in range(1, 5):
        print("part", part)
        kernel = f"{directory}/kernel.elf"
        subprocess.run([*COMPILE.split(), f"-DPARTS={part}", "-o", kernel], cwd=SOURCES, check=True)
        result = boot(kernel)
        before, said = said, result.output.decode()
        print(said.removeprefix(before), end="")

# What the host saw of the last: nothing of interrupt controllers and timer, which are inside KVM, as is HLT's sleep.
print("exits:", *(f"{exits.count} by {reason}" for reason, exits in result.exits.items()))
print("ports:", *(f"{exits.count} x {port:#x}" for port, exits in result.ports.items()))
print(f"{result.walltime * 1e3:.0f} ms, of which {(result.walltime - result.guest_time) * 1e3:.1f} outside KVM_RUN")

# expect: part 1\n  multiboot, entered at 0x10000c in protected mode; debug-exit 0\nhello from a kernel
# expect: part 2\n.* debug-exit 42\nloaded by minicontainer, command line: ticks=5 hz=50 ask=1 exit=42\n0x0 to 0x9fbff
# expect: 0x100000 to 0xffffff: memory\n15999 KiB of memory\npart 3\n.*\nticks, 50 a second: 1 2 3 4 5\n
# expect: part 4\n.* debug-exit 42\nwho are you\? Ada\nhello, Ada\n
# expect: exits: .*\d+ by io
# expect: ports: 1 x 0xf4 \d+ x 0x3f8 3 x 0x3f9 2 x 0x3fb 1 x 0x3fc \d+ x 0x3fd\n
