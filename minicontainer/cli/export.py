"""``minicontainer export``: a container's root file system as a tar archive."""

from __future__ import annotations

import sys

import click

from minicontainer.cli.command import Command
from minicontainer.cli.names import container_argument, find
from minicontainer.cli.options import writable
from minicontainer.errors import Error, SpecError


@click.command("export", cls=Command)
@click.option("-o", "--output", metavar="FILE", help="Write the archive to FILE. [default: stdout]")
@container_argument()
def command(output: str | None, container: str) -> int:
    """Write the current root file system of CONTAINER as a tar archive, without other mounts (volumes, /proc)."""
    from minicontainer.cli import report

    if output is None and sys.stdout.isatty():
        raise SpecError("export", None, "stdout is a terminal", "-o FILE, or redirect it")
    if output != "-":
        writable("output", output)
    skipped = find(container).export(sys.stdout.buffer if output in (None, "-") else output)
    for line in skipped:
        report(Error(line))
    return 1 if skipped else 0
