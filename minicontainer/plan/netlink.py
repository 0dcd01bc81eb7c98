"""The netlink(7) steps of plans, and the step that edits hosts files (csrc/plan/netlink.c)."""

from __future__ import annotations

import errno

from minicontainer.native import lib
from minicontainer.plan.step import Hex, Slot, Step, Struct, check_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def netlink(
    sock: Slot, message: bytes, text: str, places: Sequence[int] = (), *, first: Slot | int = 0, second: Slot | int = 0
) -> Step:
    """sendto(2) of a netlink message, then recvfrom(2) of its acknowledgement, whose errno is the step's. ``places``
    are offsets of 32-bit numbers in the message (0: none): the number in ``first`` is written to the first offset, that
    in ``second`` to the others (three at most). ``text`` is printed for the message."""
    packed = sum(place << (16 * i) for i, place in enumerate(places))
    args = (sock, Struct(message, f"{{{text}}}"), len(message), first, second, Hex(packed))
    return Step("netlink", args, lib.MC_NETLINK)


def if_index(name: str, into: str) -> Step:
    """The index of the interface ``name`` (netdevice(7), SIOCGIFINDEX)."""
    return Step("if_nametoindex", (name,), lib.MC_IF_INDEX, into=Slot(into))


def packet_socket(interface: str, into: str) -> Step:
    """packet(7), SOCK_RAW with PACKET_VNET_HDR: a socket for the frames of an interface that are for its hardware
    address, or for several (csrc/plan/packet.c)."""
    return Step("packet_socket", (interface,), lib.MC_PACKET, into=Slot(into))


def end_flows(sock: Slot, message: bytes, text: str) -> Step:
    """IPCTNL_MSG_CT_DELETE of the tracked connections that the message's filter matches."""
    args = (sock, Struct(message, f"{{{text}}}"), len(message))
    return Step("netlink", args, lib.MC_END_FLOWS, tolerate=(errno.EINVAL, errno.EOPNOTSUPP))  # no conntrack


def comment_out(directory: Slot, offset: Slot | int) -> Step:
    """pwrite(2) of "#" at ``offset`` to each file of a directory: comments out a line of hosts files."""
    return Step("comment_out", (directory, offset), lib.MC_COMMENT_OUT)


check_arguments(globals())
