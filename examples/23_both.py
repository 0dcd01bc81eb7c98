"""23. One spec, two isolation models: a program in a container, and in a virtual machine with a Linux of its own.

Run: python examples/23_both.py KERNEL     (such as /boot/vmlinuz-$(uname -r); its modules are in /lib/modules)
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import minicontainer as mc
from minicontainer.rootfs import busybox

SCRIPT = 'echo "process $$, uid $(id -u) of $(hostname)"; uname -r >> /kernels; exit 3'

with tempfile.TemporaryDirectory() as rootfs:
    busybox(rootfs)
    container = mc.Spec(["sh", "-c", SCRIPT], rootfs=rootfs, hostname="box", limits=mc.Limits(memory="256m"))
    for spec in (container, replace(container, isolation="kvm", kernel=sys.argv[1])):
        result = mc.run(spec, capture_output=True, text=True)
        sides = sorted({event.side for event in result.timeline})
        print(f"{spec.isolation}: {result.stdout.strip()}, status {result.returncode}, steps of {', '.join(sides)}")
    print("kernels:", *Path(rootfs, "kernels").read_text(encoding="utf-8").split())

# given: kernel
# expect: container: process 1, uid 0 of box, status 3, steps of child, parent
# expect: kvm: process 1, uid 0 of box, status 3, steps of child, guest, parent
# expect: kernels: \S+ \S+
