"""``minicontainer compare``: measurements of isolation on this host."""

from __future__ import annotations

import sys
from typing import Any

import click

from minicontainer.errors import SpecError

SETTINGS = {"help_option_names": ["--help"]}


@click.group("compare", context_settings=SETTINGS)
def group() -> None:
    """Measure this host's isolation, ours and others'."""


@group.command("startup", context_settings=SETTINGS)
@click.option("-n", "--rounds", type=click.IntRange(1), default=200, show_default=True, help="Rounds.")
@click.option("--rootfs", metavar="DIR", help="Run /bin/true of this root file system. [default: the smallest program]")
@click.option("--only", metavar="NAME", multiple=True, help="A contender besides the floor; may be given again.")
@click.option("--json", "json_file", metavar="FILE", help="Write all figures and samples as JSON.")
def startup(rounds: int, rootfs: str | None, only: tuple[str, ...], json_file: str | None) -> None:
    """From nothing to a program's end and back, in one interleaved run of everybody.

    The floor is a C program of ours that makes the same system calls with nothing around them.
    """
    from minicontainer.cli.options import writable
    from minicontainer.compare.startup import NAMES, WARM_UP, measure

    for name in only:
        if name not in NAMES:
            raise SpecError("--only", name, "is no contender", ", ".join(NAMES))
    writable("--json", json_file)
    with click.progressbar(
        range(rounds + WARM_UP), label="rounds", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        report = measure(rounds=rounds, rootfs=rootfs, only=only or NAMES, progress=lambda _: bar.update(1))
    _print(report)
    if json_file:
        import json

        with open(json_file, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=1)


def _print(report: dict[str, Any]) -> None:
    from minicontainer.compare.statistics import table

    for what, value in report["machine"].items():
        click.echo(f"{what + ':':14}{value}")
    click.echo()
    click.echo(table(report["rows"]))
    click.echo()
    for what, ratio in report["paired"].items():
        click.echo(f"{what}: {ratio:.2f} (median over the rounds of each round's ratio)")
    for name, reason in report["unable"].items():
        click.echo(f"not measured: {name}: {reason}")
