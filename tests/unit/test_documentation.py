"""README.md and docs/: their size, their links, and the words in them that are names of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pages import PAGES, PROJECT, README, blocks

from minicontainer.cli.root import cli

LINKING = [*PAGES, PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md"]
OTHERS = {"--no-deps": "pip", "--variant": "debootstrap"}  # options of other programs
SECTIONS = [
    *("Two commands", "The first container", "A root file system of your own", "The library", "Detached"),
    *("Networks", "Machines", "What differs from docker", "What it does not do"),
]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(command: click.Command = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from commands(found, f"{path} {name}".strip())


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text(page), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_a_first_page() -> None:
    assert len(text(README).splitlines()) <= 150
    assert re.findall(r"^## (.*)$", text(README), re.MULTILINE) == SECTIONS


def test_the_readme_leads_to_every_page() -> None:
    linked = re.findall(r"\]\((docs/[\w-]+\.md)\)", text(README))
    assert {PROJECT / link for link in linked} == {page for page in PAGES if page != README}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", text(page)):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_options_are_those_of_our_commands() -> None:
    known = {"--help"}
    for _, command in commands():
        known |= {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    used = {option for page in PAGES for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text(page))}
    assert len(used) > 50
    assert used - known == set(OTHERS)


def test_commands_are_ours() -> None:
    known = {path.split()[0] for path, _ in commands() if path}
    used = {word for page in PAGES for word in re.findall(r"(?:`|\$ |; )minicontainer ([a-z][a-z-]*)", text(page))}
    assert len(used) > 20
    assert used <= known


def test_the_packages_are_those_of_the_makefile() -> None:
    listed = re.search(r"^# apt install (.*?) +# Debian", text(README), re.MULTILINE)
    made = re.search(r"^APT    := (.*)$", text(PROJECT / "Makefile"), re.MULTILINE)
    assert listed
    assert made
    assert listed[1].split() == made[1].split()


def test_every_block_is_run_or_is_figures() -> None:
    assert {block.language for page in PAGES for block in blocks(text(page))} == {"", "console", "python"}
    assert all(block.language for page in PAGES if page.stem != "measurements" for block in blocks(text(page)))


def test_figures_stand_below_the_command_that_printed_them() -> None:
    _, *sections = re.split(r"^## ", text(PROJECT / "docs/measurements.md"), flags=re.MULTILINE)
    for section in sections:
        before, *figures = re.split(r"^```\n.*?^```$", section, flags=re.MULTILINE | re.DOTALL)
        assert figures, section
        for words in (before, *figures[:-1]):
            assert "`minicontainer compare " in words, section
