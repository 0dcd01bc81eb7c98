"""6. From a Spec to steps: the runtime compiles a Spec to a plan. This prints the plan and does not run it.

Run: python examples/06_compiled.py ROOTFS
"""

import sys
from collections import Counter

import minicontainer as mc
from minicontainer.container.compilation import compile_spec

spec = mc.Spec(["/bin/true"], rootfs=sys.argv[1] if len(sys.argv) > 1 else "rootfs", hostname="box")
plan = compile_spec(spec).plan
for phase, steps in Counter(step.phase for step in plan.steps).items():
    print(f"{steps:3} steps: {phase}")
print(plan.steps[-1].describe())

more = mc.Spec(["/bin/true"], rootfs=spec.rootfs, hostname="box", mounts=(mc.Mount.volume("/etc:/host-etc:ro"),))
print("a volume adds", len(compile_spec(more).plan.steps) - len(plan.steps), "steps:")
for step in compile_spec(more).plan.steps:
    if step not in plan.steps:
        print("  ", step.describe())

# expect: steps: root
# expect: execve\(\["/bin/true"\]
# expect: move_mount\(<mount-0>, "", <target-0>
