"""A container on a network (minicontainer/network/): what its lease becomes in plans.

Theory of operation. The container has a network namespace of its own, made by its clone. The parent-side plan makes a
veth, one end a port of the bridge and the other in that namespace; then the child gives its end the address. What is
sent are messages that were made with the network (``Network.messages``), into which C puts the child's pid and the
address: so the plan of a spec is the same for each container of it, and a monitor can walk it again. Nothing has to be
done at the end: the veth goes with the namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minicontainer import plan as p
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.plan.netlink import if_index, netlink

if TYPE_CHECKING:
    from minicontainer.linux.rtnetlink import Message

PHASE = "network"
CLONE = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH"


class Wire(NamedTuple):
    """What the plans have to know of the network: the ``messages`` to the bridge ``interface`` and to the child's end;
    or, of an ordinary user, the program and the words that connect the child (network/usernet.py)."""

    interface: str
    messages: tuple[tuple[str, Message], ...] = ()
    program: tuple[str, ...] = ()


# ---- the parent-side plan


def parent_plan(wire: Wire) -> Plan:
    """The whole of it, where nothing else is to be done. Inputs: ``pid answer``, then those of ``take``."""
    b = Builder()
    pid, answer = b.input("pid"), b.input("answer")
    take(b, wire)
    b.add(p.await_child())
    connect(b, wire, pid)
    b.add(p.let_go(answer))
    return b.plan()


def take(b: Builder, wire: Wire) -> None:
    """Before the clone: the hosts file of the network, as a mount. Inputs: ``address hosts-file``; or ``said``, where a
    program complains."""
    b.phase = PHASE
    if wire.program:
        b.input("said")
        return
    b.input("address")
    b.add(
        p.open_tree("", CLONE, "hosts", at=b.input("hosts-file")),
        p.mount_setattr(Slot("hosts"), "", "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC"),
    )


def connect(b: Builder, wire: Wire, pid: Slot) -> None:
    """When the child is there: the veth, between the bridge and it; or what takes its place."""
    b.phase = PHASE
    if wire.program:
        b.add(p.run(wire.program[0], [*wire.program[:1], "PID", *wire.program[1:]], pid, Slot("said")))
        return
    sock, message = Slot("rtnetlink"), dict(wire.messages)["veth"]
    shown = f"RTM_NEWLINK veth, {wire.interface} to eth0"
    b.add(_open(sock), netlink(sock, message.data, shown, message.places, first=pid, second=Slot("address")))
    b.add(p.close(sock))


def _open(sock: Slot) -> p.Step:
    kind = p.const("SOCK_RAW|SOCK_CLOEXEC")
    return p.call("socket", p.const("AF_NETLINK"), kind, p.const("NETLINK_ROUTE"), into=sock)


# ---- the child


def configure(b: Builder, wire: Wire | None) -> None:
    """Its end of the veth gets its address and the way out."""
    if wire is None or wire.program:
        return
    b.phase = PHASE
    sock, index = Slot("rtnetlink"), Slot("eth0")
    b.add(_open(sock), if_index("eth0", index))
    for name, message in wire.messages:
        if name != "veth":
            b.add(netlink(sock, message.data, SHOWN[name], message.places, first=index, second=b.input("address")))
    b.add(p.close(sock))


SHOWN = {
    "up": "RTM_NEWLINK eth0 up",
    "address": "RTM_NEWADDR eth0",
    "address6": "RTM_NEWADDR eth0, IPv6",
    "route": "RTM_NEWROUTE default",
    "route6": "RTM_NEWROUTE default, IPv6",
}
