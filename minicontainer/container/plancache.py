"""Plans that are kept in files, since command lines compile the same ones again and again.

Theory of operation. A plan is made of a spec, of facts about the host, and by this package's code. So a file is found
by all three. ``code`` is the version of the modules that were imported from a bundle (bundle.py); the file lists those
that were imported beside them, with their versions (filecache.py). What is kept is the plan of the spec's family
(spec/family.py), into which the steps of a command are put, and the parent-side plan. The steps are not kept: where
they are read, as by ``--explain``, the plan is compiled. C checks each plan before it walks it.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

from minicontainer.container import compiler, filecache, parent
from minicontainer.container.compilation import compile_plans
from minicontainer.plan.builder import LatePlan, Plan
from minicontainer.plan.encoding import Encoded, Frame
from minicontainer.plan.spawn import ParentPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minicontainer.container.host import Host
    from minicontainer.spec import Spec

KIND = "plans"
FILES = 61  # at most, each of some 20 KB
PACKAGE = __name__.partition(".")[0]
# Nanoseconds before the import of this module: a source that has changed since then may not be what was imported.
IMPORTED = time.time_ns() - 10 * 10**9


def plans(spec: Spec, host: Host, code: bytes) -> tuple[Plan, ParentPlan | None]:
    """The spec's plan and its parent-side plan: from a file where one has them, else compiled and kept."""
    key = repr((code, spec.family.fields, tuple(host))).encode("utf-8", "surrogateescape")
    name = b"%d" % (int.from_bytes(key, "little") % FILES)
    data = filecache.load(KIND, name, key)
    if data is not None:
        try:
            return _unpack(spec, host, data)
        except Exception:  # as marshal and C refuse what the checksum did not
            pass
    plan, parent_plan = compile_plans(spec, host)
    sources = tuple(_sources())
    if all(map(_is_as_imported, sources)):
        filecache.store(KIND, name, key, _pack(plan, parent_plan), sources)
    return plan, parent_plan


def _pack(plan: Plan, parent_plan: ParentPlan | None) -> bytes:
    own = compiler.own_steps(plan)
    of_parent: Any = None if parent_plan is None else (parent_plan.plan.inputs, tuple(parent_plan.plan.encoded()))
    return marshal.dumps((plan.inputs, own, plan.frame(own).parts(), of_parent))


def _unpack(spec: Spec, host: Host, data: bytes) -> tuple[Plan, ParentPlan | None]:
    inputs, own, frame, of_parent = marshal.loads(data)
    family = LatePlan(inputs, lambda: compiler.compile(spec, host))
    family.keep_frame(own, Frame.of(frame))
    compiler.keep_own_steps(family, own)
    plan = compiler.for_family(family, spec, host)
    if of_parent is None:
        return plan, None
    inputs, encoded = of_parent
    return plan, ParentPlan(LatePlan(inputs, lambda: parent.parent_plan(spec, host), Encoded(*encoded)), plan)


def _sources() -> Iterator[str]:
    """The files of this package's modules that were not imported from the bundle."""
    for name, module in tuple(sys.modules.items()):
        path = getattr(module.__loader__, "path", None) if name.startswith(f"{PACKAGE}.") else None
        if isinstance(path, str):
            yield path


def _is_as_imported(source: str) -> bool:
    try:
        return os.stat(source).st_ctime_ns < IMPORTED
    except OSError:
        return False
