"""Whatever a method of the driver is given: it is taken, or a mistake that names the call, the value and what is
allowed. Never does the kernel read beyond what the caller has."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bareguest import HLT, MMIO, PAGE, Make, guests, raw

from minicontainer.errors import SpecError
from minicontainer.kvm import GuestMemory, Kvm, Machine, MsiRoute, MsrRange, PinRoute, Vcpu, Vm
from minicontainer.kvm.descriptor import Descriptor
from minicontainer.native import ffi, lib

pytestmark = pytest.mark.needs("kvm")


@pytest.fixture
def make() -> Iterator[Make]:
    with guests() as make:
        yield make


# ---- structures

SETTERS = [
    (Vcpu, "set_regs", "kvm_regs"),
    (Vcpu, "set_sregs", "kvm_sregs"),
    (Vcpu, "set_sregs2", "kvm_sregs2"),
    (Vcpu, "set_fpu", "kvm_fpu"),
    (Vcpu, "set_xcrs", "kvm_xcrs"),
    (Vcpu, "set_debugregs", "kvm_debugregs"),
    (Vcpu, "set_cpuid2", "kvm_cpuid2"),
    (Vcpu, "set_lapic", "kvm_lapic_state"),
    (Vcpu, "set_vcpu_events", "kvm_vcpu_events"),
    (Vcpu, "set_xsave", "kvm_xsave"),
    (Vm, "set_irqchip", "kvm_irqchip"),
    (Vm, "set_pit2", "kvm_pit_state2"),
]


@pytest.mark.parametrize(("kind", "method", "struct"), SETTERS)
def test_a_setter_takes_its_structure_alone(make: Make, kind: type, method: str, struct: str) -> None:
    guest = make()
    put = getattr(guest.vm if kind is Vm else guest.vcpu, method)
    small = ffi.new("struct kvm_mp_state *")
    wrong = [None, 5, "x", f"struct {struct} *", [], small, ffi.new(f"struct {struct} **"), ffi.NULL, print]
    wrong += [] if method == "set_xsave" else [b"x", bytearray(PAGE)]
    for value in [*wrong, ffi.cast(f"struct {struct} *", 0)]:
        with pytest.raises(TypeError) as caught:
            put(value)
        assert re.fullmatch(rf"KVM_{method.upper()} takes a struct {struct} \*, not [\w *]+", str(caught.value))


def test_the_type_that_was_given_is_named(make: Make) -> None:
    vcpu = make().vcpu
    with pytest.raises(TypeError, match=r"^KVM_SET_REGS takes a struct kvm_regs \*, not struct kvm_vcpu_events \*$"):
        vcpu.set_regs(vcpu.get_vcpu_events())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^KVM_SET_REGS takes a struct kvm_regs \*, not bytes$"):
        vcpu.set_regs(b"x")  # type: ignore[arg-type]


def test_cpuid_of_more_entries_than_there_are(make: Make) -> None:
    guest = make()
    cpuid = ffi.new("struct kvm_cpuid2 *", {"entries": 3})
    cpuid.nent = 4
    with pytest.raises(SpecError, match=r"^KVM_SET_CPUID2 nent 4: the structure has room for 3 entries$"):
        guest.vcpu.set_cpuid2(cpuid)
    cpuid.nent = 3
    guest.vcpu.set_cpuid2(cpuid)
    for room in (-1, 4097, 1 << 31, 1 << 40):
        with pytest.raises(SpecError, match=rf"^KVM_GET_CPUID2 room {room}: "):
            guest.vcpu.get_cpuid2(room)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_xsave_may_be_bytes(make: Make, kind: type) -> None:
    vcpu = make().vcpu
    xsave = vcpu.get_xsave()
    xsave.region[128] |= 2  # XSTATE_BV: SSE (Intel SDM volume 1, "XSAVE Header")
    xsave.region[40] = 0x5A  # xmm0
    vcpu.set_xsave(kind(raw(xsave)))
    assert vcpu.get_xsave().region[40] == 0x5A


def test_an_ioctl_that_is_not_known(make: Make) -> None:
    for name in ("KVM_NO_SUCH", "mc_ioctl"):
        with pytest.raises(SpecError, match=rf"^ioctl {name}: is none that is known here$"):
            make().vm.ioctl(name)


# ---- slots


def test_a_log_of_a_slot_that_was_not_set_here(make: Make) -> None:
    guest = make()
    guest.vm.set_user_memory_region(0, 0, MMIO, guest.memory.host, lib.KVM_MEM_LOG_DIRTY_PAGES)
    other = Vm(guest.vm.fd)  # the same machine, of whose slots this object knows nothing
    try:
        for call in (other.get_dirty_log, lambda slot: other.clear_dirty_log(slot, [0])):
            with pytest.raises(ValueError, match=r"^slot 0: was not set here \(set_user_memory_region\)$"):
                call(0)
    finally:
        other.fd = -1
    guest.vm.get_dirty_log(0)
    guest.vm.set_user_memory_region(0, 0, 0, 0)
    with pytest.raises(ValueError, match="slot 0"):
        guest.vm.get_dirty_log(0)


# ---- numbers

NUMBERS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda g: g.kvm.create_vm(-1), "KVM_CREATE_VM -1: from 0 to 4294967295"),
    (lambda g: g.vm.check_extension(-1), "KVM_CHECK_EXTENSION -1: from 0 to 4294967295"),
    (lambda g: g.vm.create_vcpu(-1), "KVM_CREATE_VCPU -1: from 0 to 4294967295"),
    (lambda g: g.vm.create_vcpu(1 << 32), "KVM_CREATE_VCPU 4294967296: from 0 to 4294967295"),
    (lambda g: g.vm.irq_line(-1, 0), "KVM_IRQ_LINE irq -1: from 0 to 4294967295"),
    (
        lambda g: g.vm.irq_line(0, 1 << 40),
        "KVM_IRQ_LINE level 1099511627776: from 0 to 4294967295",
    ),
    (lambda g: g.vm.irqfd(-1, 0), "KVM_IRQFD fd -1: from 0 to 4294967295"),
    (
        lambda g: g.vm.ioeventfd(1 << 31, 0, 1),
        "KVM_IOEVENTFD fd 2147483648: from -2147483648 to 2147483647",
    ),
    (
        lambda g: g.vm.register_coalesced_mmio(-1, 4),
        "KVM_REGISTER_COALESCED_MMIO addr -1: from 0 to 18446744073709551615",
    ),
    (lambda g: g.vm.set_clock(-1), "KVM_SET_CLOCK clock -1: from 0 to 18446744073709551615"),
    (lambda g: g.vm.get_dirty_log(-1), "slot -1: from 0 to 4294967295"),
    (lambda g: g.vm.clear_dirty_log(0, [-1]), "page -1: from 0 to 18446744073709551615"),
    (
        lambda g: g.vm.signal_msi(-1, 0),
        "KVM_SIGNAL_MSI address -1: from 0 to 18446744073709551615",
    ),
    (
        lambda g: g.vm.set_gsi_routing([PinRoute(4, "master", -1)]),
        "KVM_SET_GSI_ROUTING entries[0] u irqchip pin -1: from 0 to 4294967295",
    ),
    (
        lambda g: g.vm.set_gsi_routing([MsiRoute(4, 1 << 64, 0)]),
        "KVM_SET_GSI_ROUTING address 18446744073709551616: from 0 to 18446744073709551615",
    ),
    (
        lambda g: g.vm.set_msr_filter([MsrRange(0x10, -5)]),
        "KVM_X86_SET_MSR_FILTER length -5: from 0 to 4294967295",
    ),
    (
        lambda g: g.vm.set_msr_filter([MsrRange(0x10, 1 << 40)]),
        "KVM_X86_SET_MSR_FILTER length 1099511627776: from 0 to 4294967295",
    ),
    (
        lambda g: g.vm.set_msr_filter([MsrRange(0x10, 1 << 31)]),
        "KVM_X86_SET_MSR_FILTER length 2147483648: is more than a range may have (12288)",
    ),
    (
        lambda g: g.vm.enable_cap("KVM_CAP_SPLIT_IRQCHIP", 1, 2, 3, 4, 5),
        "KVM_ENABLE_CAP args '5 values': there is room for 4",
    ),
    (
        lambda g: g.vm.enable_cap("KVM_CAP_SPLIT_IRQCHIP", 1, -2),
        "KVM_ENABLE_CAP args[1] -2: from 0 to 18446744073709551615",
    ),
    (
        lambda g: g.vm.set_user_memory_region(-1, 0, PAGE, 0),
        "KVM_SET_USER_MEMORY_REGION slot -1: from 0 to 4294967295",
    ),
    (
        lambda g: g.vm.has_device_attr(-1, 0),
        "KVM_HAS_DEVICE_ATTR group -1: from 0 to 4294967295",
    ),
    (
        lambda g: g.vcpu.set_device_attr(0, 0, -1),
        "KVM_SET_DEVICE_ATTR -1: from 0 to 18446744073709551615",
    ),
    (lambda g: g.vcpu.set_tsc_khz(-1), "KVM_SET_TSC_KHZ -1: from 0 to 4294967295"),
    (
        lambda g: g.vcpu.translate(-1),
        "KVM_TRANSLATE linear_address -1: from 0 to 18446744073709551615",
    ),
    (lambda g: g.vcpu.answer_msr(-1), "answer_msr -1: from 0 to 18446744073709551615"),
    (lambda g: g.vcpu.sync_regs(-1), "sync_regs valid -1: from 0 to 18446744073709551615"),
    (lambda g: g.vcpu.interrupt(-1), "KVM_INTERRUPT -1: from 0 to 4294967295"),
    (lambda g: g.vcpu.set_mp_state(-1), "KVM_SET_MP_STATE mp_state -1: from 0 to 4294967295"),
    (
        lambda g: g.vcpu.get_msrs([0x10, -1]),
        "KVM_GET_MSRS entries[1] index -1: from 0 to 4294967295",
    ),
    (
        lambda g: g.vcpu.set_msrs({0x174: 1 << 64}),
        "KVM_SET_MSRS entries[0] data 18446744073709551616: from 0 to 18446744073709551615",
    ),
    (
        lambda g: g.vcpu.set_guest_debug(breakpoints=[-1]),
        "KVM_SET_GUEST_DEBUG arch debugreg[0] -1: from 0 to 18446744073709551615",
    ),
]


@pytest.mark.parametrize(("call", "says"), NUMBERS, ids=[says.partition(":")[0] for _, says in NUMBERS])
def test_a_number_that_does_not_fit(make: Make, call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        call(make())
    assert str(caught.value) == says.replace(": from ", ": must be a whole number from ")


# ---- types

TYPES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda g: g.vm.irq_line("4", 1), "KVM_IRQ_LINE irq must be a whole number, not str"),
    (lambda g: g.vm.set_msr_filter([(0x10, 8)]), "KVM_X86_SET_MSR_FILTER takes MsrRange, not tuple"),
    (lambda g: g.vm.set_msr_filter(5), "KVM_X86_SET_MSR_FILTER must be a sequence, not int"),
    (lambda g: g.vm.set_gsi_routing([(1, "ioapic", 0)]), "KVM_SET_GSI_ROUTING takes PinRoute and MsiRoute, not tuple"),
    (lambda g: g.vcpu.set_msrs([5]), "KVM_SET_MSRS takes values by index, as a dict, not list"),
    (lambda g: g.vcpu.get_msrs(5), "KVM_GET_MSRS must be a sequence, not int"),
    (lambda g: g.vcpu.translate(1.5), "KVM_TRANSLATE linear_address must be a whole number, not float"),
    (lambda g: g.kvm.create_vm("x"), "KVM_CREATE_VM must be a whole number, not str"),
]


@pytest.mark.parametrize(("call", "says"), TYPES, ids=[says for _, says in TYPES])
def test_a_value_of_another_type(make: Make, call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(TypeError) as caught:
        call(make())
    assert str(caught.value) == says


# ---- machines


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"serial": "x"}, "serial x: must be a whole number from 0 to 2147483647"),
        ({"serial": -1}, "serial -1: must be a whole number from 0 to 2147483647"),
        ({"irqchip": "no"}, "irqchip no: must be True or False"),
        ({"want_ports": 5}, "want_ports 5: must be True or False"),
        ({"fw_cfg": 5}, "fw_cfg 5: must be a dict of contents by name"),
        ({"fw_cfg": {"opt/x": 5}}, "fw_cfg opt/x 5: must be bytes, not int"),
        ({"fw_cfg": {5: b"x"}}, "fw_cfg 5: is no name of a file (1 to 55 characters) (opt/org.example/x)"),
        ({"watch": 5}, "watch 5: must be a function of (call, start, end, result)"),
    ],
)
def test_what_a_machine_is_made_of(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        Machine(**options)
    assert str(caught.value) == says


@pytest.mark.parametrize("path", [5, None, [], "\0"])
def test_a_device_is_a_path(path: Any) -> None:
    with pytest.raises(SpecError, match=r"^KVM.*: must be a path$"):
        Kvm(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"initrd": 5}, "initrd 5: must be a string, not int"),
        ({"append": b"x"}, "append b'x': must be a string, not bytes"),
        ({"load_address": "x"}, "load-address x: must be a whole number, not str"),
        ({"entry": 1.5}, "entry 1.5: must be a whole number, not float"),
        ({"registers": 5}, "registers 5: must be a dict of values by name"),
    ],
)
@pytest.mark.parametrize("kernel", [HLT, "multiboot"])
def test_options_of_a_kernel(kernel: bytes | str, options: dict[str, Any], says: str) -> None:
    with Machine() as m:
        with pytest.raises(SpecError) as caught:
            m.load(kernel, **options)
        assert str(caught.value) == says


def test_places_of_devices() -> None:
    with Machine() as m:
        for address, size in ((-1, 4096), (1 << 64, 1), ((1 << 64) - 1, 2), (1 << 40, 0)):
            with pytest.raises(SpecError, match=rf"^address {address:#x}: {size} bytes .*within 0 to 2\*\*64 - 1$"):
                m.mmio(address, size)
        m.mmio((1 << 64) - 1, 1)(print)
        for place in (m.port, m.mmio):
            with pytest.raises(SpecError, match=r"^(port|address) x: .*whole numbers$"):
                place("x")(print)  # type: ignore[arg-type]
            with pytest.raises(SpecError, match=r"^handler 5: must be a function of one Access$"):
                place(1 << 15 if place == m.port else 1 << 32)(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["x", 1.5, b"x", []])
def test_what_a_handler_returns_is_a_number(value: Any) -> None:
    reads = {"port 0x10": b"\xe4\x10\xf4", "address 0x200000": b"\xa0\0\0\x20\0\xf4"}
    for place, code in reads.items():  # in al, 0x10; hlt, and mov al, [0x200000]; hlt
        with Machine("2M") as m:
            m.enter(0x1000, "protected")
            m.memory.write(0x1000, code)
            m.port(0x10)(lambda _: value)
            m.mmio(0x200000)(lambda _: value)
            with pytest.raises(TypeError) as caught:
                m.run(timeout=5)
            says = f"{place}: its handler must return a whole number or None, not {type(value).__name__}"
            assert str(caught.value) == says


def test_memory_is_taken_by_address() -> None:
    memory = GuestMemory(PAGE)
    for where in ("a", None, 1.5, (1, 2)):
        with pytest.raises(TypeError, match=r"^guest memory is taken as memory\[address\] or \[start:stop\], not by "):
            memory[where]  # type: ignore[index]
    for part in (slice("a", "b"), slice(0, 1.5), slice(None, 5), slice(0, 8, 2)):
        with pytest.raises(ValueError, match=r"^guest memory is taken as memory\[start:stop\], of whole numbers$"):
            memory[part]
    for value in (300, -1):
        with pytest.raises(SpecError, match=rf"^guest memory 0x5 {value}: must be a byte, from 0 to 255$"):
            memory[5] = value
    for data in ("text", 5, None, 1.5):
        with pytest.raises(TypeError, match=r"^guest memory takes bytes, not "):
            memory.write(0, data)  # type: ignore[arg-type]
    for address, length in (("x", 1), (0, "x")):
        with pytest.raises(TypeError, match=r"^guest memory 'x': must be a whole number, not str$"):
            memory.read(address, length)  # type: ignore[arg-type]
    memory.write(0, memoryview(b"12345678").cast("Q"))
    memory[8:10] = bytearray(b"ab")
    assert memory[0:10] == b"12345678ab"
    memory.close()
    for use in (lambda: memory[0], lambda: memory.view(0, 1), lambda: memory.write(0, b"x")):
        with pytest.raises(ValueError, match=r"^guest memory: it is closed$"):
            use()
    with Kvm() as kvm, kvm.create_vm() as vm, pytest.raises(ValueError, match=r"^guest memory: it is closed$"):
        memory.attach(vm)


def test_input_is_bytes() -> None:
    with Machine() as m:
        m.load("hello")
        m.start()
        assert [m.serial.input(kind(b"ab")) for kind in (bytes, bytearray, memoryview)] == [2, 2, 2]
        for wrong in ("x", 5, None, [b"x"]):
            with pytest.raises(TypeError, match=r"^serial input must be bytes, not (str|int|NoneType|list)$"):
                m.serial.input(wrong)  # type: ignore[arg-type]


# ---- every argument of every method

WRONG: list[Any] = [
    None, -1, 1 << 31, 1 << 32, 1 << 64, 10**30, 1.5, float("nan"), True, "", "x", "\0", b"x", bytearray(9000), [], [1],
    ["x"], [None], (), {}, {1: 2}, {"x": None}, {1}, object(), print, ffi.NULL, ffi.new("uint32_t *"),
    ffi.new("struct kvm_mp_state *"), MsrRange(1, 1), [MsrRange("x", None)], [PinRoute(None, "master", "x")],  # type: ignore[arg-type]
    [MsiRoute("x", None, [])],  # type: ignore[arg-type]
]  # fmt: skip
INTERNAL = re.compile(
    r"ctype|a cdata|convert|integer is required|operand|no attribute|format code|subscriptable|iterable|unhashable"
    r"|len\(\)"
)
SKIPPED = {"ioctl", "ioctl_value", "close", "put", "send", "get", "run", "fileno", "mapped"}
METHODS = [
    (kind, name)
    for kind in (Kvm, Vm, Vcpu)
    for name, method in inspect.getmembers(kind, inspect.isfunction)
    if not name.startswith("_") and name not in SKIPPED and len(inspect.signature(method).parameters) > 1
]


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=[f"{kind.__name__}.{name}" for kind, name in METHODS])
def test_every_argument_of_every_method(make: Make, kind: type, name: str) -> None:
    guest = make(irqchip=True)
    method = getattr({Kvm: guest.kvm, Vm: guest.vm, Vcpu: guest.vcpu}[kind], name)
    parameters = list(inspect.signature(method).parameters.values())
    for wrong in parameters:
        for value in WRONG:
            args, words = [], {}
            for of in parameters:
                given = value if of is wrong else 0 if of.default is of.empty else of.default
                if of.kind is of.KEYWORD_ONLY:
                    words[of.name] = given
                elif of.kind is of.VAR_POSITIONAL:
                    args += [given] if of is wrong else []
                else:
                    args.append(given)
            try:
                made = method(*args, **words)
            except OSError:
                continue
            except (TypeError, ValueError) as error:
                said = str(error)
            else:
                said = ""
                if isinstance(made, Descriptor):
                    made.close()
            assert "\n" not in said
            assert not INTERNAL.search(said), (name, wrong.name, value, said)
