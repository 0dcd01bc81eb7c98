"""The parent's half of a start: ids (ranged.py, idmap.py), a network (attached.py), or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicontainer.container import attached, compiler, ranged
from minicontainer.container.child import Child
from minicontainer.container.host import Host
from minicontainer.plan import Plan
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.network.record import Network


def plan_of(spec: Spec, host: Host) -> Plan:
    """Its plan, for a spec that needs one."""
    if host.userns == "range":
        return ranged.half_plan(spec, host)
    if not compiler.maps_outside(host):
        assert host.wire is not None
        return attached.half_plan(host.wire)
    from minicontainer.container import idmap

    return idmap.half_plan(host.userns, host.wire)


def prepare(child: Child, spec: Spec, host: Host, network: Network | None) -> dict[str, int]:
    """Takes ids and a lease for the child, as it needs them: the inputs of its half."""
    numbers = {"pid": -1, "answer": -1}
    if host.userns == "range":
        numbers |= ranged.prepare(child, spec)
    elif compiler.maps_outside(host) or (host.wire is not None and host.wire.program):
        from minicontainer.container import idmap

        numbers |= idmap.prepare(child)
    if network is not None:
        from minicontainer.container import joining

        numbers |= joining.join(child, spec, network, compiler.hostname(spec, child.id))
    return numbers
