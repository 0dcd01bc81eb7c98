"""``minicontainer compare``: measurements of isolation on this host."""

from __future__ import annotations

import sys
from typing import Any

import click

SETTINGS = {"help_option_names": ["--help"]}


@click.group("compare", context_settings=SETTINGS)
def group() -> None:
    """Measure this host's isolation, ours and others'."""


@group.command("startup", context_settings=SETTINGS)
@click.option("-n", "--rounds", type=click.IntRange(1), default=200, show_default=True, help="Rounds.")
@click.option("--rootfs", metavar="DIR", help="A root file system (a copy is used). [default: one program]")
@click.option("--json", "json_file", metavar="FILE", help="Write all figures and samples as JSON.")
def startup(rounds: int, rootfs: str | None, json_file: str | None) -> None:
    """From nothing to a program's end and back, in one interleaved run of everybody.

    The floor is a C program of ours that makes the same system calls with nothing around them.
    """
    from minicontainer.compare.startup import WARM_UP, measure

    with click.progressbar(
        range(rounds + WARM_UP), label="rounds", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        report = measure(rounds=rounds, rootfs=rootfs, progress=lambda _: bar.update(1))
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
