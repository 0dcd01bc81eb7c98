"""11. Writable storage: an ephemeral root file system, a bind mount, a tmpfs; and a read-only root file system.

Run as root: python examples/11_storage.py ROOTFS
"""

import os
import sys
import tempfile

import minicontainer as mc

rootfs = sys.argv[1] if len(sys.argv) > 1 else "rootfs"

with tempfile.TemporaryDirectory() as data:
    mc.run(
        ["/bin/sh", "-c", "echo kept > /data/file; echo lost > /file"],
        rootfs=rootfs,
        ephemeral=True,
        mounts=(mc.Mount("/data", source=data), mc.Mount("/scratch", type="tmpfs", size="1M")),
        check=True,
    )
    with open(f"{data}/file") as f:
        print("in the bind mount:", f.read().strip())
    print("in ROOTFS:", os.path.exists(f"{rootfs}/file"))

r = mc.run(["/bin/touch", "/x"], rootfs=rootfs, read_only=True, capture_output=True, text=True)
print(r.returncode, r.stderr.strip())

# expect: in the bind mount: kept
# expect: in ROOTFS: False
# expect: 1 touch: /x: Read-only file system
