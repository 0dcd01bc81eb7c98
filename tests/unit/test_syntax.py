"""The quick parser and click: where the quick parser answers, click says the same of the same words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import pytest
from commands import COMMANDS
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.cli import create, exec, kvmboot, plain, run
from minicontainer.cli.root import COMMANDS as ALL
from minicontainer.cli.syntax import Syntax

SYNTAXES = {"run": run.SYNTAX, "create": create.SYNTAX, "exec": exec.SYNTAX, "kvm-boot": kvmboot.SYNTAX}
VALUES = ["x", "64m", "", "-", "--", "-x", "--help", "=", "a=b", "--rm", "-it", "é", "\udcff", "true"]


def clicks(name: str, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]] | None:
    """What click reads; None if it refuses, or shows help."""
    try:
        with COMMANDS[name].make_context(name, list(words)) as context:
            return context.params, context.obj
    except (click.exceptions.Exit, click.ClickException):
        return None


def words_of(syntax: Syntax) -> st.SearchStrategy[list[str]]:
    """Words as users type them, right and wrong."""
    options = st.sampled_from([name for option in syntax.options for name in (*option.on, *option.off)])
    letters = st.sampled_from([name[1] for option in syntax.options for name in option.on if name[1] != "-"])
    values = st.sampled_from(VALUES) | st.text(max_size=3)
    together = st.builds("{}={}".format, options, values)
    clusters = st.builds("-{}{}".format, st.text(letters, max_size=4), st.sampled_from(["", *VALUES]))
    shortened = st.builds(lambda name, end: name[:end], options, st.integers(2, 8))
    word = options | together | clusters | shortened | values
    return st.lists(word, max_size=8)


@pytest.mark.parametrize("name", SYNTAXES)
def test_what_is_read_is_what_click_reads(name: str) -> None:
    answered = refused = 0

    @given(words_of(SYNTAXES[name]))
    def check(words: list[str]) -> None:
        nonlocal answered, refused
        read = SYNTAXES[name].parse(words)
        if read is None:
            refused += 1
        else:
            answered += 1
            assert clicks(name, words) == tuple(read)

    check()
    assert answered
    assert refused


@given(words=st.lists(st.sampled_from([*VALUES, "-m", "-e", "--env", "--init", "--explain=json:f", "rootfs"])))
@example(words=["-it", "-m64m", "-e", "A=b", "--env=C=d", "--oom-group=false", "--", "rootfs", "--", "-x"])
def test_a_command_line_that_is_right_needs_no_click(words: list[str]) -> None:
    """Whatever click takes of these is read without it: a parser that leaves everything to click is no parser."""
    expected = clicks("run", words)
    read = run.SYNTAX.parse(words)
    assert expected == (None if read is None else tuple(read))


@pytest.mark.parametrize("name", SYNTAXES)
def test_every_option_is_read(name: str) -> None:
    """Each of them by each of its names, with a value and without."""
    arguments = {"exec": ["C", "true"], "kvm-boot": ["hello"]}.get(name, ["ROOTFS", "true"])
    for option in SYNTAXES[name].options:
        for spelled in (*option.on, *option.off):
            words = [spelled, *([] if option.is_flag else ["value"]), *arguments]
            read = SYNTAXES[name].parse(words)
            assert read is not None, words
            assert tuple(read) == clicks(name, words)


WRONG = [
    ["run"], ["run", "--help"], ["run", "--mem", "1m", "R"], ["run", "--memory"], ["run", "-m"], ["run", "--rm=1", "R"],
    ["run", "-iZ", "R"], ["run", "--no-oom-group=1", "R"], ["exec", "C"], ["kvm-boot", "a", "b"], ["ps"], [],
    ["--help"], ["--root"],
    ["--root=", "run", "R"], ["--root", "", "run", "R"], ["--root", "/x"], ["--root", "/x", "ps"],
    ["--roo", "/x", "run", "R"], ["--version", "run", "R"],
]  # fmt: skip


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_click_has_to_say_is_left_to_it(words: list[str]) -> None:
    assert plain.call(words) is None


def test_completion_is_left_to_click(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plain.COMPLETION, "bash_complete")
    assert plain.call(["kvm-boot", "--list"]) is None


@pytest.mark.parametrize("words", [["--root", "{}"], ["--root={}"], []], ids=" ".join)
def test_the_state_directory_is_chosen(
    words: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", "/none")
    assert plain.call([*(word.format(tmp_path) for word in words), "kvm-boot", "--list"]) == 0
    assert os.environ["MINICONTAINER_ROOT"] == (str(tmp_path) if words else "/none")
    sys.stdout.flush()
    assert b"hello" in capfdbinary.readouterr().out


def test_a_plain_command_is_one_of_the_commands() -> None:
    """What is read without click is what click knows by this name."""
    for name in ("run", "exec", "kvm-boot"):
        module, attribute, _ = ALL[name]
        assert plain._syntax(name) is getattr(sys.modules[module], attribute)
