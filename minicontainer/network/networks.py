"""Creates, repairs and removes networks.

A network exists when its file exists. Its bridge and its elements of the nftables table are made from the file, and
made again if another program has removed them. In a copied state directory, the existing bridge belongs to the
original. It is not touched: the network gets another bridge, if the subnet is free. A process that creates or removes a
network holds the lock on all networks.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from minicontainer import events, runtime
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.linux.userns import is_root
from minicontainer.network import bridge, firewall, hosts, members, release, store, subnets
from minicontainer.network.record import CorruptNetworkError, Network
from minicontainer.network.store import NoNetworkError
from minicontainer.spec.values import NAME_PATTERN, NO_NETWORKS, is_name

DEFAULT = "bridge"


def create(
    name: str,
    *,
    subnet: str | None = None,
    gateway: str | None = None,
    internal: bool = False,
    ipv6: bool | None = None,
) -> Network:
    """Creates a network. ``subnet``: IPv4 (None: a free one); ``gateway``: the host's address in it (None: the first);
    ``internal``: no route to the outside; ``ipv6``: also IPv6 addresses (None: if the host has IPv6). SpecError: the
    name exists, or the subnet is in use."""
    needs_root()
    if not is_name(name) or name in NO_NETWORKS:
        raise SpecError("network", name, f"must match {NAME_PATTERN}, and be none of {' '.join(NO_NETWORKS)}")
    with store.locked(exclusive=True):
        return _create(name, subnet, gateway, internal, ipv6)


def _create(name: str, subnet: str | None, gateway: str | None, internal: bool, ipv6: bool | None) -> Network:
    if os.path.exists(store.path(name, "config.json")):
        raise SpecError("network", name, "already exists", f"minicontainer network rm {name}")
    bridge.remove(bridge.interface_of(name))  # a process that was killed in ``create`` may have left it
    others = store.readable()
    used = [*bridge.used(), *(other.subnet for other in others)]
    chosen = subnets.free(used) if subnet is None else subnets.requested(subnet, used)
    if ipv6 and not bridge.has_ipv6():
        raise UnsupportedError("ipv6", None, "this host has none", "leave --ipv6 out")
    six = subnets.unique_local(name) if ipv6 or (ipv6 is None and bridge.has_ipv6()) else None
    at = subnets.gateway(chosen, gateway)
    network = Network(name, bridge.interface_of(name), chosen, at, six, internal, time.time())
    try:
        network = _bring_up(network, [*others, network])
    except BaseException:
        _take_down(network, others)
        raise
    events.emit("network", "create", name)
    return network


def _bring_up(network: Network, networks: list[Network]) -> Network:
    """Makes the bridge, the table and the files."""
    failpoint("network started")
    index = bridge.make(network)
    network = replace(network, index=index, messages=bridge.messages(network, index))
    _enable_forwarding(networks)
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
    store.remove(network.name)
    bridge.remove(network.interface)
    _reload(others)


def _reload(networks: list[Network]) -> None:
    """Loads the table for these networks; restores the host's forwarding if there are none."""
    try:
        firewall.load(networks, members.published())
    finally:
        if not any(map(bridge.is_own, networks)):
            _restore_forwarding()


def ensure(name: str) -> Network:
    """A network that can be joined: the default network is created if it is missing, an incomplete one is repaired.
    NoNetworkError."""
    needs_root()
    try:
        network = store.read(name)
    except NoNetworkError:
        if name != DEFAULT:
            raise
        with store.locked(exclusive=True):
            if os.path.exists(store.path(name, "config.json")):
                return store.read(name)  # another process created it meanwhile
            return _create(name, None, None, False, None)
    is_whole = bridge.is_own(network) and bridge.number(network.interface) == network.index
    return network if is_whole else repair(name)


def expected(name: str) -> Network:
    """The network that ``ensure`` would return. Creates nothing."""
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
    """Makes the bridge and loads the table again."""
    with store.locked(exclusive=True):
        network = store.read(name)
        others = [other for other in store.readable() if other.name != name]
        if not bridge.is_own(network):
            network = _adopt(network, others)
        network = _bring_up(network, [*others, network])
        release.forget_flows(members.published())
        return network


def _adopt(network: Network, others: list[Network]) -> Network:
    """A network that was copied from another state directory, with a bridge of this state directory. SpecError if the
    original is in use."""
    name = network.name
    try:
        subnets.requested(str(network.subnet), [*bridge.used(), *(other.subnet for other in others)])
    except SpecError as e:
        reason = f"is of another state directory, and {network.subnet} {e.reason}"
        raise SpecError("network", name, reason, f"minicontainer network rm {name}") from None
    store.clear(name)
    six = None if network.subnet6 is None else subnets.unique_local(name)
    return replace(network, interface=bridge.interface_of(name), subnet6=six)


def needs_root() -> None:
    """UnsupportedError for an ordinary user."""
    if not is_root():
        raise UnsupportedError("network", None, "bridges are root's", "--network bridge or -p, by slirp4netns or pasta")


def remove(name: str) -> None:
    """Removes a network. Error if it has members."""
    needs_root()
    with store.locked(exclusive=True):
        if name not in store.names():
            raise NoNetworkError("network", name, "there is no such network", "minicontainer network ls")
        release.reclaim(name)
        if users := [lease.description for lease in members.of(name)]:
            more = f" and {len(users) - 3} more" if len(users) > 3 else ""
            raise Error(f"network {name}: is in use by {', '.join(users[:3])}{more} (stop or remove them first)")
        others = [other for other in store.readable() if other.name != name]
        store.remove(name)
        failpoint("network directory removed")
        bridge.remove(bridge.interface_of(name))
        failpoint("bridge removed")
        _reload(others)
        events.emit("network", "destroy", name)


def left_behind() -> list[str]:
    """Incomplete networks, where a process was killed in ``create`` or ``remove``; bridges (of the host or the table)
    without a network; the table without networks."""
    if not is_root():
        return []  # an ordinary user cannot create networks
    names = store.names()
    incomplete = [name for name in names if not os.path.exists(store.path(name, "config.json"))]
    known = {bridge.interface_of(name) for name in names}
    incomplete += sorted({*bridge.interfaces(), *firewall.bridges()} - known)
    if not names and not incomplete and firewall.exists():
        incomplete.append(f"table inet {firewall.table()}")
    return incomplete


def end_left_behind(name: str) -> bool:
    """Removes one result of ``left_behind``, and loads the table; False if it was completed meanwhile."""
    with store.locked(exclusive=True):
        if name not in left_behind():
            return False
        if name in store.names():
            store.remove(name)
        for interface in {name, bridge.interface_of(name)} & set(bridge.interfaces()):
            bridge.remove(interface)
        _reload(store.readable())
        return True


# ---- net.ipv4.ip_forward


def _enable_forwarding(networks: list[Network]) -> None:
    """Enables IPv4 forwarding while there is a network that is not internal. IPv6 forwarding stays as it is: with it
    the host would ignore router advertisements (accept_ra in the kernel's ip-sysctl.rst)."""
    if all(network.internal for network in networks if bridge.is_own(network)):
        return
    with store.host_locked() as path:
        if not os.path.exists(path):
            with open(path, "w", encoding="ascii") as f:
                f.write(bridge.read_sysctl(bridge.FORWARDING))
        bridge.write_sysctl(bridge.FORWARDING, "1")


def _restore_forwarding() -> None:
    """Restores IPv4 forwarding if no state directory has a network any more."""
    with store.host_locked() as path:
        if bridge.interfaces(others=True):
            return
        try:
            before = runtime.read(path)
        except (FileNotFoundError, ValueError):
            return
        if before == "0":
            bridge.write_sysctl(bridge.FORWARDING, before)
        os.unlink(path)


def inspect(name: str) -> dict[str, object]:
    """A network and its members, as JSON data."""
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


__all__ = ["CorruptNetworkError", "NoNetworkError", "create", "inspect", "ensure", "remove", "repair"]
