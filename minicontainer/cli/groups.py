"""Command groups that answer an unknown command with a suggestion."""

from __future__ import annotations

import click

from minicontainer.cli.command import Command
from minicontainer.errors import Error


class Group(click.Group):
    """A group that refuses an unknown command with a one-line suggestion."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            self.refuse(ctx, args[0])
        return super().resolve_command(ctx, args)

    def refuse(self, ctx: click.Context, word: str) -> None:
        """Raise Error for an unknown command; click refuses unknown options."""
        if word.startswith("-"):
            return
        from minicontainer.cli.suggestions import suggestion

        raise Error(suggestion(word, self.list_commands(ctx), ctx.command_path))
