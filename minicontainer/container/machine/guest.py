"""What the guest's init gets: the payload of MC_GUEST_START (csrc/guest/control.h)."""

from __future__ import annotations

from minicontainer.container import compiler, placeholders
from minicontainer.container.machine import division
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    header = ffi.new("struct mc_guest_start *")
    head, encoded = ffi.sizeof("struct mc_guest_start"), placeholders.buffer_with_id(plan, identifier)
    header.magic, header.tag, header.plan = lib.MC_GUEST_MAGIC, head, _aligned(head + len(TAG) + 1)
    inside = division.inner(spec)
    header.clone_flags = int(compiler.clone_flags(inside, division.inner_host(host, spec)))
    if spec.attached:
        header.clone_flags &= ~lib.CLONE_NEWNET  # eth0 is in the first network namespace
    slots = plan.slots
    header.input, header.output, header.error = (
        -1 if spec.tty else slots[name] for name in ("stdin", "stdout", "stderr")
    )
    header.socket = slots.get("parent-socket", -1)
    header.flags = lib.MC_GUEST_TTY if spec.tty else 0
    header.init, header.report, header.filter = (slots.get(name, -1) for name in ("init", "report", "filter"))
    image = f"{spec.root_image}\0".encode() if spec.root_image is not None else b""
    image_at = header.plan + len(encoded)
    header.image = image_at if image else 0
    header.initial_slots = _aligned(image_at + len(image))
    initial = ffi.new("int32_t[]", [address if name == "address" else -1 for name in slots])
    filter_at = _aligned(header.initial_slots + ffi.sizeof(initial))
    content = host.seccomp if header.filter >= 0 else b""
    if content:
        header.filter_data, header.filter_size = filter_at, len(content)
    header.size = filter_at + len(content)
    payload = bytearray(header.size)
    payload[:head] = ffi.buffer(header)
    payload[head : head + len(TAG)] = TAG
    payload[header.plan : header.plan + len(encoded)] = encoded
    payload[image_at : image_at + len(image)] = image
    payload[header.initial_slots : header.initial_slots + ffi.sizeof(initial)] = ffi.buffer(initial)
    payload[filter_at:] = content
    return bytes(payload)


def _aligned(offset: int) -> int:
    return -(-offset // 8) * 8
