"""``/dev/kvm`` itself (Linux Documentation/virt/kvm/api.rst, "System ioctls")."""

from __future__ import annotations

import errno
import os
from typing import Any

from minicontainer.errors import UnsupportedError
from minicontainer.kvm.descriptor import Descriptor, Watch
from minicontainer.kvm.vm import Vm
from minicontainer.native import ffi, lib, now

DEVICE = "/dev/kvm"
CPUID_MAX = 4096  # entries; KVM has 256 today (KVM_MAX_CPUID_ENTRIES)


class Kvm(Descriptor):
    """The system's KVM: ``with Kvm() as kvm, kvm.create_vm() as vm: ...``.

    UnsupportedError where there is none or it may not be used, with the remedy."""

    def __init__(self, path: str = DEVICE, watch: Watch | None = None) -> None:
        start = now()
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise UnsupportedError("KVM", path, *why_unusable(error, path)) from None
        super().__init__(fd, watch)
        if watch is not None:
            watch(f"open({path}, O_RDWR|O_CLOEXEC)", start, now(), fd)
        self._mmap_size = 0

    def get_api_version(self) -> int:
        """KVM_GET_API_VERSION: 12 since Linux 2.6.22, and for ever."""
        return self.ioctl_value("KVM_GET_API_VERSION")

    def check_extension(self, capability: str) -> int:
        """KVM_CHECK_EXTENSION of ``"KVM_CAP_..."``: 0 where there is no such thing, else 1 or what its documentation
        says."""
        return self.ioctl_value("KVM_CHECK_EXTENSION", getattr(lib, capability))

    def create_vm(self, kind: int = 0) -> Vm:
        """KVM_CREATE_VM: a machine without memory, processors or devices."""
        vm = Vm(self.ioctl_value("KVM_CREATE_VM", kind), self.watch)
        vm.mmap_size = self.get_vcpu_mmap_size()
        return vm

    def get_vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE: bytes of what a virtual CPU's descriptor maps, struct kvm_run first. Asked once."""
        self._mmap_size = self._mmap_size or self.ioctl_value("KVM_GET_VCPU_MMAP_SIZE")
        return self._mmap_size

    def get_supported_cpuid(self) -> Any:
        """KVM_GET_SUPPORTED_CPUID: a ``struct kvm_cpuid2 *`` with ``nent`` entries, as the host and KVM have them."""
        room = 128
        while True:
            found = ffi.new("struct kvm_cpuid2 *", {"entries": room})
            found.nent = room
            try:
                self.ioctl("KVM_GET_SUPPORTED_CPUID", found)
            except OSError as error:
                if error.errno != errno.E2BIG or room >= CPUID_MAX:
                    raise
                room *= 2
            else:
                return found

    def get_msr_index_list(self) -> list[int]:
        """KVM_GET_MSR_INDEX_LIST: the registers that get_msrs and set_msrs know beyond the processor's common ones."""
        count = ffi.new("struct kvm_msr_list *", {"indices": 0})
        try:
            self.ioctl("KVM_GET_MSR_INDEX_LIST", count)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
        found = ffi.new("struct kvm_msr_list *", {"indices": count.nmsrs})
        found.nmsrs = count.nmsrs
        self.ioctl("KVM_GET_MSR_INDEX_LIST", found)
        return list(ffi.unpack(found.indices, found.nmsrs))


def why_unusable(error: OSError, path: str = DEVICE) -> tuple[str, str]:
    """The reason that KVM cannot be opened, and the remedy."""
    if error.errno == errno.ENOENT:
        return "there is none", "load kvm_intel or kvm_amd, and switch virtualisation on in the firmware"
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return "there is no driver behind it", "load kvm_intel or kvm_amd, and switch virtualisation on in the firmware"
    if error.errno in (errno.EACCES, errno.EPERM):
        return _forbidden(path)
    return os.strerror(error.errno or 0), ""


def _forbidden(path: str) -> tuple[str, str]:
    """Who may open it, and how to become one of them."""
    import grp

    status = os.stat(path)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    if status.st_mode & 0o060 == 0o060:
        return f"it is for group {group}", f"as root: usermod -aG {group} USER, then log in anew"
    return f"it is for user id {status.st_uid} alone (mode {status.st_mode & 0o777:o})", f"as root: chmod 666 {path}"
