"""Which of the features that machines use a kernel has."""

from __future__ import annotations

from minicontainer.microvm import build, features, kernelfile, modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.microvm.kernelfile import LinuxKernel
else:
    from minicontainer.records import NamedTuple


class Finding(NamedTuple):
    """``state``: BUILT_IN, MODULE, MISSING or UNKNOWN of build.py; ``file``: that of a module; ``is_needed``: whether
    no machine runs without it."""

    feature: features.Feature
    state: str
    file: str
    is_needed: bool

    @property
    def is_lacking(self) -> bool:
        """Whether it is known that no machine runs for want of this feature."""
        return self.is_needed and self.state == build.MISSING


def check(kernel: LinuxKernel) -> list[Finding]:
    """A finding for each feature. UnsupportedError: its modules are damaged."""
    tree = modules.Tree(kernel.modules) if kernel.modules is not None else None
    with build.Build(kernel) as built:
        states = {feature.name: _state(feature, tree, built) for feature in features.FEATURES}
    one = any(states[name][0] != build.MISSING for name in features.ANNOUNCEMENTS)
    return [
        Finding(f, *states[f.name], f.needed or (f.name in features.ANNOUNCEMENTS and not one))
        for f in features.FEATURES
    ]


def completed(kernel: LinuxKernel) -> LinuxKernel:
    """The kernel with what was found about it: by what it learns of devices, and which needed features it lacks."""
    findings = check(kernel)
    states = {f.feature.name: f.state for f in findings}
    has_acpi = states[features.ACPI.name] != build.MISSING
    takes_words = states[features.COMMAND_LINE.name] == build.BUILT_IN
    announce = kernelfile.COMMAND_LINE if takes_words and not has_acpi else kernelfile.ACPI
    return kernel._replace(announce=announce, lacks=tuple(f.feature.name for f in findings if f.is_lacking))


def _state(feature: features.Feature, tree: modules.Tree | None, built: build.Build) -> tuple[str, str]:
    """(state, file) of a feature."""
    if tree is not None and feature.module and tree.has(feature.module):
        file = tree.file(feature.module)
        return (build.MODULE, f"{tree.directory}/{file}") if file else (build.BUILT_IN, "")
    state = built.state(feature)
    if state == build.MODULE:  # by the configuration; but there is no file
        return build.MISSING, ""
    return state, ""
