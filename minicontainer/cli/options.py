"""What commands share: options whose value is optional, errors that name options, files that will be written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from minicontainer.cli.outputs import to_write
from minicontainer.errors import Error, SpecError, UnsupportedError, quote

# What an option is called where that is not the name of its field in Spec or Limits.
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
    """A command that says of an option what is wrong with it, by the name that was typed (``-n``, or ``--tail``)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``ctx.obj`` is then what each option was typed as, by its parameter."""
        names = {name: p.name for p in self.get_params(ctx) for name in (*p.opts, *p.secondary_opts)}
        spelled = [name for i in self._options(ctx, args) for name in self._spelled(args[i], ctx)]
        ctx.obj = {names[name]: name for name in spelled if name in names}
        with named_options(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with named_options(ctx):
            return super().invoke(ctx)

    def _spelled(self, word: str, ctx: click.Context) -> list[str]:
        """The options that one word gives: of ``-itn5`` ``-i``, ``-t`` and ``-n``."""
        if word.startswith("--"):
            return [word.partition("=")[0]]
        valued, found = self._valued(ctx), []
        for letter in word[1:]:
            found.append(f"-{letter}")
            if found[-1] in valued:
                break
        return found

    def _options(self, ctx: click.Context, args: Sequence[str]) -> Iterator[int]:
        """The indices of the options: up to the first positional, or, where they may come later too, up to ``--``."""
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
    """A command in which an option may carry a value or none: where there is a hidden option ``--explain-to`` beside a
    flag ``--explain``, ``--explain=X`` is the flag, and X is the hidden one's value.

    click's own (``is_flag=False, flag_value=...``) takes the next word, too, which is ROOTFS as often as not, and
    click 8.3.0 and 8.3.1 take even ``--`` (findings/click-optional-value.sh): none of them is used here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for p in self.get_params(ctx) for name in p.opts}
        for i in reversed(list(self._options(ctx, args))):
            flag, equals, value = args[i].partition("=")
            if equals and f"{flag}-to" in names:
                args[i : i + 1] = [flag, f"{flag}-to", value]
        return super().parse_args(ctx, args)


def _cluster_takes_next(word: str, valued: set[str]) -> bool:
    """``-m`` takes the next word, ``-m64M`` holds its value, ``-it`` has none."""
    for position, letter in enumerate(word[1:], 2):
        if f"-{letter}" in valued:
            return position == len(word)
    return False


@contextmanager
def named_options(ctx: click.Context) -> Iterator[None]:
    """An error about a field that is an option is said of the option as it was typed, with the value that was."""
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
    """The value that was typed, and the reason, which names the part of it that is wrong (``rest``: what that is)."""
    wrong = "" if e.value is None else str(e.value)
    word = re.compile(rf"(?<![\w.]){re.escape(wrong)}(?![\w.])")
    if isinstance(typed, tuple):
        ranks = {text: (text == wrong, bool(word.search(text)), wrong in text) for text in typed if wrong}
        found = max(ranks, key=ranks.__getitem__, default=None)
        shown: object = found if found is not None and wrong in found else e.value
    elif isinstance(typed, str):
        shown = wrong if typed and typed in wrong else typed  # 64M, and not its bytes
    else:
        shown = e.value
    part = quote(wrong) if wrong and wrong != str(shown) and wrong in str(shown) else ""
    return shown, " ".join(filter(None, (rest, part, e.reason)))


def pairs(what: str, items: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, or NAME alone, of an option that may be given again."""
    found = {}
    for item in items:
        key, _, value = item.partition("=")
        if not key:
            raise SpecError(what, item, "must be NAME=VALUE")
        found[key] = value
    return found


@contextmanager
def claimed(path: str | None) -> Iterator[Callable[[str], object]]:
    """The file of --cidfile, which must not be there yet, and is made before the container is: what writes the id. It
    goes again where no container comes of it."""
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
    """Asks, and goes on where the answer is yes. Error where nobody answers."""
    try:
        click.confirm(question, abort=True)
    except click.Abort as e:
        if isinstance(e.__context__, EOFError):
            click.echo()  # after the question
            raise Error(f"{question} Nobody answers: stdin has ended (-f does not ask)") from None
        raise


def yes_or_no(what: str, flag: bool | None, value: str | None) -> bool | None:
    """Of a flag that may have a value, as docker's: ``--oom-group``, ``--oom-group=false``."""
    if value is None:
        return flag
    if value.lower() not in ("true", "false", "1", "0"):
        raise SpecError(what, value, "must be true or false")
    return value.lower() in ("true", "1")


def json_destination(what: str, value: str | None) -> str:
    """Of ``--explain=json:FILE``: FILE, which can be written; of ``--explain`` alone "", which is stderr."""
    if value is None:
        return ""
    if not value.startswith("json:") or value == "json:":
        raise SpecError(what, value, "must be json:FILE, or nothing")
    path = writable(what, value[5:])
    assert path is not None
    return path


def writable(what: str, path: str | None) -> str | None:
    """A file that can be written once the container has ended: found out before it starts."""
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
    """A report as data."""
    import json

    with to_write(path) as f:
        json.dump(data, f, indent=2)
        f.write("\n")
