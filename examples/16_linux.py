"""16. An unmodified Linux kernel with two processors and an initrd made here; its shell prints to the serial port.

Run: python examples/16_linux.py KERNEL     (a bzImage, such as /boot/vmlinuz of Debian's linux-image-cloud-amd64)
"""

import shutil
import sys
import tempfile
from pathlib import Path

from minicontainer.cpio import newc
from minicontainer.kvm import Machine

INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo $(/bin/busybox uname -sr) with $(/bin/busybox grep -c ^processor /proc/cpuinfo) processors
/bin/busybox poweroff -f
"""
busybox = shutil.which("busybox")  # Debian's busybox-static
assert busybox is not None

with tempfile.NamedTemporaryFile() as initrd, Machine(memory="256M", cpus=2) as m:
    initrd.write(newc(["bin", "dev", "proc"], {"init": INIT, "bin/busybox": Path(busybox).read_bytes()}))
    initrd.flush()
    entry = m.load(sys.argv[1], initrd=initrd.name, append="console=ttyS0 quiet cryptomgr.notests")
    result = m.run(timeout=100)

print(f"entered by {entry.kind} at {entry.rip:#x}")
print(result.output.decode().replace("\r", ""))
print(result.reason, "after", sum(e.count for e in result.exits.values()), "exits")

# given: kernel
# expect: entered by pvh at 0x[0-9a-f]+
# expect: Linux [\w.+-]+ with 2 processors
# expect: poweroff after \d+ exits
