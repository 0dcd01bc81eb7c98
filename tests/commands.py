"""All commands of the command line, by the words that call them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from minicontainer.cli import cli


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, f"{above}{name} ")
        else:
            yield f"{above}{name}", found


COMMANDS = dict(commands(cli))
