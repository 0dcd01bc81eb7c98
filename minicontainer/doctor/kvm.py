"""KVM: whether the caller may use it, and of which kind it is. The ioctls decide, never CPUID or a version."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import ExitStack

from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.native import lib

DEVICE = "/dev/kvm"
PAGE = 4096
RESET = 0xFFFFFFF0  # where an x86 processor begins
MEMORY_REGION = struct.Struct("=IIQQQ")  # struct kvm_userspace_memory_region: slot, flags, guest, size, host
EXIT_REASON = 8  # offset in struct kvm_run

# popcnt %ax, %ax; hlt. Where privileged code is interpreted, KVM's interpreter does not know popcnt.
GUEST = b"\xf3\x0f\xb8\xc0\xf4"

MODULES = {
    "kvm_intel": "Intel VT-x",
    "kvm_amd": "AMD-V",
    "kvm_pvm": "PVM",
    "kvm_hv": "POWER",
}


def probes() -> list[Probe]:
    """The device, and what is behind it."""
    return [Probe(DEVICE, device), Probe("virtual CPUs", cpus), Probe("kind", kind)]


def device() -> Verdict:
    """Opens it, and asks for its version."""
    try:
        fd = _open()
    except OSError as error:
        return _unusable(error)
    try:
        version = fcntl.ioctl(fd, lib.KVM_GET_API_VERSION, 0)
    finally:
        os.close(fd)
    if version != lib.KVM_API_VERSION:
        return no(f"its API version is {version}, not {lib.KVM_API_VERSION}")
    return ok()


def cpus() -> Verdict:
    """How many a virtual machine may have."""
    with ExitStack() as stack:
        system = _closing(stack, _open())
        most = fcntl.ioctl(system, lib.KVM_CHECK_EXTENSION, lib.KVM_CAP_MAX_VCPUS)
        advised = fcntl.ioctl(system, lib.KVM_CHECK_EXTENSION, lib.KVM_CAP_NR_VCPUS)
    return ok(f"{advised} advised, {most} at most")


def kind() -> Verdict:
    """Hardware or software, tried with a machine and its two instructions; and by which module."""
    loaded = [text for name, text in MODULES.items() if os.path.isdir(f"/sys/module/{name}")]
    named = f" ({', '.join(loaded)})" if loaded else ""
    if os.uname().machine != "x86_64":
        with ExitStack() as stack:
            _closing(stack, fcntl.ioctl(_closing(stack, _open()), lib.KVM_CREATE_VM, 0))
        return ok(f"of {os.uname().machine}{named}")
    if not runs_on_hardware():
        return note(f"software{named}: privileged guest code is interpreted, about 1000 times slower")
    nested = ", nested: this host is a virtual machine itself" if is_virtual() else ""
    return ok(f"hardware{named}{nested}")


def runs_on_hardware() -> bool:
    """Whether the processor itself runs a guest's privileged code. OSError where there is no KVM."""
    import mmap

    from minicontainer.native import ffi

    with ExitStack() as stack:
        system = _closing(stack, _open())
        vm = _closing(stack, fcntl.ioctl(system, lib.KVM_CREATE_VM, 0))
        memory = stack.enter_context(mmap.mmap(-1, PAGE))
        memory[RESET % PAGE : RESET % PAGE + len(GUEST)] = GUEST
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
        region = MEMORY_REGION.pack(0, 0, RESET - RESET % PAGE, PAGE, address)
        fcntl.ioctl(vm, lib.KVM_SET_USER_MEMORY_REGION, region)
        vcpu = _closing(stack, fcntl.ioctl(vm, lib.KVM_CREATE_VCPU, 0))
        state = stack.enter_context(mmap.mmap(vcpu, fcntl.ioctl(system, lib.KVM_GET_VCPU_MMAP_SIZE, 0)))
        fcntl.ioctl(vcpu, lib.KVM_RUN, 0)
        (reason,) = struct.unpack_from("=I", state, EXIT_REASON)
    return bool(reason == lib.KVM_EXIT_HLT)


def is_virtual() -> bool:
    """Whether the processor says that a hypervisor is below."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return any(line.startswith("flags") and " hypervisor" in line for line in file)


def _open() -> int:
    return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)


def _closing(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _unusable(error: OSError) -> Verdict:
    if error.errno == errno.ENOENT:
        return no("there is none", "load kvm_intel or kvm_amd, and switch virtualisation on in the firmware")
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return no("there is no driver behind it", "load kvm_intel or kvm_amd")
    if error.errno in (errno.EACCES, errno.EPERM):
        return no(*_forbidden())
    return no(os.strerror(error.errno or 0))


def _forbidden() -> tuple[str, str]:
    """Who may open it, and how to become one of them."""
    import grp

    status = os.stat(DEVICE)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    if status.st_mode & 0o060 == 0o060:
        return f"it is for group {group}", f"as root: usermod -aG {group} USER, then log in anew"
    return f"it is for user id {status.st_uid} alone (mode {status.st_mode & 0o777:o})", f"as root: chmod 666 {DEVICE}"
