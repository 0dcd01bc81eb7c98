"""click's side of a command: options with an optional value, errors that name options, confirmation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from minicontainer.cli.options import named_options
from minicontainer.cli.syntax import SUFFIX
from minicontainer.errors import Error


class Command(click.Command):
    """A command whose errors name an option as it was typed (``-n`` or ``--tail``)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set ``ctx.obj`` to the spelling of each option on the command line, by parameter."""
        names = {name: p.name for p in self.get_params(ctx) for name in (*p.opts, *p.secondary_opts)}
        spelled = [name for i in self._options(ctx, args) for name in self._spelled(args[i], ctx)]
        ctx.obj = {names[name]: name for name in spelled if name in names}
        with named(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with named(ctx):
            return super().invoke(ctx)

    def _spelled(self, argument: str, ctx: click.Context) -> list[str]:
        """The options in one argument: for ``-itn5``, ``-i``, ``-t`` and ``-n``."""
        if argument.startswith("--"):
            return [argument.partition("=")[0]]
        valued, names = self._valued(ctx), []
        for letter in argument[1:]:
            names.append(f"-{letter}")
            if names[-1] in valued:
                break
        return names

    def _options(self, ctx: click.Context, args: Sequence[str]) -> Iterator[int]:
        """Indices of the options: before the first positional argument or, if they may be interspersed, ``--``."""
        valued = self._valued(ctx)
        i = 0
        while i < len(args) and args[i] != "--":
            word = args[i]
            if not word.startswith("-") or word == "-":
                if not ctx.allow_interspersed_args:
                    return
                i += 1
                continue
            yield i
            takes = word in valued if word.startswith("--") else _cluster_takes_next(word, valued)
            i += 2 if takes else 1

    def _valued(self, ctx: click.Context) -> set[str]:
        """The options that take a value."""
        return {o for p in self.get_params(ctx) if isinstance(p, click.Option) and not p.is_flag for o in p.opts}


class OptionalValues(Command):
    """A command with options whose value is optional: if there is a hidden option ``--explain-to`` beside a flag
    ``--explain``, then ``--explain=X`` sets the flag, and the hidden option to X.

    click's own way (``is_flag=False, flag_value=...``) would also take the next argument, often ROOTFS, as the value;
    click 8.3.0 and 8.3.1 take even ``--`` (findings/click-optional-value.sh). So it is not used here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for p in self.get_params(ctx) for name in p.opts}
        for i in reversed(list(self._options(ctx, args))):
            flag, equals, value = args[i].partition("=")
            if equals and f"{flag}{SUFFIX}" in names:
                args[i : i + 1] = [flag, f"{flag}{SUFFIX}", value]
        return super().parse_args(ctx, args)


def _cluster_takes_next(word: str, valued: set[str]) -> bool:
    """Whether the value is the next argument: true for ``-m``, false for ``-m64M`` and ``-it``."""
    for position, letter in enumerate(word[1:], 2):
        if f"-{letter}" in valued:
            return position == len(word)
    return False


def named(ctx: click.Context) -> named_options:
    """A context in which errors name the options of the command, as they were typed."""
    names = {name: p.name or "" for p in ctx.command.params for name in p.opts}
    return named_options(names, ctx.obj or {}, ctx.params)


def confirm(question: str) -> None:
    """Ask for confirmation; abort unless the answer is yes. Error if stdin has ended."""
    try:
        click.confirm(question, abort=True)
    except click.Abort as e:
        if isinstance(e.__context__, EOFError):
            click.echo()  # after the question
            raise Error(f"{question} stdin has ended without an answer (-f does not ask)") from None
        raise
