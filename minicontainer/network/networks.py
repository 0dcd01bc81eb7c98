"""Networks are made, found, repaired and removed.

A network is there when its file is; what the kernel has of it (a bridge, elements of our table) can be made again of
that, and is, where somebody took it away. In a state directory that was copied, what the kernel has is the other's, and
nothing of that is touched: it is made again beside it, where the subnet is free. Who makes or removes one has the lock
on all of them.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace

from minicontainer import events, runtime
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.linux import namespaces
from minicontainer.network import bridge, firewall, hosts, members, release, store, subnets
from minicontainer.network.record import CorruptNetworkError, Network
from minicontainer.network.store import NoNetworkError
from minicontainer.spec.values import NAME, NO_NETWORKS

DEFAULT = "bridge"


def create(
    name: str,
    *,
    subnet: str | None = None,
    gateway: str | None = None,
    internal: bool = False,
    ipv6: bool | None = None,
) -> Network:
    """A new network. ``subnet``, ``gateway``: of IPv4, chosen where they are not given; ``internal``: no way leads out;
    ``ipv6``: None, where the host has it. SpecError: there is one of that name, or the subnet is in use."""
    needs_root()
    if not re.fullmatch(NAME, name) or name in NO_NETWORKS:
        raise SpecError("network", name, f"must match {NAME.pattern}, and be none of {' '.join(NO_NETWORKS)}")
    with store.locked(exclusive=True):
        return _create(name, subnet, gateway, internal, ipv6)


def _create(name: str, subnet: str | None, gateway: str | None, internal: bool, ipv6: bool | None) -> Network:
    if os.path.exists(store.path(name, "config.json")):
        raise SpecError("network", name, "already exists", f"minicontainer network rm {name}")
    bridge.remove(bridge.interface_of(name))  # of who was killed while it made one
    others = store.whole()
    used = [*bridge.used(), *(other.subnet for other in others)]
    chosen = subnets.free(used) if subnet is None else subnets.given(subnet, used)
    if ipv6 and not bridge.has_ipv6():
        raise UnsupportedError("ipv6", None, "this host has none", "leave --ipv6 out")
    six = subnets.unique_local(name) if ipv6 or (ipv6 is None and bridge.has_ipv6()) else None
    at = subnets.gateway(chosen, gateway)
    network = Network(name, bridge.interface_of(name), chosen, at, six, internal, time.time())
    try:
        network = _raise(network, [*others, network])
    except BaseException:
        _take_down(network, others)
        raise
    events.emit("network", "create", name)
    return network


def _raise(network: Network, networks: list[Network]) -> Network:
    """What the kernel has of it, and its files."""
    failpoint("network begun")
    index = bridge.make(network)
    network = replace(network, index=index, messages=bridge.messages(network, index))
    _let_forward(networks)
    firewall.load(networks, members.published())
    failpoint("table loaded")
    runtime.make_directory(store.path(network.name, "hosts"))
    fd = os.open(store.path(network.name, "hosts"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if hosts.SHARED not in os.listdir(fd):
            hosts.make(fd)
    finally:
        os.close(fd)
    store.write(network)
    return network


def _take_down(network: Network, others: list[Network]) -> None:
    store.forget(network.name)
    bridge.remove(network.interface)
    _settle(others)


def _settle(networks: list[Network]) -> None:
    """The table and the host, as these networks want them."""
    try:
        firewall.load(networks, members.published())
    finally:
        if not any(map(bridge.is_own, networks)):
            _forward_as_before()


def ready(name: str) -> Network:
    """A network to join: the default one is made where it is missing; what somebody took away of one is made again.
    NoNetworkError."""
    needs_root()
    try:
        network = store.read(name)
    except NoNetworkError:
        if name != DEFAULT:
            raise
        with store.locked(exclusive=True):
            if os.path.exists(store.path(name, "config.json")):
                return store.read(name)  # another made it meanwhile
            return _create(name, None, None, False, None)
    is_whole = bridge.is_own(network) and bridge.number(network.interface) == network.index
    return network if is_whole else repair(name)


def expected(name: str) -> Network:
    """The network that ``ready`` would give; nothing is made for it."""
    needs_root()
    try:
        return store.read(name)
    except NoNetworkError:
        if name != DEFAULT:
            raise
    subnet = subnets.free([])
    six = subnets.unique_local(name) if bridge.has_ipv6() else None
    network = Network(name, bridge.interface_of(name), subnet, subnet[1], six, False, time.time())
    return replace(network, messages=bridge.messages(network, 0))


def repair(name: str) -> Network:
    """Makes the bridge and the table again."""
    with store.locked(exclusive=True):
        network = store.read(name)
        others = [other for other in store.whole() if other.name != name]
        if not bridge.is_own(network):
            network = _made_own(network, others)
        network = _raise(network, [*others, network])
        release.forget_flows(members.published())
        return network


def _made_own(network: Network, others: list[Network]) -> Network:
    """One of another state directory's, as this one can have it. SpecError where the other has it still."""
    name = network.name
    try:
        subnets.given(str(network.subnet), [*bridge.used(), *(other.subnet for other in others)])
    except SpecError as e:
        reason = f"is of another state directory, and {network.subnet} {e.reason}"
        raise SpecError("network", name, reason, f"minicontainer network rm {name}") from None
    store.clear(name)
    six = None if network.subnet6 is None else subnets.unique_local(name)
    return replace(network, interface=bridge.interface_of(name), subnet6=six)


def needs_root() -> None:
    """UnsupportedError for an ordinary user."""
    if not namespaces.is_root():
        raise UnsupportedError("network", None, "bridges are root's", "--network bridge or -p, by slirp4netns or pasta")


def remove(name: str) -> None:
    """Removes a network. Error where somebody is on it."""
    needs_root()
    with store.locked(exclusive=True):
        if name not in store.names():
            raise NoNetworkError("network", name, "there is no such network", "minicontainer network ls")
        release.reclaim(name)
        if on_it := [lease.who for lease in members.of(name)]:
            more = f" and {len(on_it) - 3} more" if len(on_it) > 3 else ""
            raise Error(f"network {name}: is in use by {', '.join(on_it[:3])}{more} (stop or remove them first)")
        others = [other for other in store.whole() if other.name != name]
        store.forget(name)
        failpoint("network directory removed")
        bridge.remove(bridge.interface_of(name))
        failpoint("bridge removed")
        _settle(others)
        events.emit("network", "destroy", name)


def left_behind() -> list[str]:
    """Networks whose maker or remover was killed on the way, and bridges (also in our table) and tables of none."""
    if not namespaces.is_root():
        return []  # an ordinary user has none
    names = store.names()
    found = [name for name in names if not os.path.exists(store.path(name, "config.json"))]
    known = {bridge.interface_of(name) for name in names}
    found += sorted({*bridge.interfaces(), *firewall.bridges()} - known)
    if not names and not found and firewall.is_there():
        found.append(f"table inet {firewall.table()}")
    return found


def end_left_behind(name: str) -> bool:
    """Removes what ``left_behind`` named, and makes the table what the files say; False: it is whole by now."""
    with store.locked(exclusive=True):
        if name not in left_behind():
            return False
        if name in store.names():
            store.forget(name)
        for interface in {name, bridge.interface_of(name)} & set(bridge.interfaces()):
            bridge.remove(interface)
        _settle(store.whole())
        return True


# ---- net.ipv4.ip_forward


def _let_forward(networks: list[Network]) -> None:
    """The host becomes a router, for as long as there is a network with a way out; of IPv4: with IPv6 it would give up
    the routes that it has from others (accept_ra of ip-sysctl)."""
    if all(network.internal for network in networks if bridge.is_own(network)):
        return
    with store.host_locked() as kept:
        if not os.path.exists(kept):
            with open(kept, "w", encoding="ascii") as f:
                f.write(bridge.read_sysctl(bridge.FORWARDING))
        bridge.write_sysctl(bridge.FORWARDING, "1")


def _forward_as_before() -> None:
    """Once there is no network any more, of any state directory."""
    with store.host_locked() as kept:
        if bridge.interfaces(others=True):
            return
        try:
            before = runtime.read(kept)
        except (FileNotFoundError, ValueError):
            return
        if before == "0":
            bridge.write_sysctl(bridge.FORWARDING, before)
        os.unlink(kept)


def inspect(name: str) -> dict[str, object]:
    """All that is known of one, as plain data."""
    network = store.read(name)
    return {
        "name": network.name,
        "interface": network.interface,
        "subnet": str(network.subnet),
        "gateway": str(network.gateway),
        "subnet6": None if network.subnet6 is None else str(network.subnet6),
        "gateway6": None if network.gateway6 is None else str(network.gateway6),
        "internal": network.internal,
        "created": network.created,
        "members": [lease.to_data() for lease in members.of(name)],
    }


__all__ = ["CorruptNetworkError", "NoNetworkError", "create", "inspect", "ready", "remove", "repair"]
