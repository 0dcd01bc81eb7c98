"""Groups of commands that know what else is typed: other engines' words, and slips."""

from __future__ import annotations

import click

from minicontainer.cli.options import Command
from minicontainer.errors import Error


class Group(click.Group):
    """A group that says in one line what to do instead of a command that it has not."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            self.refuse(ctx, args[0])
        return super().resolve_command(ctx, args)

    def refuse(self, ctx: click.Context, word: str) -> None:
        """Error for a word that is no command (an option that is not known is click's to refuse)."""
        if word.startswith("-"):
            return
        from minicontainer.cli.words import instead

        raise Error(instead(word, self.list_commands(ctx), ctx.command_path))
