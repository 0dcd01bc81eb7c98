"""What the guest's init gets: the payload of MC_GUEST_START (csrc/guest/control.h)."""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it

from minicontainer.container import compiler, placeholders
from minicontainer.container.machine import division
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minicontainer.container.host import Host
    from minicontainer.container.network.veth import Endpoint
    from minicontainer.plan import Plan
    from minicontainer.spec import Spec

TAG = b"root"


def compile(spec: Spec, host: Host, endpoint: Endpoint | None = None) -> Plan:
    """The guest's plan for the whole spec, from the facts about the host that hold for it. ``endpoint``: the outer
    container's connection to a network."""
    inside = division.inner(spec)
    return compiler.compile(inside, division.inner_host(host, spec, endpoint))


def start(plan: Plan, spec: Spec, host: Host, identifier: str, address: int = 0) -> bytes:
    """The payload for the container of this id. ``address``: its IPv4 address, as the value of a slot."""
    flags = int(compiler.clone_flags(division.inner(spec), division.inner_host(host, spec)))
    if spec.attached:
        flags &= ~lib.CLONE_NEWNET  # eth0 is in the first network namespace
    payload = _Payload(plan, placeholders.buffer_with_id(plan, identifier), spec)
    payload.header.clone_flags = flags
    payload.header.tag = payload.put(TAG + b"\0")
    if spec.root_image is not None:
        payload.header.image = payload.put(f"{spec.root_image}\0".encode())
    payload.put_numbers({"address": address})
    payload.put_filter(host.seccomp)
    return payload.whole()


def start_exec(plan: Plan, spec: Spec, host: Host) -> bytes:
    """The payload for a further process (execplan.py)."""
    payload = _Payload(plan, plan.buffer, spec)
    payload.header.rows, payload.header.columns = host.window or (0, 0)
    payload.put_numbers({"process": lib.MC_GUEST_PROCESS_FD})
    return payload.whole()


class _Payload:
    """A payload that grows; its parts are aligned for structures of C."""

    def __init__(self, plan: Plan, encoded: bytes, spec: Spec) -> None:
        self._slots = slots = plan.slots
        self._plan = encoded
        self._data = bytearray(ffi.sizeof("struct mc_guest_start"))
        self.header = header = ffi.new("struct mc_guest_start *")
        header.magic, header.flags = lib.MC_GUEST_MAGIC, lib.MC_GUEST_TTY if spec.tty else 0
        header.input, header.output, header.error = (
            -1 if spec.tty else slots[name] for name in ("stdin", "stdout", "stderr")
        )
        header.socket = slots.get("parent-socket", -1)
        header.init, header.report, header.filter = (slots.get(name, -1) for name in ("init", "report", "filter"))

    def put(self, part: bytes) -> int:
        """Its offset."""
        self._data.extend(bytes(-len(self._data) % 8))
        self._data.extend(part)
        return len(self._data) - len(part)

    def put_numbers(self, numbers: Mapping[str, int]) -> None:
        """The values of slots before the walk, by their names: descriptors of init, and others."""
        values = (numbers.get(name, -1) for name in self._slots)
        self.header.initial_slots = self.put(struct.pack(f"={len(self._slots)}i", *values))

    def put_filter(self, content: bytes) -> None:
        """The content of the filter's file, if the plan has one."""
        if self.header.filter >= 0:
            self.header.filter_data, self.header.filter_size = self.put(content), len(content)

    def whole(self) -> bytes:
        self.header.plan = self.put(self._plan)  # the last part: a compiled file puts the program's arguments behind it
        self.header.size = len(self._data)
        self._data[: ffi.sizeof("struct mc_guest_start")] = ffi.buffer(self.header)
        return bytes(self._data)
