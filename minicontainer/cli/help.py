"""``minicontainer help COMMAND``: the same text as COMMAND --help."""

from __future__ import annotations

from collections.abc import Sequence

import click

from minicontainer.cli.command import Command
from minicontainer.errors import SpecError


@click.command("help", cls=Command)
@click.argument("words", nargs=-1, metavar="[COMMAND...]")
@click.pass_context
def command(ctx: click.Context, words: Sequence[str]) -> int:
    """Show the list of commands, or the help of COMMAND."""
    context = ctx.find_root()
    for word in words:
        group = context.command
        if not isinstance(group, click.Group):
            raise SpecError("help", " ".join(words), f"{context.command_path} has no commands of its own")
        name, subcommand, _ = group.resolve_command(context, [word])
        assert subcommand is not None
        context = click.Context(subcommand, info_name=name, parent=context, **subcommand.context_settings)
    click.echo(context.command.get_help(context))
    return 0
