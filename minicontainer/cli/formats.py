"""``--format``, the same for every command that lists or inspects: ``table``, ``json``, or a template.

    ps --format json                               a line of JSON for each (inspect: one list)
    ps --format '{{.ID}} {{.Names}}'               a line for each, as the template says
    ps --format 'table {{.ID}}\\t{{.Status}}'       these columns
    inspect -f '{{.State.Status}} {{json .Mounts}}'

The JSON data: field names are docker's where docker has the field; null means absent or unknown; times are RFC 3339 in
UTC; bytes, seconds and percentages are numbers; lists and objects stay lists and objects, even where docker packs them
into a string. A template renders the same as in docker: text where docker has text ("1.2 MiB / 64 MiB").

Of Go's text/template, fields ({{.A.B}}), {{json .A}} and {{index .A "key"}} are supported; all else is an error.
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
SUPPORTED = "{{.Field}}, {{json .Field}} and {{index .Field KEY}} are supported"
ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
FIELD = r"\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?"
EXPRESSION = re.compile(
    rf'(?P<json>json\s+)?(?:(?P<field>{FIELD})|index\s+(?P<of>{FIELD})\s+(?:"(?P<key>[^"]*)"|(?P<at>\d+)))'
)


class Row(NamedTuple):
    """One entry: its ``data`` for JSON, and the ``text`` that a template renders for a field instead."""

    data: Mapping[str, Any]
    text: Mapping[str, str] = {}


def format_option(default: str = "table", *, short: bool = False) -> Callable[[F], F]:
    """The option ``--format`` (with ``-f`` where docker has it), as the parameter ``format_``."""
    names = ("-f", "--format") if short else ("--format",)
    more = {"table": ", json (one line each), a template, or 'table TEMPLATE'", "json": " or a template"}
    text = f"{default}{more.get(default, ', json, or a template')}."

    def check(_ctx: click.Context, _option: click.Parameter, value: str) -> str:
        if value not in (default, "json", "table", ""):
            Template(value.removeprefix("table "))  # raises if it is no template
        return value

    return click.option(*names, "format_", default=default, metavar="FORMAT", help=text, callback=check)


def rows_text(rows: Iterable[Row], format_: str, headings: Mapping[str, str], as_table: Callable[[], str]) -> str:
    """The output for ``rows``. ``headings``: column headings by field, where they differ from the field's name in
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
    head = template.headings(headings).split("\t")
    return f"{table(head, [[*line, *[''] * (len(head) - len(line))][: len(head)] for line in cells])}\n"


def list_text(entries: Sequence[Mapping[str, Any]], format_: str) -> str:
    """The output of ``inspect``: one JSON list, or a line by the template for each entry."""
    if format_ == "json":
        return f"{json.dumps(entries, indent=2)}\n"
    template = Template(format_)
    return "".join(f"{template.render(Row(data))}\n" for data in entries)


class Template:
    """A parsed template. SpecError names what is not supported."""

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
            raise SpecError("format", text, "is neither json, nor table, nor a template", SUPPORTED)

    def _plain(self, text: str) -> str:
        """Text between two actions; \\t and \\n are escapes, as in docker."""
        if "{{" in text or "}}" in text:
            raise SpecError("format", self._text, "has {{ without }}, or the other way round", SUPPORTED)
        return text.replace("\\t", "\t").replace("\\n", "\n")

    def _expression(self, action: re.Match[str]) -> re.Match[str]:
        expression = EXPRESSION.fullmatch(action[2])
        if expression is None:
            raise SpecError("format", f"{{{{{action[2]}}}}}", "is not supported", SUPPORTED)
        return expression

    def render(self, row: Row) -> str:
        """The text for one row. SpecError if a field does not exist."""
        return "".join(part if isinstance(part, str) else _format(part, row) for part in self._parts)

    def headings(self, known: Mapping[str, str]) -> str:
        """The template with column headings instead of fields."""

        def head(part: re.Match[str]) -> str:
            name = (part["field"] or part["of"])[1:]
            return known.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.rpartition(".")[2]).upper()

        return "".join(part if isinstance(part, str) else head(part) for part in self._parts)


def _format(part: re.Match[str], row: Row) -> str:
    path = part["field"] or part["of"]
    if part["json"] is None and part["of"] is None and path[1:] in row.text:
        return row.text[path[1:]]
    value = _field(path, row.data)
    if part["of"] is not None:
        value = _item(path, value, part["at"] if part["key"] is None else part["key"])
    return json.dumps(value) if part["json"] else _format_go(value)


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
    """Go's ``index``: a missing key of a map is empty."""
    if isinstance(value, Mapping):
        return value.get(key, "")
    if isinstance(value, Sequence) and not isinstance(value, str) and key.isdigit() and int(key) < len(value):
        return value[int(key)]
    raise SpecError("format", f"{{{{index {path} {key}}}}}", "there is no such item")


def _format_go(value: Any) -> str:
    """A value as Go prints it (fmt's %v)."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_format_go(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{' '.join(map(_format_go, value))}]"
    return str(value)
