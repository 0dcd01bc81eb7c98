"""A container joins networks, or another container: the wishes of its spec, as they are to be had here and now."""

from __future__ import annotations

import os
from dataclasses import replace

from minicontainer.container.child import Child
from minicontainer.container.network import peer
from minicontainer.container.network.veth import PHASE, Wire
from minicontainer.linux import namespaces
from minicontainer.linux.rtnetlink import Message
from minicontainer.network import leases, networks
from minicontainer.network.leases import Wish
from minicontainer.network.record import Network
from minicontainer.spec import Spec


def resolved(spec: Spec) -> Spec:
    """With the namespaces of the container that ``network=container:NAME`` names: its network, and the user namespace
    that this belongs to, which gives the rights over it. SpecError where it does not run."""
    other = spec.network.removeprefix("container:")
    pid = peer.process(other)
    same = os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    userns = spec.userns or ("host" if same else f"pid:{pid}")
    found = replace(spec, network=f"pid:{pid}", userns=userns)
    object.__setattr__(found, "_given", peer.given(other))
    return found


def wire_of(spec: Spec, *, make: bool = True) -> tuple[Network | None, Wire]:
    """The network that a spec names, ready (without ``make``, as it would be), and its wire, with the hardware address
    that was asked for. An ordinary user has none but by a program of user space."""
    if not namespaces.is_root():
        from minicontainer.container.network import usernet

        return None, usernet.wire_of(spec)
    network = networks.ready(spec.attached) if make else networks.expected(spec.attached)
    messages = dict(network.messages)
    if spec.mac_address:
        data, (pid, at) = messages["veth"]
        given = bytes.fromhex(spec.mac_address.replace(":", ""))
        messages["veth"] = Message(data[: at - 2] + given + data[at + 4 :], (pid,))
    return network, Wire(network.interface, tuple(messages.items()))


def join(child: Child, spec: Spec, network: Network, hostname: str) -> dict[str, int]:
    """Takes a lease for a container, which is the child's then; what the parent-side plan gets."""
    names = " ".join(dict.fromkeys(filter(None, (spec.name, hostname, child.id))))
    cgroup = "" if child.cgroup is None else child.cgroup.path
    wish = Wish(child.id, names, spec.ip, spec.ports, spec.add_hosts, cgroup)
    child.lease = leases.take(network, wish, lambda call, begin: child.note(PHASE, call, begin))
    return {"address": child.lease.number, "hosts-file": child.lease.open_hosts()}
