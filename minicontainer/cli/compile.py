"""``minicontainer compile``: a container as a file. Its options are those of run."""

from __future__ import annotations

import re
from typing import Any

from minicontainer import spec as s
from minicontainer.cli import run
from minicontainer.cli.environment import split
from minicontainer.cli.options import OPTIONS as FIELDS
from minicontainer.cli.syntax import Option, Syntax
from minicontainer.errors import SpecError

ADDRESS = "needs an address for each run, which a file cannot get"
REFUSED = {  # options of run that a file cannot have
    "detach": "is not for a file, which runs in the foreground",
    "name": "cannot be that of a file, of which many may run",
    "cidfile": "is not for a file, of which many may run",
    "label": "is not for a file, which ps does not list",
    "restart": "is for detached containers",
    "log_opt": "is for detached containers",
    "explain": "is for the run: ./FILE --explain",
    "dry_run": "is for run: minicontainer run --dry-run shows the plan",
    "meta": "is for run: a file writes no report",
    "security_report": "is for run",
    "root_image": "needs an image that each run may have to make",
    "publish": ADDRESS,
    "publish_all": ADDRESS,
    "expose": "has no effect without an address, which a file cannot get",
    "ip": ADDRESS,
    "mac_address": ADDRESS,
}


def compile(**options: Any) -> int:
    """Write FILE, an executable that starts a container of ROOTFS with COMMAND (default: a shell) without Python.
    With --isolation kvm it starts a virtual machine.

    ./FILE [ARG...] does what run would do with the same options. ARGs follow COMMAND; without a COMMAND they are the
    command. ./FILE --explain shows every step with its time; all words after -- are ARGs.

    FILE is for this user, this kernel and this ROOTFS: where one of them is another, it says so and ends with 125.
    """
    _refuse(options)
    variables, inherited = split(options)
    spec = run.spec_of(
        options
        | {"tty": None, "no_tty": True, "env": [f"{key}={value}" for key, value in variables.items()], "env_file": ()}
    )
    kept = 1 if options["entrypoint"] else 0
    if options["command"] and not options["replace"]:
        kept = len(spec.args)
    limit = None if options["timeout"] is None else s.decimal("timeout", options["timeout"], 0.001, 10**9, "seconds")
    terminal = True if options["tty"] else False if options["no_tty"] else None
    from minicontainer.compiled.compilation import Manner, write

    write(spec, options["output"], Manner(limit, terminal, kept, tuple(inherited), named))
    return 0


def _refuse(options: dict[str, Any]) -> None:
    for name, reason in REFUSED.items():
        value = options[name]
        if value not in (None, False, (), "no"):
            shown = value[0] if isinstance(value, tuple) else None if value is True else value
            raise SpecError(name.replace("_", "-"), shown, reason, "leave it out")
    if options["tty"] and options["no_tty"]:
        raise SpecError("tty", None, "cannot be combined with --no-tty")


def named(what: str) -> str:
    """The option of a field of Spec, for the messages of the file."""
    field = what.partition(" ")[0].partition("[")[0]
    option = f"--{FIELDS.get(field, field.replace('_', '-'))}"
    return option if option in SYNTAX.spellings() else what


HELP = {  # where run's does not fit
    "interactive": "No effect: stdin is always passed.",
    "rm": "No effect: nothing is left of a run.",
    "tty": "Allocate a terminal. [default: if stdin and stdout of the run are one]",
    "env": "Environment variable KEY=VALUE; KEY alone is the caller's when FILE runs.",
    "network": "Network: none, host or ns:PATH. [default: none]",
    "userns": "User namespace: auto, private, host, keep-id or UID:GID:COUNT. [default: auto]",
}


def _own(option: Option) -> Option:
    settings = dict(option.settings)
    if option.name in REFUSED:
        settings["hidden"] = True
    elif option.name in HELP:
        settings["help"] = HELP[option.name]
    elif "help" in settings:
        settings["help"] = re.sub(r", ns:PATH or pid:N", " or ns:PATH", settings["help"])
    return Option(*option.names, **settings)


OPTIONS = (
    Option("-o", "--output", required=True, metavar="FILE", help="The executable to write."),
    Option("--replace", is_flag=True, help="The ARGs of ./FILE replace COMMAND."),
    *map(_own, run.OPTIONS),
)
SYNTAX = Syntax("compile", compile, OPTIONS, run.ARGUMENTS, interspersed=False, width=100)
