"""The parent-side plan of a start: it maps the child's ids (ids/idmapped.py, ids/mappings.py), connects the child to a
network (network/veth.py), or both."""

from __future__ import annotations

from minicontainer.container import compiler
from minicontainer.container.ids import idmapped
from minicontainer.plan.spawn import ParentPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.child import Child
    from minicontainer.container.host import Host
    from minicontainer.network.record import Network
    from minicontainer.plan import Plan
    from minicontainer.spec import Spec


def parent_plan(spec: Spec, host: Host) -> Plan:
    """The parent-side plan of a spec that needs one (``compiler.needs_parent_plan``)."""
    if host.userns == "range":
        return idmapped.parent_plan(spec, host)
    if not compiler.maps_outside(host):
        from minicontainer.container.network import veth

        assert host.endpoint is not None
        return veth.parent_plan(host.endpoint)
    from minicontainer.container.ids import mappings

    return mappings.parent_plan(host.outer_maps, host.endpoint)


def template(spec: Spec, host: Host, plan: Plan) -> ParentPlan | None:
    """The parent-side plan beside the child's plan; None where the child needs none."""
    return ParentPlan(parent_plan(spec, host), plan) if compiler.needs_parent_plan(host) else None


def prepare(child: Child, spec: Spec, host: Host, network: Network | None) -> dict[str, int]:
    """Allocates the child's ids and its network lease; returns the inputs of the parent-side plan by name."""
    inputs = {"pid": -1, "answer": -1}
    if host.userns == "range":
        inputs |= idmapped.prepare(child, spec)
    elif compiler.maps_outside(host) or (host.endpoint is not None and host.endpoint.program):
        from minicontainer.container.ids import mappings

        inputs |= mappings.prepare(child)
    if network is not None:
        from minicontainer.container.network import attach

        inputs |= attach.join(child, spec, network, compiler.hostname(spec, child.id))
    return inputs
