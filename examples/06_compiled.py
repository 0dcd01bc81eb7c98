"""6. From wishes to steps: the runtime compiles a Spec to such a plan. What would be done, without doing it.

Run: python examples/06_compiled.py ROOTFS
"""

import sys
from collections import Counter

import minicontainer as mc
from minicontainer.container.start import compile_spec

spec = mc.Spec(["/bin/true"], rootfs=sys.argv[1] if len(sys.argv) > 1 else "rootfs", hostname="box")
plan = compile_spec(spec).plan
for phase, steps in Counter(step.phase for step in plan.steps).items():
    print(f"{steps:3} steps: {phase}")
print(plan.steps[-1].describe())

more = mc.Spec(["/bin/true"], rootfs=spec.rootfs, hostname="box", mounts=(mc.Mount.volume("/etc:/host-etc:ro"),))
print("a volume is", len(compile_spec(more).plan.steps) - len(plan.steps), "steps more:")
for step in compile_spec(more).plan.steps:
    if step not in plan.steps:
        print("  ", step.describe())

# expect: steps: root
# expect: execve\(\["/bin/true"\]
# expect: move_mount\(<mount-0>, "", <target-0>
