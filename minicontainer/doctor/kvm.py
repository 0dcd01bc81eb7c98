"""KVM: whether the caller may use it, and whether it is hardware. Tested by ioctls, not by CPUID or versions."""

from __future__ import annotations

import mmap
import os

from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.errors import UnsupportedError
from minicontainer.native import ffi, lib

DEVICE = "/dev/kvm"
PAGE = 4096
RESET = 0xFFFFFFF0  # where an x86 processor begins

# popcnt %ax, %ax; hlt. If KVM interprets privileged guest code, its interpreter does not know popcnt.
GUEST = b"\xf3\x0f\xb8\xc0\xf4"

MODULES = {
    "kvm_intel": "Intel VT-x",
    "kvm_amd": "AMD-V",
    "kvm_pvm": "PVM",
    "kvm_hv": "POWER",
}


def probes() -> list[Probe]:
    """Probes of the device and its implementation."""
    return [Probe(DEVICE, device), Probe("virtual CPUs", cpus), Probe("kind", kind)]


def device() -> Verdict:
    """Open the device, and check its API version."""
    try:
        from minicontainer.kvm import Kvm

        with Kvm(DEVICE) as kvm:
            version = kvm.get_api_version()
    except UnsupportedError as error:
        return no(error.reason, error.hint)
    if version != lib.KVM_API_VERSION:
        return no(f"its API version is {version}, not {lib.KVM_API_VERSION}")
    return ok()


def cpus() -> Verdict:
    """How many virtual CPUs a machine may have."""
    from minicontainer.kvm import Kvm

    with Kvm(DEVICE) as kvm:
        most, advised = kvm.check_extension("KVM_CAP_MAX_VCPUS"), kvm.check_extension("KVM_CAP_NR_VCPUS")
    return ok(f"{advised} recommended, {most} maximum")


def kind() -> Verdict:
    """Hardware or software, tested by a machine with two instructions; and the kernel module."""
    loaded = [text for name, text in MODULES.items() if os.path.isdir(f"/sys/module/{name}")]
    named = f" ({', '.join(loaded)})" if loaded else ""
    if not runs_on_hardware():
        return note(f"software{named}: privileged guest code is interpreted, about 1000 times slower")
    nested = ", nested: this host is a virtual machine itself" if is_virtual() else ""
    return ok(f"hardware{named}{nested}")


def runs_on_hardware() -> bool:
    """Whether the processor itself runs privileged guest code. UnsupportedError without KVM."""
    from minicontainer.kvm import HltExit, Kvm

    with Kvm(DEVICE) as kvm, kvm.create_vm() as vm, mmap.mmap(-1, PAGE) as memory:
        memory[RESET % PAGE : RESET % PAGE + len(GUEST)] = GUEST
        with ffi.from_buffer(memory) as view:
            vm.set_user_memory_region(0, RESET - RESET % PAGE, PAGE, int(ffi.cast("uintptr_t", view)))
            with vm.create_vcpu() as vcpu:
                return isinstance(vcpu.run(), HltExit)


def is_virtual() -> bool:
    """Whether CPUID reports a hypervisor."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return any(line.startswith("flags") and " hypervisor" in line for line in file)
