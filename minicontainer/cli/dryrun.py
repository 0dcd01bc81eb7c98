"""``--dry-run``: the plan of both sides of the clone. Nothing is made or changed."""

from __future__ import annotations

from minicontainer.container import placeholders
from minicontainer.container.cgroup import limits
from minicontainer.container.compilation import compile_spec
from minicontainer.container.references import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.compilation import Compiled
    from minicontainer.spec import Spec


def describe(spec: Spec) -> str:
    """The parent's steps, then the child's plan, phase by phase."""
    if spec.isolation == "kvm":
        return _describe_machine(spec)
    return _describe(spec, compile_spec(resolve(spec, create=False), create=False))


def _describe_machine(spec: Spec) -> str:
    """The parent's steps, the plan of the monitor, and that of the guest's init."""
    from minicontainer.container.machine import start

    spec = resolve(spec, create=False)
    outer, compiled, guest = start.compile(spec)
    inside = placeholders.with_id(guest, "<its-own-id>")
    return f"{_describe(outer, compiled)}\n# guest\n{inside.describe()}"


def _describe(spec: Spec, compiled: Compiled) -> str:
    lines = ["# parent"]
    lines += [f'  write("{setting.file}", "{setting.data}")' for setting in limits.settings(spec.limits)]
    lines.append(f"  clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND|{compiled.flags.text})")
    if compiled.parent_plan is not None:
        lines += compiled.parent_plan.plan.describe().splitlines()
    plan = placeholders.with_id(compiled.plan, "<its-own-id>")
    return "\n".join([*lines, "# child", plan.describe()])
