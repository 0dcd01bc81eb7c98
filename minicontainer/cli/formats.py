"""``--format``, the same for every command that shows things: ``table``, ``json``, or a template.

    ps --format json                               a line of JSON for each (inspect: one list)
    ps --format '{{.ID}} {{.Names}}'               a line for each, as the template says
    ps --format 'table {{.ID}}\\t{{.Status}}'       these columns
    inspect -f '{{.State.Status}} {{json .Mounts}}'

The shape of the data: docker's names of fields where docker has the field; null for what is not, or is not known; times
as RFC 3339 has them, in UTC; bytes, seconds and percent as numbers; lists and objects where docker packs them into a
string. A template shows what docker's would: text where docker has text ("1.2 MiB / 64 MiB").

Of Go's text/template there are fields ({{.A.B}}), {{json .A}} and {{index .A "key"}}; all else is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from minicontainer.cli.tables import table
from minicontainer.errors import SpecError

F = TypeVar("F", bound=Callable[..., Any])
TAKEN = "{{.Field}}, {{json .Field}} and {{index .Field KEY}} are taken"
ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
FIELD = r"\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?"
EXPRESSION = re.compile(
    rf'(?P<json>json\s+)?(?:(?P<field>{FIELD})|index\s+(?P<of>{FIELD})\s+(?:"(?P<key>[^"]*)"|(?P<at>\d+)))'
)


class Row(NamedTuple):
    """One thing: its ``data``, and what a template shows of a field instead, where docker has text there."""

    data: Mapping[str, Any]
    text: Mapping[str, str] = {}


def format_option(default: str = "table", *, short: bool = False) -> Callable[[F], F]:
    """The option ``--format`` (with ``-f`` where docker has it), as the parameter ``format_``."""
    names = ("-f", "--format") if short else ("--format",)
    more = {"table": ", json (one line each), a template, or 'table TEMPLATE'", "json": " or a template"}
    text = f"{default}{more.get(default, ', json, or a template')}."

    def check(_ctx: click.Context, _option: click.Parameter, value: str) -> str:
        if value not in (default, "json", "table", ""):
            Template(value.removeprefix("table "))  # can it be one?
        return value

    return click.option(*names, "format_", default=default, metavar="FORMAT", help=text, callback=check)


def rows_text(rows: Iterable[Row], format_: str, heads: Mapping[str, str], as_table: Callable[[], str]) -> str:
    """What is printed of ``rows``, with its newlines. ``heads``: of columns, by field, where they are not its name in
    capitals; ``as_table``: the command's own table."""
    if format_ in ("table", ""):
        return f"{as_table()}\n"
    if format_ == "json":
        return "".join(f"{json.dumps(row.data)}\n" for row in rows)
    columns = format_.startswith("table ")
    template = Template(format_[6:] if columns else format_)
    lines = [template.render(row) for row in rows]
    if not columns:
        return "".join(f"{line}\n" for line in lines)
    cells = [line.split("\t") for line in lines]
    head = template.heads(heads).split("\t")
    return f"{table(head, [[*line, *[''] * (len(head) - len(line))][: len(head)] for line in cells])}\n"


def list_text(found: Sequence[Mapping[str, Any]], format_: str) -> str:
    """What ``inspect`` prints of what it found: one list as JSON, or a line of a template for each."""
    if format_ == "json":
        return f"{json.dumps(found, indent=2)}\n"
    template = Template(format_)
    return "".join(f"{template.render(Row(data))}\n" for data in found)


class Template:
    """A template, checked when it is made. SpecError names what is not taken."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts: list[str | re.Match[str]] = []
        end = 0
        for match in ACTION.finditer(text):
            before = text[end : match.start()]
            self._parts += [self._plain(before.rstrip() if match[1] else before), self._expression(match)]
            end = match.end() + (len(text[match.end() :]) - len(text[match.end() :].lstrip()) if match[3] else 0)
        self._parts.append(self._plain(text[end:]))
        if not any(isinstance(part, re.Match) for part in self._parts):
            raise SpecError("format", text, "is neither json, nor table, nor a template", TAKEN)

    def _plain(self, text: str) -> str:
        """Text between two actions, in which docker takes \\t and \\n."""
        if "{{" in text or "}}" in text:
            raise SpecError("format", self._text, "has {{ without }}, or the other way round", TAKEN)
        return text.replace("\\t", "\t").replace("\\n", "\n")

    def _expression(self, action: re.Match[str]) -> re.Match[str]:
        found = EXPRESSION.fullmatch(action[2])
        if found is None:
            raise SpecError("format", f"{{{{{action[2]}}}}}", "is not taken", TAKEN)
        return found

    def render(self, row: Row) -> str:
        """The text for one thing. SpecError where a field is not there."""
        return "".join(part if isinstance(part, str) else _shown(part, row) for part in self._parts)

    def heads(self, known: Mapping[str, str]) -> str:
        """The same, with the head of its column for each field."""

        def head(part: re.Match[str]) -> str:
            name = (part["field"] or part["of"])[1:]
            return known.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.rpartition(".")[2]).upper()

        return "".join(part if isinstance(part, str) else head(part) for part in self._parts)


def _shown(part: re.Match[str], row: Row) -> str:
    path = part["field"] or part["of"]
    if part["json"] is None and part["of"] is None and path[1:] in row.text:
        return row.text[path[1:]]
    value = _field(path, row.data)
    if part["of"] is not None:
        value = _item(path, value, part["at"] if part["key"] is None else part["key"])
    return json.dumps(value) if part["json"] else _go(value)


def _field(path: str, data: Any) -> Any:
    value = data
    for name in filter(None, path.split(".")):
        if value is None:
            return None
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else ""
            raise SpecError("format", f"{{{{{path}}}}}", f"there is no {name}", known and f"there are {known}")
        value = value[name]
    return value


def _item(path: str, value: Any, key: str) -> Any:
    """As Go's index: what a map has not is empty."""
    if isinstance(value, Mapping):
        return value.get(key, "")
    if isinstance(value, Sequence) and not isinstance(value, str) and key.isdigit() and int(key) < len(value):
        return value[int(key)]
    raise SpecError("format", f"{{{{index {path} {key}}}}}", "there is no such item")


def _go(value: Any) -> str:
    """As Go prints a value (fmt's %v)."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_go(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{' '.join(map(_go, value))}]"
    return str(value)
