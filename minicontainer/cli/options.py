"""Shared by commands: options with an optional value, errors that name options, output files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from minicontainer.cli.outputs import to_write
from minicontainer.errors import Error, SpecError, UnsupportedError, quote

# Field of Spec or Limits -> its option, where the names differ.
OPTIONS = {
    "cwd": "workdir",
    "mounts": "volume",
    "devices": "device",
    "ulimits": "ulimit",
    "sysctls": "sysctl",
    "ports": "publish",
    "add_hosts": "add-host",
    "pids": "pids-limit",
    "labels": "label",
    "log": "log-opt",
}


class Command(click.Command):
    """A command whose errors name an option as it was typed (``-n`` or ``--tail``)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set ``ctx.obj`` to the spelling of each option on the command line, by parameter."""
        names = {name: p.name for p in self.get_params(ctx) for name in (*p.opts, *p.secondary_opts)}
        spelled = [name for i in self._options(ctx, args) for name in self._spelled(args[i], ctx)]
        ctx.obj = {names[name]: name for name in spelled if name in names}
        with named_options(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with named_options(ctx):
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
            if equals and f"{flag}-to" in names:
                args[i : i + 1] = [flag, f"{flag}-to", value]
        return super().parse_args(ctx, args)


def _cluster_takes_next(word: str, valued: set[str]) -> bool:
    """Whether the value is the next argument: true for ``-m``, false for ``-m64M`` and ``-it``."""
    for position, letter in enumerate(word[1:], 2):
        if f"-{letter}" in valued:
            return position == len(word)
    return False


@contextmanager
def named_options(ctx: click.Context) -> Iterator[None]:
    """Turns an error about a field of Spec into one with the option and the value as they were typed."""
    try:
        yield
    except (SpecError, UnsupportedError) as e:
        first, _, rest = e.what.partition(" ")
        field = first.partition("[")[0]
        name = f"--{OPTIONS.get(field, field.replace('_', '-'))}"
        by_name = {name: p for p in ctx.command.params for name in p.opts}
        if name == "--seccomp" and "--security-opt" in by_name and e.value is not None:
            raise type(e)("--security-opt", f"seccomp={e.value}", e.reason, e.hint) from None
        if name not in by_name:
            raise
        parameter = by_name[name]
        what = (ctx.obj or {}).get(parameter.name, name)
        raise type(e)(what, *_as_typed(ctx.params.get(parameter.name or ""), rest, e), e.hint) from None


def _as_typed(typed: Any, rest: str, e: SpecError | UnsupportedError) -> tuple[object, str]:
    """The value as typed, and the reason with the wrong part of the value (``rest`` names that part)."""
    wrong = "" if e.value is None else str(e.value)
    word = re.compile(rf"(?<![\w.]){re.escape(wrong)}(?![\w.])")
    if isinstance(typed, tuple):
        ranks = {text: (text == wrong, bool(word.search(text)), wrong in text) for text in typed if wrong}
        best = max(ranks, key=ranks.__getitem__, default=None)
        value: object = best if best is not None and wrong in best else e.value
    elif isinstance(typed, str):
        value = wrong if typed and typed in wrong else typed  # 64M instead of a number of bytes
    else:
        value = e.value
    part = quote(wrong) if wrong and wrong != str(value) and wrong in str(value) else ""
    return value, " ".join(filter(None, (rest, part, e.reason)))


def pairs(what: str, items: Sequence[str]) -> dict[str, str]:
    """The NAME=VALUE (or NAME) pairs of an option that may be repeated."""
    values = {}
    for item in items:
        key, _, value = item.partition("=")
        if not key:
            raise SpecError(what, item, "must be NAME=VALUE")
        values[key] = value
    return values


@contextmanager
def cidfile(path: str | None) -> Iterator[Callable[[str], object]]:
    """A function that writes the container's id into the file of --cidfile. The file must be new; it is created before
    the container, and removed if the start fails."""
    if path is None:
        yield lambda _: None
        return
    if not path:
        raise SpecError("cidfile", path, "is empty", "the path of a new file")
    try:
        f = to_write(path, "x")
    except FileExistsError:
        raise SpecError("cidfile", path, "already exists", "remove it, or give another") from None
    except OSError as e:
        raise SpecError("cidfile", path, (e.strerror or str(e)).lower()) from None
    with f:
        try:
            yield lambda identifier: print(identifier, end="", file=f, flush=True)
        except BaseException:
            os.unlink(path)
            raise


def confirm(question: str) -> None:
    """Ask for confirmation; abort unless the answer is yes. Error if stdin has ended."""
    try:
        click.confirm(question, abort=True)
    except click.Abort as e:
        if isinstance(e.__context__, EOFError):
            click.echo()  # after the question
            raise Error(f"{question} stdin has ended without an answer (-f does not ask)") from None
        raise


def yes_or_no(what: str, flag: bool | None, value: str | None) -> bool | None:
    """The value of a flag, as in docker: ``--oom-group`` or ``--oom-group=false``."""
    if value is None:
        return flag
    if value.lower() not in ("true", "false", "1", "0"):
        raise SpecError(what, value, "must be true or false")
    return value.lower() in ("true", "1")


def json_destination(what: str, value: str | None) -> str:
    """FILE of ``--explain=json:FILE``, checked to be writable; "" (stderr) of ``--explain`` alone."""
    if value is None:
        return ""
    if not value.startswith("json:") or value == "json:":
        raise SpecError(what, value, "must be json:FILE")
    path = writable(what, value[5:])
    assert path is not None
    return path


def writable(what: str, path: str | None) -> str | None:
    """``path``, checked before the start to be writable: the file is written after the container's end."""
    if path is None:
        return None
    if os.path.isdir(path) or not path:
        raise SpecError(what, path, "is a directory" if path else "is empty")
    place = path if os.path.exists(path) else os.path.dirname(path) or "."
    if not os.path.exists(place):
        raise SpecError(what, path, f"there is no directory {place}")
    if not os.access(place, os.W_OK):
        raise SpecError(what, path, "cannot be written")
    return path


def write_json(path: str, data: object) -> None:
    """Write a report as JSON."""
    import json

    with to_write(path) as f:
        json.dump(data, f, indent=2)
        f.write("\n")
