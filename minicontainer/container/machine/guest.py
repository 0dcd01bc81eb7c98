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
    from minicontainer.plan import Plan
    from minicontainer.spec import Spec

TAG = b"root"


def compile(spec: Spec, host: Host) -> Plan:
    """The guest's plan for the whole spec, from the facts about the host that hold for it."""
    inside = division.inner(spec)
    return compiler.compile(inside, division.inner_host(host, spec))


def start(plan: Plan, spec: Spec, host: Host, identifier: str) -> bytes:
    """The payload for the container of this id."""
    flags = compiler.clone_flags(division.inner(spec), division.inner_host(host, spec))
    encoded = placeholders.buffer_with_id(plan, identifier)
    return _payload(plan, encoded, spec, clone=int(flags), tag=TAG, content=host.seccomp)


def start_exec(plan: Plan, spec: Spec, host: Host) -> bytes:
    """The payload for a further process (execplan.py)."""
    return _payload(plan, plan.buffer, spec, window=host.window, numbers={"process": lib.MC_GUEST_PROCESS_FD})


def _payload(
    plan: Plan,
    encoded: bytes,
    spec: Spec,
    *,
    clone: int = 0,
    tag: bytes = b"",
    content: bytes = b"",
    window: tuple[int, int] | None = None,
    numbers: Mapping[str, int] | None = None,
) -> bytes:
    """``content``: of the filter's file, if the plan has one; ``numbers``: descriptors of init, by slot."""
    header = ffi.new("struct mc_guest_start *")
    data, slots = bytearray(ffi.sizeof("struct mc_guest_start")), plan.slots

    def put(part: bytes) -> int:
        data.extend(bytes(-len(data) % 8))
        data.extend(part)
        return len(data) - len(part)

    header.magic, header.flags, header.clone_flags = lib.MC_GUEST_MAGIC, lib.MC_GUEST_TTY if spec.tty else 0, clone
    header.input, header.output, header.error = (
        -1 if spec.tty else slots[name] for name in ("stdin", "stdout", "stderr")
    )
    header.socket = slots.get("parent-socket", -1)
    header.init, header.report, header.filter = (slots.get(name, -1) for name in ("init", "report", "filter"))
    header.rows, header.columns = window or (0, 0)
    header.plan = put(encoded)
    if tag:
        header.tag = put(tag + b"\0")
    if numbers:
        header.initial_slots = put(struct.pack(f"={len(slots)}i", *(numbers.get(name, -1) for name in slots)))
    if header.filter >= 0:
        header.filter_data, header.filter_size = put(content), len(content)
    header.size = len(data)
    data[: ffi.sizeof("struct mc_guest_start")] = ffi.buffer(header)
    return bytes(data)
