"""12. Twelve bytes of machine code in a virtual machine, by ioctls only (LWN, "Using the KVM API").

Run: python examples/12_twelve_bytes.py
"""

import mmap

from minicontainer.kvm import HltExit, IoExit, Kvm
from minicontainer.native import ffi

PROGRAM = bytes.fromhex(
    "ba f8 03"  # mov dx, 0x3f8    the port of a PC's first serial port
    "00 d8"  # add al, bl          2 + 2, the initial values of al and bl
    "04 30"  # add al, '0'         as a digit
    "ee"  # out dx, al             KVM has no device at this port, so KVM_RUN returns (KVM_EXIT_IO)
    "b0 0a"  # mov al, '\n'
    "ee"  # out dx, al
    "f4"  # hlt                    waits for an interrupt; KVM_RUN returns (KVM_EXIT_HLT)
)
assert len(PROGRAM) == 12

with Kvm() as kvm, kvm.create_vm() as vm, mmap.mmap(-1, 4096) as memory:
    memory[: len(PROGRAM)] = PROGRAM
    with ffi.from_buffer(memory) as view:  # a page of this process becomes guest memory at address 0x1000
        vm.set_user_memory_region(0, 0x1000, 4096, int(ffi.cast("uintptr_t", view)))
        with vm.create_vcpu() as vcpu:
            sregs = vcpu.get_sregs()  # after reset, the code segment is at the end of the address space ...
            sregs.cs.base, sregs.cs.selector = 0, 0  # ... so move it to 0
            vcpu.set_sregs(sregs)
            vcpu.set_regs(ffi.new("struct kvm_regs *", {"rip": 0x1000, "rax": 2, "rbx": 2, "rflags": 2}))
            while not isinstance(exit_ := vcpu.run(), HltExit):
                assert isinstance(exit_, IoExit)
                print(f"out {exit_.port:#x}: {bytes(exit_.data)!r}")
            print("halted at", hex(vcpu.get_regs().rip))

# expect: out 0x3f8: b'4'\nout 0x3f8: b'\\n'\nhalted at 0x100c
