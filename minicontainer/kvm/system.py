"""``/dev/kvm`` itself (Linux Documentation/virt/kvm/api.rst, "System ioctls")."""

from __future__ import annotations

import errno
import os

from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.kvm.descriptor import Descriptor
from minicontainer.kvm.vcpu import CPUID_MAX
from minicontainer.kvm.vm import Vm
from minicontainer.native import ffi, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.kvm.descriptor import Watch

DEVICE = "/dev/kvm"


class Kvm(Descriptor):
    """The system's KVM: ``with Kvm() as kvm, kvm.create_vm() as vm: ...``.

    UnsupportedError: there is no KVM, or the caller may not use it; the message has the remedy."""

    def __init__(self, path: str = DEVICE, watch: Watch | None = None) -> None:
        start = now()
        if not isinstance(path, (str, bytes, os.PathLike)) or "\0" in os.fsdecode(path):
            raise SpecError("KVM", path, "must be a path")
        if watch is not None and not callable(watch):
            raise SpecError("watch", watch, "must be a function of (call, start, end, result)")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise UnsupportedError("KVM", path, *why_unusable(error, os.fsdecode(path))) from None
        super().__init__(fd, watch)
        if watch is not None:
            watch(f"open({path}, O_RDWR|O_CLOEXEC)", start, now(), fd)
        self._mmap_size = 0

    def get_api_version(self) -> int:
        """KVM_GET_API_VERSION: always 12, since Linux 2.6.22."""
        return self.ioctl_value("KVM_GET_API_VERSION")

    def create_vm(self, kind: int = 0) -> Vm:
        """KVM_CREATE_VM: a machine without memory, processors or devices."""
        vm = Vm(self.ioctl_value("KVM_CREATE_VM", kind), self.watch)
        vm.mmap_size = self.get_vcpu_mmap_size()
        return vm

    def get_vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE: bytes of a virtual CPU's mapping, which begins with struct kvm_run. Cached."""
        self._mmap_size = self._mmap_size or self.ioctl_value("KVM_GET_VCPU_MMAP_SIZE")
        return self._mmap_size

    def get_supported_cpuid(self) -> Any:
        """KVM_GET_SUPPORTED_CPUID: a ``struct kvm_cpuid2 *`` with ``nent`` entries."""
        room = 128
        while True:
            cpuid = ffi.new("struct kvm_cpuid2 *", {"entries": room})
            cpuid.nent = room
            try:
                self.ioctl("KVM_GET_SUPPORTED_CPUID", cpuid)
            except OSError as error:
                if error.errno != errno.E2BIG or room >= CPUID_MAX:
                    raise
                room *= 2
            else:
                return cpuid

    def get_msr_index_list(self) -> list[int]:
        """KVM_GET_MSR_INDEX_LIST: the indices of the registers that get_msrs and set_msrs support."""
        count = ffi.new("struct kvm_msr_list *", {"indices": 0})
        try:
            self.ioctl("KVM_GET_MSR_INDEX_LIST", count)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
        msrs = ffi.new("struct kvm_msr_list *", {"indices": count.nmsrs})
        msrs.nmsrs = count.nmsrs
        self.ioctl("KVM_GET_MSR_INDEX_LIST", msrs)
        return list(ffi.unpack(msrs.indices, msrs.nmsrs))


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
    """The group or user that may open the device, and the command that gives access."""
    import grp

    status = os.stat(path)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    if status.st_mode & 0o060 == 0o060:
        return f"it is for group {group}", f"as root: usermod -aG {group} USER, then log in anew"
    return f"it is for user id {status.st_uid} alone (mode {status.st_mode & 0o777:o})", f"as root: chmod 666 {path}"
