"""``minicontainer manual``: the man page, made from the help texts (man(7), man-pages(7))."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from minicontainer import __version__
from minicontainer.cli.command import Command

EXIT_STATUS = (
    ("0 to 123", "the exit code of the program"),
    ("1", "a command for several containers, networks or volumes failed for one of them"),
    ("124", "--timeout was reached"),
    ("125", "an error of minicontainer, in one line; for a wrong option or value, nothing has been done"),
    ("126", "the program cannot be invoked"),
    ("127", "the program was not found"),
    ("128+n", "signal n ended the program"),
)
FILES = (
    ("/run/minicontainer", "state directory of root: detached containers with their logs, and networks"),
    ("$XDG_RUNTIME_DIR/minicontainer", "state directory of an ordinary user"),
    ("/var/lib/minicontainer/volumes", "volumes of root"),
    ("$XDG_DATA_HOME/minicontainer/volumes", "volumes of an ordinary user (default: below ~/.local/share)"),
    ("$MINICONTAINER_ROOT", "state directory, if set; --root DIR is the same"),
    ("~/.cache/minicontainer", "cache of compiled seccomp filters"),
)


@click.command("manual", cls=Command)
def command() -> int:
    """Print the man page: minicontainer manual | man -l -"""
    from minicontainer.cli.root import cli

    click.echo("\n".join(page(cli)))
    return 0


def page(group: click.Group) -> Iterator[str]:
    """The lines of the page."""
    yield f'.TH MINICONTAINER 1 "" "minicontainer {__version__}" "User Commands"'
    yield from (".SH NAME", "minicontainer \\- containers from Linux primitives, and virtual machines from /dev/kvm")
    yield from (".SH SYNOPSIS", ".B minicontainer", ".I COMMAND", "[OPTION...] [ARGUMENT...]", ".SH COMMANDS")
    for path, what in _commands(group, ()):
        yield from _command(path, what)
    yield from _terms("EXIT STATUS", EXIT_STATUS)
    yield from _terms("FILES", FILES)


def _commands(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command with its path, such as ("network", "ls")."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, (*above, name))
        else:
            yield (*above, name), command


def _command(path: tuple[str, ...], what: click.Command) -> Iterator[str]:
    context = click.Context(what, info_name=" ".join(path))
    usage = " ".join(what.collect_usage_pieces(context))
    yield f".SS {_text(' '.join(path))} {_text(usage)}"
    for paragraph in re.split(r"\n\s*\n", what.help or ""):
        if paragraph.startswith("\b"):
            yield from (".nf", *map(_text, paragraph[1:].strip("\n").split("\n")), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))
        yield ".PP"
    for parameter in what.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))


def _terms(title: str, terms: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for term, what in terms:
        yield from (".TP", f".B {_text(term)}", _text(what))


def _text(text: str) -> str:
    """Text escaped for roff (groff_char(7))."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{plain}" if plain.startswith(".") else plain
