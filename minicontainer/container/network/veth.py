"""The steps that connect a container to a network of minicontainer/network/ by a veth pair.

Theory of operation. The child's clone creates its network namespace. The parent-side plan creates a veth(4) pair: one
end is a port of the bridge, the other, eth0, is in that namespace. Then the child's plan configures eth0. The rtnetlink
messages were encoded when the network was created (``Network.messages``); C fills in the child's pid and address, so
that all containers of a spec share one plan, and a monitor can run it again. The kernel removes the pair with the
namespace.
"""

from __future__ import annotations

from minicontainer import plan as p
from minicontainer.container.network import fixed
from minicontainer.plan import Builder, Slot
from minicontainer.plan.netlink import if_index, netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.linux.rtnetlink import Message
    from minicontainer.plan import Plan
else:
    from minicontainer.records import NamedTuple

PHASE = "network"
CLONE = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH"


class Endpoint(NamedTuple):
    """A container's connection to a network.

    interface  the bridge (for an ordinary user: the network's name)
    messages   the rtnetlink messages that create and configure the veth pair
    program    for an ordinary user: the command that connects the child instead (network/usernet.py)
    in_guest   eth0 is a device of the guest's: it is there, and has no addresses yet"""

    interface: str
    messages: tuple[tuple[str, Message], ...] = ()
    program: tuple[str, ...] = ()
    in_guest: bool = False


# ---- the parent-side plan


def parent_plan(endpoint: Endpoint) -> Plan:
    """The parent-side plan of a container that needs an endpoint only. Inputs: ``pid answer``, then those of
    ``prepare``."""
    b = Builder()
    pid, answer = b.input("pid"), b.input("answer")
    prepare(b, endpoint)
    b.add(p.await_child())
    connect(b, endpoint, pid)
    b.add(p.let_go(answer))
    return b.plan()


def prepare(b: Builder, endpoint: Endpoint) -> None:
    """Steps before the clone: a detached mount of the network's hosts file. Inputs: ``address hosts-file``; or
    ``helper-output``, the file for a program's error output."""
    b.phase = PHASE
    if endpoint.program:
        b.input("helper-output")
        return
    b.input("address")
    b.add(
        p.open_tree("", CLONE, "hosts", at=b.input("hosts-file")),
        p.mount_setattr(Slot("hosts"), "", "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC"),
    )


def connect(b: Builder, endpoint: Endpoint, pid: Slot) -> None:
    """Steps after the clone: creates the veth pair, or runs the user-space program."""
    b.phase = PHASE
    if endpoint.program:
        program, *arguments = endpoint.program
        b.add(p.run(program, [program, "PID", *arguments], pid, Slot("helper-output")))
        return
    sock, message = Slot("rtnetlink"), dict(endpoint.messages)["veth"]
    description = f"RTM_NEWLINK veth, {endpoint.interface} to eth0"
    b.add(_open(sock), netlink(sock, message.data, description, message.places, first=pid, second=Slot("address")))
    b.add(p.close(sock))


def _open(sock: Slot) -> p.Step:
    kind = p.const("SOCK_RAW|SOCK_CLOEXEC")
    return p.call("socket", p.const("AF_NETLINK"), kind, p.const("NETLINK_ROUTE"), into=sock)


# ---- the child's plan


def configure(b: Builder, endpoint: Endpoint) -> None:
    """Steps of the child: brings eth0 up, with its addresses and the default routes."""
    if endpoint.program:
        if endpoint.in_guest:
            fixed.configure(b)
        return
    b.phase = PHASE
    sock, index = Slot("rtnetlink"), Slot("eth0")
    b.add(_open(sock), if_index("eth0", index))
    for name, message in endpoint.messages:
        if name != "veth":
            text = DESCRIPTIONS[name]
            b.add(netlink(sock, message.data, text, message.places, first=index, second=b.input("address")))
    b.add(p.close(sock))


DESCRIPTIONS = {
    "up": "RTM_NEWLINK eth0 up",
    "address": "RTM_NEWADDR eth0",
    "address6": "RTM_NEWADDR eth0, IPv6",
    "route": "RTM_NEWROUTE default",
    "route6": "RTM_NEWROUTE default, IPv6",
}
