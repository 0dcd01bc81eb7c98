"""The pages of the documentation: their code blocks and the output that they show."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block; figures have no language."""

    language: str
    text: str


class Step(NamedTuple):
    """A command of a console block, and its output; "" if the page does not show it."""

    command: str
    prints: str


class Line(NamedTuple):
    """A line that a Python block prints; ``optional`` in an exception handler."""

    text: str
    optional: bool


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def steps(block: str) -> Iterator[Step]:
    """The commands after the prompts ``$`` and ``#``; a backslash at the end continues a command."""
    for step in re.split(r"^[$#] ", block, flags=re.MULTILINE)[1:]:
        lines = step.splitlines(keepends=True)
        end = next(i for i, line in enumerate(lines) if not line.endswith("\\\n")) + 1
        yield Step("".join(lines[:end]), "".join(lines[end:]))


def lines(block: str) -> list[Line]:
    """The expected output in ``print(...)  # TEXT`` and ``# prints: TEXT``."""
    tree = compile(block, "block", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    found = []
    for number, line in enumerate(block.splitlines(), 1):
        if said := re.search(r"^\s*print\(.*\) +# (.*)$|# prints: (.*)$", line):
            inside = any(handler.lineno <= number <= (handler.end_lineno or 0) for handler in handlers)
            found.append(Line(said[1] or said[2], inside))
    return found


def same(said: str, printed: str) -> bool:
    """Whether the output matches the page, ignoring the amount of white space; ``...`` matches any text."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in said.split("..."))
    return re.fullmatch(pattern.replace(".*", r"\s?.*"), " ".join(printed.split())) is not None
