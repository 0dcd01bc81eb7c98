"""``minicontainer completion``: click's shell completion of commands, options and names of containers."""

from __future__ import annotations

import click

from minicontainer.cli.command import Command

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

    from minicontainer.cli.root import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(cli, {}, "minicontainer", "_MINICONTAINER_COMPLETE").source())
    return 0
