"""Prepares the network that a spec asks for: an endpoint on a network, or another container's namespaces."""

from __future__ import annotations

import os
from dataclasses import replace

from minicontainer.container.child import Child
from minicontainer.container.network import peer
from minicontainer.container.network.veth import PHASE, Endpoint
from minicontainer.linux.rtnetlink import Message
from minicontainer.linux.userns import is_root
from minicontainer.network import leases, networks
from minicontainer.network.leases import LeaseRequest
from minicontainer.network.record import Network
from minicontainer.spec import Spec


def resolve(spec: Spec) -> Spec:
    """The spec with ``network=container:NAME`` replaced by that container's network namespace, and with the user
    namespace that owns it, which gives the rights over it. SpecError where that container does not run."""
    other = spec.network.removeprefix("container:")
    pid = peer.process(other)
    same = os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    userns = spec.userns or ("host" if same else f"pid:{pid}")
    resolved = replace(spec, network=f"pid:{pid}", userns=userns)
    object.__setattr__(resolved, "_peer_etc", peer.etc_files(other))
    return resolved


def endpoint_of(spec: Spec, *, create: bool = True) -> tuple[Network | None, Endpoint]:
    """The network that a spec names, and the container's endpoint on it, with ``spec.mac_address``.

    With ``create``, the network is created or repaired; else only described. For an ordinary user: None, and the
    endpoint of a user-space network stack (usernet.py)."""
    if not is_root():
        from minicontainer.container.network import usernet

        return None, usernet.endpoint_of(spec)
    network = networks.ensure(spec.attached) if create else networks.expected(spec.attached)
    messages = dict(network.messages)
    if spec.mac_address:
        data, (pid, offset) = messages["veth"]
        mac = bytes.fromhex(spec.mac_address.replace(":", ""))
        messages["veth"] = Message(data[: offset - 2] + mac + data[offset + 4 :], (pid,))
    return network, Endpoint(network.interface, tuple(messages.items()))


def join(child: Child, spec: Spec, network: Network, hostname: str) -> dict[str, int]:
    """Takes a lease of the network as ``child.lease``; returns the inputs of the parent-side plan."""
    names = " ".join(dict.fromkeys(filter(None, (spec.name, hostname, child.id))))
    cgroup = "" if child.cgroup is None else child.cgroup.path
    request = LeaseRequest(child.id, names, spec.ip, spec.ports, spec.add_hosts, cgroup)
    child.lease = leases.take(network, request, lambda call, start_ns: child.note(PHASE, call, start_ns))
    return {"address": child.lease.address_number, "hosts-file": child.lease.open_hosts()}
