"""click's command of a Syntax: the definition of its help, its errors and its completion."""

from __future__ import annotations

import click

from minicontainer.cli.command import Command, OptionalValues
from minicontainer.cli.names import ContainerName
from minicontainer.cli.syntax import SUFFIX, Argument, Syntax


def made(syntax: Syntax) -> Command:
    """click's command of a Syntax, which is defined by it."""
    optional = any(name.endswith(SUFFIX) for name in syntax.spellings())
    options = [click.Option(option.names, **option.settings) for option in syntax.options]
    return (OptionalValues if optional else Command)(
        syntax.name,
        callback=syntax.function,
        params=[*options, *map(_argument, syntax.arguments)],
        help=syntax.function.__doc__,
        context_settings={"allow_interspersed_args": syntax.interspersed, "max_content_width": syntax.width},
        epilog=syntax.epilog,
    )


def _argument(argument: Argument) -> click.Argument:
    if argument.completes != "container":
        return click.Argument([argument.name], **argument.settings)
    return click.Argument([argument.name], type=ContainerName(), **argument.settings)
