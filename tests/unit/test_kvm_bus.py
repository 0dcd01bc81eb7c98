"""Who answers at a port or an address: ranges, their limits, and devices that end a machine."""

from __future__ import annotations

import calendar
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import SpecError
from minicontainer.kvm import devices
from minicontainer.kvm.bus import PORTS, Access, Bus, Handler
from minicontainer.kvm.exits import GuestEnd
from minicontainer.kvm.rtc import Rtc


def device(name: str) -> Handler:
    """A handler that can be told from others."""

    def answer(access: Access) -> int | None:
        return None

    answer.__name__ = name
    return answer


def owner(found: object) -> str:
    return getattr(found, "__name__", "nobody")


# ---- ports


def test_ports_belong_to_who_took_them_last() -> None:
    bus = Bus()
    bus.add_ports(0x500, 4, device("a"))
    bus.add_ports(0x502, 1, device("b"))
    assert [owner(bus.ports.get(port)) for port in range(0x4FF, 0x505)] == ["nobody", "a", "a", "b", "a", "nobody"]


def test_all_ports_can_be_had() -> None:
    bus = Bus()
    bus.add_ports(0, PORTS, device("all"))
    assert len(bus.ports) == PORTS == 65536


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 0), (5, -1), (PORTS, 1), (PORTS - 1, 2), (0, PORTS + 1)])
def test_there_are_65536_ports(first: int, count: int) -> None:
    with pytest.raises(SpecError, match=r"^port "):
        Bus().add_ports(first, count, device("x"))


# ---- addresses


def test_addresses_belong_to_one_device() -> None:
    bus = Bus()
    bus.add_addresses(0x3000, 0x1000, device("high"))
    bus.add_addresses(0x1000, 0x1000, device("low"))
    bus.add_addresses(0x2000, 0x1000, device("middle"))
    places = [0, 0xFFF, 0x1000, 0x1FFF, 0x2000, 0x2FFF, 0x3000, 0x3FFF, 0x4000, 1 << 60]
    found = [owner(bus.at_address(place)) for place in places]
    assert found == ["nobody", "nobody", "low", "low", "middle", "middle", "high", "high", "nobody", "nobody"]


@pytest.mark.parametrize(("first", "size"), [(0x1FFF, 1), (0x0FFF, 2), (0x1800, 0x10), (0, 0x10000), (0x1000, 0x1000)])
def test_devices_do_not_overlap(first: int, size: int) -> None:
    bus = Bus()
    bus.add_addresses(0x1000, 0x1000, device("a"))
    with pytest.raises(SpecError, match="overlaps the device at 0x1000 to 0x2000"):
        bus.add_addresses(first, size, device("b"))
    assert owner(bus.at_address(0x1800)) == "a"


@pytest.mark.parametrize(("first", "size"), [(-1, 8), (0x1000, 0), (0x1000, -4)])
def test_a_range_has_a_beginning_and_a_size(first: int, size: int) -> None:
    with pytest.raises(SpecError, match="are no range"):
        Bus().add_addresses(first, size, device("x"))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_whatever_is_added_a_place_has_the_first_that_took_it(ranges: list[tuple[int, int]]) -> None:
    bus, owners = Bus(), {}
    for number, (first, size) in enumerate(ranges):
        places = range(first, first + size)
        if any(place in owners for place in places):
            with pytest.raises(SpecError, match="overlaps"):
                bus.add_addresses(first, size, device(str(number)))
        else:
            bus.add_addresses(first, size, device(str(number)))
            owners.update(dict.fromkeys(places, str(number)))
    assert [owner(bus.at_address(place)) for place in range(90)] == [owners.get(place, "nobody") for place in range(90)]


# ---- devices that every machine has


def write(port: int, value: int) -> int | None:
    return devices.PORTS[port](Access(port, 1, True, value, 0))


@pytest.mark.parametrize(
    ("port", "value", "reason"),
    [(0x64, 0xFE, "reset"), (0x92, 0x01, "reset"), (0xCF9, 0x06, "reset"), (0x600, 0x20 | 5 << 2, "poweroff")],
)
def test_ends(port: int, value: int, reason: str) -> None:
    with pytest.raises(GuestEnd) as end:
        write(port, value)
    assert end.value.reason == reason


@pytest.mark.parametrize(
    ("port", "value"), [(0x64, 0xAA), (0xCF9, 0x02), (0x600, 5 << 2), (0x600, 0x20), (0x601, 0x20 | 5 << 2)]
)
def test_no_ends(port: int, value: int) -> None:
    assert write(port, value) == 0


def test_the_clock_tells_the_time() -> None:
    ports = Rtc().ports

    def read(register: int) -> int:
        for nmi in (0x80, 0):
            ports[0x70](Access(0x70, 1, True, register | nmi, 0))
        value = ports[0x71](Access(0x71, 1, False, 0, 0))
        assert value is not None
        return value

    def told() -> int:
        digits = [f"{read(register):02x}" for register in (0x32, 9, 8, 7, 4, 2, 0)]
        return calendar.timegm(time.strptime("".join(digits), "%Y%m%d%H%M%S"))

    before, readings = int(time.time()), [told(), told()]  # a minute may end while one is read
    assert any(before <= reading <= time.time() for reading in readings)
    assert read(6) == (time.gmtime().tm_wday + 1) % 7 + 1
    assert [read(register) for register in (10, 11, 12, 13)] == [0x26, 0x02, 0, 0x80]
    assert read(10) & 0x80 == 0, "no update is in progress"
    assert read(0x40) == 0
    ports[0x71](Access(0x71, 1, True, 0x1AB, 0))
    assert read(0x40) == 0xAB


def test_reading_them_changes_nothing() -> None:
    found = {port: handler(Access(port, 1, False, 0xFE, 0)) for port, handler in devices.PORTS.items()}
    assert found == {0x64: 0, 0x92: 2, 0xCF9: 0, 0x600: 0, 0x601: 0}
