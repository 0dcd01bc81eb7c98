"""What this host permits, what disturbs measurements on it, what a dead process of ours left behind.

    from minicontainer import doctor

    report = doctor.examine("rootfs/")
    print(report.usable, [finding.name for finding in report.sections["namespaces"]])

Theory of operation. Each thing is tried, in a child that ends or with something that is undone, and no version is
ever compared: kernels carry patches, and what forbids is often a sysctl, a seccomp filter or a container around us. A
section is a list of probes (``findings``); a report is what they found.
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
    """The sections, by name; each a list of findings."""

    sections: dict[str, list[Finding]]

    @property
    def usable(self) -> bool:
        """Whether a default ``run`` has all that it needs."""
        return not any(finding.is_fatal for section in self.sections.values() for finding in section)


def examine(directory: str = ".") -> Report:
    """Asks everything. ``directory``: a ROOTFS, whose file system is asked about."""
    with cgroups.home_restored():
        found = {name: [ask(probe) for probe in section] for name, section in sections(directory).items()}
    found["left behind"] = leftovers.findings(directory)
    return Report(found)


def sections(directory: str) -> dict[str, list[Probe]]:
    """What is asked, in the order of the report."""
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
