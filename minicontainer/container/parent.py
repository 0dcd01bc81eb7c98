"""The parent-side plan of a start: ids (ids/idmapped.py, ids/mappings.py), a network (network/veth.py), or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicontainer.container import compiler
from minicontainer.container.child import Child
from minicontainer.container.host import Host
from minicontainer.container.ids import idmapped
from minicontainer.container.network import veth
from minicontainer.plan import Plan
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.network.record import Network


def plan_of(spec: Spec, host: Host) -> Plan:
    """Its plan, for a spec that needs one."""
    if host.userns == "range":
        return idmapped.parent_plan(spec, host)
    if not compiler.maps_outside(host):
        assert host.wire is not None
        return veth.parent_plan(host.wire)
    from minicontainer.container.ids import mappings

    return mappings.parent_plan(host.userns, host.wire)


def prepare(child: Child, spec: Spec, host: Host, network: Network | None) -> dict[str, int]:
    """Takes ids and a lease for the child, as it needs them: the inputs of its parent-side plan."""
    numbers = {"pid": -1, "answer": -1}
    if host.userns == "range":
        numbers |= idmapped.prepare(child, spec)
    elif compiler.maps_outside(host) or (host.wire is not None and host.wire.program):
        from minicontainer.container.ids import mappings

        numbers |= mappings.prepare(child)
    if network is not None:
        from minicontainer.container.network import joining

        numbers |= joining.join(child, spec, network, compiler.hostname(spec, child.id))
    return numbers
