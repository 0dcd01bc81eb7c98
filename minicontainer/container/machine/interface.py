"""The network of a machine: the interface of the monitor's container, whose frames are the guest's.

Theory of operation. The container joins its network as any other does, so eth0 has its hardware address, and is a port
of the network's bridge, or the tap of slirp4netns or pasta. But it gets no addresses: the kernel outside has nothing to
say on that network. A packet(7) socket carries the frames between eth0 and the guest's device (csrc/virtio/net.c). The
guest's eth0 has the same hardware address, and gets the addresses by the steps that would give them to a container's.
"""

from __future__ import annotations

import errno
import struct

from minicontainer import plan as p
from minicontainer.container.network import fixed
from minicontainer.container.network.veth import PHASE
from minicontainer.plan import Slot
from minicontainer.plan.netlink import packet_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.network.veth import Endpoint
    from minicontainer.plan import Builder

SOCKET = "network"  # the slot of the packet socket


def open_socket(b: Builder, endpoint: Endpoint) -> None:
    """Steps of the outer plan: brings eth0 up without any address, of IPv6 too, and opens its packet socket."""
    b.phase = PHASE
    fd = Slot("disable-ipv6")
    step = p.openat("sys/net/ipv6/conf/eth0/disable_ipv6", "O_WRONLY|O_CLOEXEC", fd, at=Slot("proc"))
    b.add(step._replace(tolerate=(errno.ENOENT,), skip=2), p.write(fd, "1"), p.close(fd))  # ENOENT: there is no IPv6
    sock = fixed.socket(b)
    if endpoint.program:
        b.add(fixed.request(sock, "SIOCSIFMTU", struct.pack("=i", fixed.MTU), str(fixed.MTU)))
    b.add(fixed.up(sock), p.close(sock), packet_socket(fixed.INTERFACE, SOCKET))
