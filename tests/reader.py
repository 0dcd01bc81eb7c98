"""Runs the code blocks of a documentation page in order, in this directory, as its reader would.

    reader.py PAGE [--without WORD]... [--without-limits]

Console commands must exit with 0, Python blocks must not raise, and both must print what the page shows. --without
leaves out commands with that word; with --without-limits a command that sets a limit must be refused. The first
difference ends the run with status 1. Containers, networks and volumes are removed at the end.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pages

LIMITS = re.compile(r"^minicontainer run .*(-m|--memory|--cpus|--pids-limit)[ =]")
CLEAN = """
ids=$(minicontainer ps -aq); [ -z "$ids" ] || minicontainer rm -f $ids
for n in $(minicontainer network ls --format '{{.Name}}'); do minicontainer network rm $n; done
minicontainer volume prune -af
"""


class Differs(Exception):
    """The result differs from the page."""


def run(step: pages.Step, limits: bool) -> None:
    print(f"$ {step.command}", end="", file=sys.stderr, flush=True)
    done = subprocess.run(
        ["sh", "-c", step.command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, sep="", end="", file=sys.stderr, flush=True)
    if LIMITS.search(step.command) and not limits:
        if done.returncode != 125 or "controller" not in done.stderr:
            raise Differs("a limit that this host cannot enforce is not refused")
    elif done.returncode != 0:
        raise Differs(f"it ended with {done.returncode}")
    elif step.prints and not pages.same(step.prints, done.stdout):
        raise Differs(f"it should have printed\n{step.prints}")


@contextmanager
def output() -> Iterator[list[str]]:
    """The lines written to stdout, also by children."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            os.dup2(before, 1)
            os.close(before)
            file.seek(0)
            lines += file.read().splitlines()


def execute(block: str, space: dict[str, Any]) -> None:
    """Run a Python block, which may use top-level ``await``, as in ``python -m asyncio``."""
    print(block, end="", file=sys.stderr, flush=True)
    with output() as printed:
        result = eval(compile(block, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), space)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    print(*printed, sep="\n", file=sys.stderr, flush=True)
    left = list(printed)
    for said in pages.lines(block):
        if left and pages.same(said.text, left[0]):
            del left[0]
        elif not said.optional:
            raise Differs(f"it should have printed {said.text!r}")
    if left:
        raise Differs(f"the page does not say that it prints {left}")


def read(page: Path, without: list[str], limits: bool) -> None:
    space: dict[str, Any] = {}
    for block in pages.blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            execute(block.text, space)
        elif block.language == "console":
            for step in pages.steps(block.text):
                if not set(step.command.split()) & set(without):
                    run(step, limits)
        elif block.language:
            raise Differs(f"a block of {block.language} cannot be run")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--without-limits", action="store_true")
    chosen = parser.parse_args()
    try:
        read(chosen.page, chosen.without, not chosen.without_limits)
    except Differs as error:
        sys.exit(f"{chosen.page.name}: {error}")
    finally:
        subprocess.run(["sh", "-c", CLEAN], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
