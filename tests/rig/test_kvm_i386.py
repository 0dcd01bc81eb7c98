"""Linux for i386 with PAE, in a rig of its own, whose KVM has no nested paging."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("rig-host"), pytest.mark.timeout(650)]

HERE = Path(__file__).parent
# QEMU 7.2 sets an accessed flag in the page-directory-pointer entries of a guest with PAE, where it is reserved (Intel
# SDM volume 3, "Format of a PAE Page-Directory-Pointer-Table Entry"), and KVM refuses them at the next change of CR4.
# With shadow paging QEMU sees KVM's tables only (findings/qemu-pae-accessed.sh).
SCRIPT = """
rmmod kvm_amd
insmod $(dirname "$RIG_GUESTS")/kernel/lib/modules/*/kernel/arch/x86/kvm/kvm-amd.ko* npt=0
set -- "$RIG_GUESTS/vmlinuz-686-pae" --memory 512m --timeout 300
exec "$0" -m minicontainer kvm-boot "$@" --append 'console=ttyS0 panic=-1'
"""


def test_linux_for_i386_misses_its_root() -> None:
    """By the 32-bit boot protocol. It restarts the machine when it has panicked."""
    command = [sys.executable, str(HERE / "vm.py"), "--timeout", "600", "--", "sh", "-c", SCRIPT, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Linux version" in done.stdout, done.stderr
    assert "Unable to mount root fs" in done.stdout
    assert done.returncode == 0, done.stderr
