"""Shared by the commands for volumes and networks: completion of names, ``ls``, ``rm``, ``prune``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from minicontainer.cli import filters as f
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.tables import table
from minicontainer.errors import Error

F = TypeVar("F", bound=Callable[..., Any])


class Name(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """The name of a network or volume, completed by the shell."""

    def __init__(self, name: str, known: Callable[[], Iterable[str]]) -> None:
        self.name, self._known = name, known

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self._known() if name.startswith(incomplete)]

    def argument(self) -> Callable[[F], F]:
        """One or more names: the argument ``names``."""
        return click.argument("names", type=self, nargs=-1, required=True, metavar=f"{self.name.upper()}...")


class Listing(NamedTuple):
    """How ``ls`` lists entries. ``row``: the data of an entry; ``cells``: its line of the table below ``head``;
    ``headings``: column headings for templates."""

    filters: Mapping[str, Callable[[str], f.Test]]
    headings: Mapping[str, str]
    head: Sequence[str]
    row: Callable[[Any], Row]
    cells: Callable[[Any, Mapping[str, Any]], list[str]]

    def options(self, function: F) -> F:
        """``-q``, ``--filter`` and ``--format``."""
        text = f"List matching entries only; KEY: {', '.join(self.filters)}."
        function = format_option()(function)
        function = click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help=text)(function)
        return click.option("-q", "--quiet", is_flag=True, help="Print names only.")(function)

    def show(self, entries: Iterable[Any], *, quiet: bool, filters: Sequence[str], format_: str) -> int:
        """Print the entries that match."""
        chosen = f.Filters(filters, self.filters)
        matching = [entry for entry in entries if chosen.fit(entry)]
        if quiet:
            click.echo("".join(f"{entry.name}\n" for entry in matching), nl=False)
            return 0
        rows = [self.row(entry) for entry in matching]

        def as_table() -> str:
            return table(self.head, [self.cells(entry, row.data) for entry, row in zip(matching, rows, strict=True)])

        click.echo(rows_text(rows, format_, self.headings, as_table), nl=False)
        return 0


def each_name(names: Iterable[str], do: Callable[[str], object], *, spare: type[Error] | None = None) -> int:
    """Call ``do`` for each name and print the name. Errors are reported, with exit code 1, except ``spare``."""
    from minicontainer.cli import report

    status = 0
    for name in names:
        try:
            do(name)
            click.echo(name)
        except (Error, OSError) as e:
            if spare is None or not isinstance(e, spare):
                report(e)
                status = 1
    return status
