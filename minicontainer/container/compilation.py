"""Compiles a spec for this host, and keeps the result as long as the facts about the host hold."""

from __future__ import annotations

import os

from minicontainer.container import compiler, facts, host, parent
from minicontainer.container.cgroup import devices
from minicontainer.container.facts import CALLER
from minicontainer.errors import SpecError
from minicontainer.linux.processes import check_proc
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

    from minicontainer.container.network.veth import Endpoint
    from minicontainer.linux.devices import Rule
    from minicontainer.network.record import Network
    from minicontainer.plan import Const, Plan
    from minicontainer.plan.spawn import ParentPlan
    from minicontainer.spec import Spec

    Plans = Callable[[Spec, host.Host], tuple[Plan, ParentPlan | None]]
else:
    from minicontainer.records import NamedTuple


class Compiled(NamedTuple):
    """A spec compiled for this host.

    plan             the child's plan
    flags            the CLONE_NEW* flags of the child's clone3
    parent_plan      the parent-side plan; None where the child needs none
    common_inputs    number of plan inputs that are streams or come from the parent-side plan; ``extra_inputs`` opens
                     the others
    allowed_devices  the devices that the container may use; None: any
    network          the network that the container joins; None: none, or the user-space network of an ordinary user
    streams          the slot of stdin plus 1, for struct mc_spawn; 0: a terminal
    caller           struct mc_caller: the facts about the caller and ROOTFS; None where others matter too
    rootfs           the path of ROOTFS
    exe              as in ``facts.gather``"""

    host: host.Host
    plan: Plan
    flags: Const
    parent_plan: ParentPlan | None
    common_inputs: int
    allowed_devices: tuple[Rule, ...] | None
    network: Network | None
    streams: int
    caller: Any
    rootfs: bytes
    exe: str = CALLER

    def is_current(self) -> bool:
        """Whether the host facts still hold, without reading them again."""
        return self.caller is not None and lib.mc_is_caller(self.rootfs, self.caller) == 1


def compile_spec(spec: Spec, exe: str = CALLER, *, create: bool = True) -> Compiled:
    """Compiles a spec for this host; with ``create``, creates the network that the spec names where it is missing.

    The result is cached in the spec, which is immutable, and in its family (spec/family.py). It stays valid while the
    host facts are the same."""
    cached: Compiled | None = spec.__dict__.get("_compiled")
    if cached is not None and cached.exe != exe:
        cached = None
    known: Compiled | None = cached or spec.family.compiled.get(exe)
    if known is not None and known.is_current():
        return cached or _of_family(spec, known)
    _check_isolation(spec)
    check_proc()
    network, endpoint = _endpoint(spec, create) if spec.attached else (None, None)
    made = _renewed(spec, known, lambda: facts.gather(spec, exe, endpoint), network)
    if known is None or made.host is not known.host:
        return _known(spec, made._replace(exe=exe))
    compiled = cached or _of_family(spec, made)
    return compiled if made is known else _known(spec, compiled._replace(caller=made.caller))


def compile_to_wait(spec: Spec) -> Compiled:
    """``compile_spec`` for the containers of a pool, which wait for their program; cached beside the other."""
    cached: Compiled | None = spec.__dict__.get("_compiled_to_wait")
    if cached is None or not cached.is_current():
        _check_isolation(spec)
        check_proc()
        cached = _renewed(spec, cached, lambda: facts.gather(spec, waits=True))
        spec.__dict__["_compiled_to_wait"] = cached
    return cached


def _check_isolation(spec: Spec) -> None:
    """SpecError: the spec is for a virtual machine (container/machine/)."""
    if spec.isolation != "container":
        reason = "is for no pool yet: its program would start in a guest"
        raise SpecError("isolation", spec.isolation, reason, "--isolation container")


def _renewed(
    spec: Spec, known: Compiled | None, gather: Callable[[], host.Host], network: Network | None = None
) -> Compiled:
    """Compiles a spec; or returns what is ``known`` of it or its family, if the host facts are still the same."""
    rootfs = os.fsencode(spec.rootfs)
    caller = _caller_of(rootfs)
    host_facts = gather()
    if not host_facts.cacheable:
        caller = None
    if known is not None and known.host == host_facts:
        return known if caller is None else known._replace(caller=caller)
    plan, parent_plan = _plans(spec, host_facts)
    plan.buffer  # noqa: B018 - encodes the plan once, before the first start
    common_inputs = 3 + (len(parent_plan.names) if parent_plan is not None else 0)
    flags, allowed = compiler.clone_flags(spec, host_facts), devices.rules(spec, host_facts)
    streams = 0 if spec.tty else plan.slots["stdin"] + 1
    return Compiled(host_facts, plan, flags, parent_plan, common_inputs, allowed, network, streams, caller, rootfs)


def compile_plans(spec: Spec, host_facts: host.Host) -> tuple[Plan, ParentPlan | None]:
    """Compiles the child's plan and the parent-side plan."""
    plan = compiler.compile(spec, host_facts)
    return plan, parent.template(spec, host_facts, plan)


_plans: Plans = compile_plans


def take_plans_from(plans: Plans) -> None:
    """Sets the function that is called instead of ``compile_plans`` (plancache.py)."""
    global _plans  # noqa: PLW0603
    _plans = plans


def _known(spec: Spec, compiled: Compiled) -> Compiled:
    spec.__dict__["_compiled"] = spec.family.compiled[compiled.exe] = compiled
    return compiled


def _caller_of(rootfs: bytes) -> Any:
    """The facts as they are before the others are read; None where they are unknown."""
    caller = ffi.new("struct mc_caller *")
    lib.mc_caller(rootfs, caller)
    return None if caller.error or caller.foreign else caller


def _of_family(spec: Spec, known: Compiled) -> Compiled:
    """The compiled spec, from that of another spec of its family. It is cached when the spec is started again: of ten
    thousand specs that were started once, each would keep a plan."""
    made = known._replace(plan=compiler.for_family(known.plan, spec, known.host))
    spec.__dict__["_compiled"] = made if "_compiled" in spec.__dict__ else None
    return made


def _endpoint(spec: Spec, create: bool) -> tuple[Network | None, Endpoint]:
    from minicontainer.container.network import attach

    return attach.endpoint_of(spec, create=create)
