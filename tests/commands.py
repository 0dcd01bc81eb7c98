"""All commands of the command line, by name, such as "network ls"."""

from __future__ import annotations

from collections.abc import Iterator

import click

from minicontainer.cli.root import cli


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


COMMANDS = dict(commands(cli))
