"""``minicontainer create``: a container that is started later; its options are those of run."""

from __future__ import annotations

import re
from typing import Any

from minicontainer import spec as s
from minicontainer.cli import run
from minicontainer.cli.syntax import Option, Syntax

OTHERS = ("detach", "no_tty", "explain", "explain_to", "dry_run", "meta", "security_report", "security_report_to")


def create(**options: Any) -> int:
    """Create a container for COMMAND in the directory ROOTFS, and print its id; minicontainer start starts it.

    The options are those of run -d. Seccomp profiles, environment files and the caller's variables are read now;
    networks, ports and limits are requested when the container starts.
    """
    from minicontainer.cli.background import make
    from minicontainer.detached.container import Container

    options |= {**dict.fromkeys(OTHERS), "detach": True}
    limit = None if options["timeout"] is None else s.decimal("timeout", options["timeout"], 0.001, 10**9, "seconds")
    run.note_ineffective(options)
    make(run.spec_of(options), options, limit, Container.create)
    return 0


def _own(option: Option) -> Option:
    """An option of run, with the help that applies to create, where nothing runs in the foreground."""
    if "help" not in option.settings:
        return option
    text = re.sub(r" \(without -d, .*\)| \[default: if stdin and stdout are one\]", "", option.settings["help"])
    text = text.removeprefix("With -d: ")
    return Option(*option.names, **{**option.settings, "help": text[0].upper() + text[1:]})


OPTIONS = tuple(_own(option) for option in run.OPTIONS if option.name not in OTHERS)
SYNTAX = Syntax("create", create, OPTIONS, run.ARGUMENTS, interspersed=False, width=100)
