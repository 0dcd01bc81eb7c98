"""What this host supports, what disturbs measurements on it, and what killed processes left behind.

    from minicontainer import doctor

    report = doctor.examine("rootfs/")
    print(report.usable, [finding.name for finding in report.sections["namespaces"]])

Theory of operation. Each feature is tried, in a child process or with changes that are undone. Versions are never
compared: kernels carry patches, and often a sysctl, a seccomp filter or an enclosing container forbids a feature. A
section is a list of probes (``findings``); a report holds their verdicts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from minicontainer.doctor import (
    cgroups,
    filesystems,
    ids,
    kvm,
    leftovers,
    measurements,
    namespaces,
    networks,
    processes,
)
from minicontainer.doctor.findings import Finding, Probe, Verdict, ask

__all__ = ["Finding", "Probe", "Report", "Verdict", "clean", "examine"]

clean = leftovers.clean


@dataclass(frozen=True)
class Report:
    """The findings, as lists by section."""

    sections: dict[str, list[Finding]]

    @property
    def usable(self) -> bool:
        """Whether ``run`` works with default options."""
        return not any(finding.is_fatal for section in self.sections.values() for finding in section)


def examine(directory: str = ".") -> Report:
    """Run all probes. ``directory``: a ROOTFS, whose file system is examined."""
    with cgroups.home_restored():
        found = {name: [ask(probe) for probe in section] for name, section in sections(directory).items()}
    found["left behind"] = leftovers.findings(directory)
    return Report(found)


def sections(directory: str) -> dict[str, list[Probe]]:
    """The probes by section, in the order of the report."""
    of_root = {"namespaces": namespaces.probes()} if os.geteuid() == 0 else {}
    return {
        "container": processes.probes(),
        **of_root,
        "namespaces of an ordinary user": [*namespaces.user_probes(), *namespaces.sysctl_probes()],
        "id ranges": ids.probes(),
        "cgroups": cgroups.probes(),
        "file systems": filesystems.probes(directory),
        "capabilities": processes.capability_probes(),
        "networks": networks.probes(),
        "KVM": kvm.probes(),
        "disturbs measurements": measurements.probes(),
    }
