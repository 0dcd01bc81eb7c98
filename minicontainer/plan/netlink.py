"""Steps of plans that speak netlink(7), and what goes with them (csrc/plan/netlink.c)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from minicontainer.native import lib
from minicontainer.plan.step import Hex, Slot, Step, Struct, checked


def netlink(
    sock: Slot, message: bytes, shown: str, places: Sequence[int] = (), *, first: Slot | int = 0, second: Slot | int = 0
) -> Step:
    """sendto(2) of a netlink message, and its answer: an errno. At the first of ``places`` (offsets, 0: nowhere) it
    gets the number in ``first``, at the others (three at most) that in ``second``."""
    packed = sum(place << (16 * i) for i, place in enumerate(places))
    args = (sock, Struct(message, f"{{{shown}}}"), len(message), first, second, Hex(packed))
    return Step("netlink", args, lib.MC_NETLINK)


def if_index(name: str, into: str) -> Step:
    """The number of an interface (netdevice(7), SIOCGIFINDEX)."""
    return Step("if_nametoindex", (name,), lib.MC_IF_INDEX, into=Slot(into))


def end_flows(sock: Slot, message: bytes, shown: str) -> Step:
    """IPCTNL_MSG_CT_DELETE of the tracked connections that the message's filter has."""
    args = (sock, Struct(message, f"{{{shown}}}"), len(message))
    return Step("netlink", args, lib.MC_END_FLOWS, tolerate=(errno.EINVAL, errno.EOPNOTSUPP))  # none are tracked


def forget(directory: Slot, offset: Slot | int) -> Step:
    """pwrite(2) of "#" at ``offset`` in each file of a directory."""
    return Step("forget", (directory, offset), lib.MC_FORGET)


checked(globals())  # of each, what it is given
