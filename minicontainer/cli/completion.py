"""``minicontainer completion``: the shell completes commands, options, and containers' names (click's own)."""

from __future__ import annotations

import click

from minicontainer.cli.options import Command

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print the completion script for SHELL.

    \b
    bash: eval "$(minicontainer completion bash)"
    zsh:  eval "$(minicontainer completion zsh)"
    fish: minicontainer completion fish | source
    """
    from click.shell_completion import get_completion_class

    from minicontainer.cli import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "minicontainer", "_MINICONTAINER_COMPLETE").source())
    return 0
