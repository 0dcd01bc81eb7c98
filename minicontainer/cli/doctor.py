"""``minicontainer doctor``: what this host supports, what disturbs measurements, and leftovers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from minicontainer.cli.command import Command

if TYPE_CHECKING:
    from minicontainer.doctor import Finding, Report

COLORS = {"ok": "green", "no": "red", "note": "yellow"}


@click.command("doctor", cls=Command)
@click.option(
    "--format", "format_", default="text", type=click.Choice(["text", "json"]), help="json: the report as JSON."
)
@click.option("--json", "as_json", is_flag=True, hidden=True)  # the older name of --format json
@click.option("--clean", is_flag=True, help="First remove what killed minicontainer processes left behind.")
@click.argument("rootfs", default=".", type=click.Path(exists=True, file_okay=False))
def command(format_: str, as_json: bool, clean: bool, rootfs: str) -> int:
    """Check what this host supports, what disturbs measurements, and what killed processes left behind.

    Overlays and ID-mapped mounts are tried on the file system of ROOTFS (default: the current directory). Each line
    is "ok", "no" (not supported: the reason and the remedy) or "note". The exit code is 1 if "minicontainer run" with
    default options lacks something.
    """
    from minicontainer import doctor

    removed = doctor.clean(rootfs) if clean else []
    report = doctor.examine(rootfs)
    if as_json or format_ == "json":
        import json

        click.echo(json.dumps(as_data(report, removed), indent=2))
    else:
        click.echo("\n".join(as_text(report, removed)))
    failed_to_clean = any(finding.verdict.status == "no" for finding in removed)
    return 0 if report.usable and not failed_to_clean else 1


def as_data(report: Report, removed: Iterable[Finding]) -> dict[str, Any]:
    """The report for programs. Sections are lists, since a name may occur more than once (leftovers)."""
    system = os.uname()
    return {
        "host": {"kernel": system.release, "machine": system.machine, "user": os.geteuid()},
        "usable": report.usable,
        "removed": [_finding(finding) for finding in removed],
        "sections": {name: [_finding(finding) for finding in section] for name, section in report.sections.items()},
    }


def _finding(finding: Finding) -> dict[str, Any]:
    verdict = finding.verdict
    return {
        "name": finding.name,
        "status": verdict.status,
        "detail": verdict.detail,
        "remedy": verdict.remedy,
        "needed": finding.needed,
    }


def as_text(report: Report, removed: Iterable[Finding]) -> Iterable[str]:
    """The report for people: a line each."""
    system = os.uname()
    yield f"Linux {system.release} on {system.machine}, as user id {os.geteuid()}"
    sections = {"removed": list(removed), **report.sections}
    for name, section in sections.items():
        if section:
            width = max(len(finding.name) for finding in section)
            yield ""
            yield click.style(name, bold=True)
            yield from (_line(finding, width) for finding in section)
    if not report.usable:
        yield ""
        missing = [f.name for section in report.sections.values() for f in section if f.is_fatal]
        yield f"minicontainer run cannot work here: {', '.join(missing)}"


def _line(finding: Finding, width: int) -> str:
    verdict = finding.verdict
    status = click.style(f"{verdict.status:<4}", fg=COLORS[verdict.status])
    remedy = f" ({verdict.remedy})" if verdict.remedy else ""
    line = f"  {status}  {finding.name:<{width}}  {verdict.detail}{remedy}"
    return " ".join(line.rstrip().split("\n"))
