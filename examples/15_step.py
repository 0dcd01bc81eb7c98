"""15. Single-stepping: KVM_RUN returns after each instruction (KVM_SET_GUEST_DEBUG).

Run: python examples/15_step.py
"""

from minicontainer.kvm import Machine
from minicontainer.kvm.debug import disassembly
from minicontainer.kvm.debug.stepping import Stepper
from minicontainer.kvm.drive import Processor

GUEST = bytes.fromhex(
    "b9 03 00"  # mov cx, 3
    "01 c8"  # add ax, cx
    "e2 fc"  # loop back to the add
    "f4"  # hlt
)

with Machine(memory="64K") as m:
    m.memory[0x1000 : 0x1000 + len(GUEST)] = GUEST
    m.enter(0x1000)

    def show(processor: Processor) -> None:
        regs = processor.vcpu.get_regs()
        code = disassembly.instruction(processor.vcpu, m.memory)  # disassembled if capstone is installed, else bytes
        print(f"rip {regs.rip:#x}  ax {regs.rax}  cx {regs.rcx}  next: {code}")

    stepper = Stepper(m, show)
    result = m.run(timeout=5)

print("sum:", result.registers["rax"], "after", stepper.count, "instructions, and", result.reason)

# expect: rip 0x1000  ax 0  cx 0  .*\nrip 0x1003  ax 0  cx 3  .*\nrip 0x1005  ax 3  cx 3
# expect: sum: 6 after 8 instructions, and halt
