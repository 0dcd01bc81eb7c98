"""``run --security-report`` and ``compare security``: the results of the security probe as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from minicontainer.container.security import VERDICTS, Check, by_area

if TYPE_CHECKING:
    from minicontainer.spec import Spec

COLORS = {"pass": "green", "fail": "red", "skip": "yellow"}


def report(spec: Spec, file: str) -> int:
    """Run the probe in a container of ``spec``, or measure the monitor of its machine; print the results, or write them
    as JSON. Return 1 if a check fails."""
    from minicontainer.cli.options import write_json
    from minicontainer.container.security import examine

    checks = examine(spec)
    if file:
        write_json(file, as_data(checks))
    else:
        where = "of monitor and plan" if spec.isolation == "kvm" else "from inside"
        click.echo("\n".join(as_text(checks, where)))
    return int(any(check.verdict == "fail" for check in checks))


def as_data(checks: Iterable[Check]) -> dict[str, list[dict[str, str]]]:
    """The results by area, for JSON."""
    return {
        area: [{"name": c.name, "verdict": c.verdict, "seen": c.seen} for c in each]
        for area, each in by_area(checks).items()
    }


def counts(checks: Iterable[Check]) -> list[int]:
    """The number of checks that pass, that fail, and that are skipped."""
    verdicts = [check.verdict for check in checks]
    return [verdicts.count(verdict) for verdict in VERDICTS]


def as_text(checks: Sequence[Check], where: str = "from inside") -> Iterator[str]:
    """The report as text: a line for each check below its area, and the totals."""
    width = max(len(check.name) for check in checks)
    for area, each in by_area(checks).items():
        yield click.style(area, bold=True)
        for check in each:
            verdict = click.style(check.verdict, fg=COLORS[check.verdict])
            yield f"  {verdict}  {check.name:<{width}}  {check.seen}".rstrip()
        yield ""
    passed, failed, skipped = counts(checks)
    yield f"{len(checks)} checks {where}: {passed} pass, {failed} fail, {skipped} skipped"


def compared(report: dict[str, Any]) -> Iterator[str]:
    """The table of ``compare security``: pass/fail/skip of each area (a row) and runtime (a column)."""
    runtimes: dict[str, list[Check]] = report["runtimes"]
    areas = list(dict.fromkeys(check.area for checks in runtimes.values() for check in checks))
    rows = [["area", *runtimes]]
    for area in areas:
        rows.append([area, *(_sum(c for c in checks if c.area == area) for checks in runtimes.values())])
    rows.append(["all", *map(_sum, runtimes.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for name, *cells in rows:
        yield "  ".join([f"{name:{widths[0]}}", *(f"{c:>{width}}" for c, width in zip(cells, widths[1:], strict=True))])
    yield ""
    yield "each cell: checks that pass/fail/are skipped, by one probe from inside"
    for worse in report["worse"]:
        yield f"worse than {', '.join(worse['peers'])}: {worse['area']} {worse['name']}: {worse['seen']}"
    if not report["worse"]:
        yield "no control holds under another runtime that does not hold under minicontainer"


def _sum(checks: Iterable[Check]) -> str:
    return "/".join(map(str, counts(checks)))
