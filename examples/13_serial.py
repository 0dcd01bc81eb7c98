"""13. A machine with memory, a processor and a serial port: the guest's output, and the time of its exits.

Run: python examples/13_serial.py
"""

from minicontainer.kvm import Machine, guests

for name in ("hello", "hello32", "hello64", "sieve"):  # real, protected and long mode; C code at CPL 3
    with Machine(memory="2M") as m:
        entry = m.load(guests.path(name))
        result = m.run(timeout=10)
    print(f"{entry.kind} in {entry.mode} mode: {result.output.decode().strip()}")
    for reason, exits in result.exits.items():
        print(f"  {exits.count} x {reason}, {exits.mean * 1e6:.1f} us each")
    print(f"  {result.reason}, rip {result.registers['rip']:#x}, {result.guest_time * 1e3:.2f} ms in the guest")

with Machine(memory="64K") as m:
    m.memory[0x1000:0x1002] = b"\xeb\xfe"  # a jmp to itself, entered as a flat binary
    m.enter(0x1000)
    print("an endless loop:", m.run(timeout=0.1).reason)

# expect: flat in real mode: Hello from real mode\.
# expect: elf64 in user64 mode: 78498 primes
# expect: an endless loop: timeout
