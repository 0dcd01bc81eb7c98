"""Options whose value is optional, and flags, of every command, as the installed click parses them.

By hand, for another release: pip install --target DIR click==8.2.0; PYTHONPATH=DIR python -m pytest FILE
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import pytest
from commands import COMMANDS

from minicontainer.cli.command import OptionalValues

OPTIONAL = [
    (name, option.opts[0].removesuffix("-to"))
    for name, command in COMMANDS.items()
    if isinstance(command, OptionalValues)
    for option in command.params
    if isinstance(option, click.Option) and option.hidden and option.opts[0].endswith("-to")
]
FLAGS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and option.is_flag
]
ARGUMENTS = {"run": ["ROOTFS", "PROGRAM", "--explain=x"], "kvm-boot": ["KERNEL"], "update": ["CONTAINER"]}
ARGUMENTS["create"] = ARGUMENTS["compile"] = ARGUMENTS["run"]
REQUIRED = {"compile": ["-o", "FILE"]}


def parsed(name: str, words: Sequence[str]) -> dict[str, Any]:
    with COMMANDS[name].make_context(name, [*REQUIRED.get(name, []), *words]) as context:
        return context.params


def test_there_are_such_options() -> None:
    assert OPTIONAL == [
        ("compile", "--oom-group"),
        ("compile", "--explain"),
        ("compile", "--security-report"),
        ("create", "--oom-group"),
        ("kvm-boot", "--explain"),
        ("kvm-boot", "--trace"),
        ("kvm-boot", "--step"),
        ("run", "--oom-group"),
        ("run", "--explain"),
        ("run", "--security-report"),
        ("update", "--oom-group"),
    ]


@pytest.mark.parametrize(("name", "option"), OPTIONAL)
@pytest.mark.parametrize(
    ("words", "flag", "value"),
    [
        ([], False, None),
        (["{}"], True, None),
        (["{}", "--"], True, None),
        (["{}", "--memory", "64m"], True, None),
        (["{}", "-m", "64m", "--"], True, None),
        (["{}=VALUE"], True, "VALUE"),
        (["{}=VALUE", "--"], True, "VALUE"),
        (["{}=--"], True, "--"),
        (["{}=-x"], True, "-x"),
        (["{}="], True, ""),
        (["{}=a=b c"], True, "a=b c"),
        (["-m64m", "{}=first", "{}=last"], True, "last"),
        (["--memory", "{}=VALUE"], False, None),
        (["-m", "{}=VALUE"], False, None),
    ],
)
def test_a_value_is_optional(name: str, option: str, words: list[str], flag: bool, value: str | None) -> None:
    """What stands behind it by itself is never its value: not ROOTFS, not --, not what a program inside is given."""
    arguments = ARGUMENTS[name]
    found = parsed(name, [*(word.format(option) for word in words), *arguments])
    field = option[2:].replace("-", "_")
    assert (bool(found[field]), found[f"{field}_to"]) == (flag, value)
    given = [found.get("rootfs"), found.get("kernel"), *found.get("command", ()), *found.get("containers", ())]
    assert [word for word in given if word] == arguments
    others = [other[2:].replace("-", "_") for _, other in OPTIONAL if other != option]
    assert not any(found.get(other) or found.get(f"{other}_to") for other in others)


@pytest.mark.parametrize(("name", "option"), FLAGS, ids=lambda v: v if isinstance(v, str) else v.opts[-1])
def test_a_flag_is_true_or_what_it_is_by_itself(name: str, option: click.Option) -> None:
    """Never its default as a text, as click gives it since 8.3.0 for a flag_value: "False" would be true."""
    context = click.Context(COMMANDS[name])
    absent, _ = option.handle_parse_result(context, {}, [])
    assert absent in (False, None)
    parser = COMMANDS[name].make_parser(context)
    opts, _, _ = parser.parse_args([option.opts[-1]])
    assert option.handle_parse_result(context, opts, [])[0] is True
