"""14. Devices in Python: one at an I/O port, one at a memory address (MMIO).

Run: python examples/14_device.py
"""

from minicontainer.kvm import Access, Machine

GUEST = bytes.fromhex(
    "e4 80"  # in al, 0x80           reads from the device at the port
    "a2 00 00 50 00"  # mov [0x500000], al   writes to the device at an address without memory
    "3c 00"  # cmp al, 0
    "75 f5"  # jne back to the beginning
    "f4"  # hlt
)

with Machine(memory="2M") as m:
    values = [3, 2, 1, 0]
    written: list[int] = []

    @m.port(0x80)
    def countdown(access: Access) -> int | None:
        return None if access.write else values.pop(0)

    @m.mmio(0x500000, 4096)
    def display(access: Access) -> int | None:
        written.append(access.value)
        return 0

    m.memory[0x1000 : 0x1000 + len(GUEST)] = GUEST
    m.enter(0x1000, "protected")
    result = m.run(timeout=5)

print("written", written, "by", result.exits["mmio"].count, "writes; ended by", result.reason)

# expect: written \[3, 2, 1, 0\] by 4 writes; ended by halt
