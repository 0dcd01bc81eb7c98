"""Arguments that name containers: an id, an unambiguous prefix of one, or a name; completed by the shell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from minicontainer.cli.command import named
from minicontainer.errors import Error

F = TypeVar("F", bound=Callable[..., Any])


class ContainerName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """An argument that names a container; it is resolved when the command runs."""

    name = "container"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from minicontainer.container.registry import names
        from minicontainer.detached import store

        items = []
        for entry in map(store.Entry, names.ids()):
            try:
                config = entry.config()
            except Error:
                continue
            word = config.name or entry.id[:12]
            if word.startswith(incomplete):
                items.append(CompletionItem(word, help=" ".join(config.spec.args)[:40]))
        return items


class ContainerPath(ContainerName):
    """CONTAINER:PATH, or a path on the host."""

    name = "path"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        items = super().shell_complete(ctx, param, incomplete)
        named = [CompletionItem(f"{item.value}:", help=item.help) for item in items]
        return named or [CompletionItem(incomplete, type="file")]


def container_argument() -> Callable[[F], F]:
    """The argument CONTAINER."""
    return click.argument("container", type=ContainerName())


def containers_argument() -> Callable[[F], F]:
    """The argument CONTAINER..."""
    return click.argument("containers", type=ContainerName(), nargs=-1, required=True, metavar="CONTAINER...")


def find(text: str) -> Any:
    """The Container that ``text`` names. NotFoundError if there is none."""
    from minicontainer.detached.container import Container

    return Container.find(text)


def each(
    words: Iterable[str], do: Callable[[Any], Any], shown: Callable[[str, Any], object] = lambda word, done: word
) -> int:
    """Call ``do`` for each container and print its name as it was typed, or ``shown(name, result)``. Errors are
    reported for each container, with exit code 1, as docker does."""
    from minicontainer.cli import report

    status, context = 0, click.get_current_context()
    for word in words:
        try:
            with named(context):
                click.echo(shown(word, do(find(word))))
        except (Error, OSError) as e:
            report(e)
            status = 1
    return status
