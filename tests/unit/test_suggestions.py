"""What somebody types who knows docker: help, version, info; and words that we do not have."""

from __future__ import annotations

import json
import os
import platform

import pytest
from box import refusal
from supplies import Run

import minicontainer
from minicontainer.cli.root import COMMANDS
from minicontainer.cli.suggestions import ALTERNATIVES

DOCKERS = (  # of `docker help` (27) and `podman help` (5)
    "attach build builder buildx checkpoint commit compose config container context cp create diff events exec export"
    " history image images import info inspect kill load login logout logs manifest network node pause plugin port ps"
    " pull push rename restart rm rmi run save search secret service stack start stats stop swarm system tag top trust"
    " unpause update version volume wait"
    " generate healthcheck init kube machine mount play pod unmount unshare"
).split()


def test_every_word_of_dockers_is_ours_or_is_answered() -> None:
    silent = [word for word in DOCKERS if word not in {*COMMANDS, *ALTERNATIVES}]
    assert silent == []
    assert all("\n" not in said and len(said) < 160 for said in ALTERNATIVES.values())


@pytest.mark.parametrize("word", ["pull", "build", "images", "compose"])
def test_the_answer_is_one_line(minicontainer_cli: Run, word: str) -> None:
    refusal(minicontainer_cli(word, "--all", "x"), 125, [f"minicontainer: {word}: is no command of minicontainer: "])


def test_no_word_is_both() -> None:
    assert not set(ALTERNATIVES) & set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pull", "alpine"], "minicontainer rootfs tar FILE DIR"),
        (["stopp", "x"], "stopp: is no command: did you mean minicontainer stop or"),
        (["network", "creat"], "creat: is no command: did you mean minicontainer network create?"),
        (["network", "pull"], "pull: is no command (minicontainer network --help lists them)"),
        (["xyzzy"], "xyzzy: is no command (minicontainer help lists them)"),
        (["two\nlines"], r"'two\nlines': is no command"),
        (["help", "network", "nope"], "nope: is no command (minicontainer network --help"),
        (["help", "ps", "x"], "help 'ps x': minicontainer ps has no commands of its own"),
        (["--rot", "x"], "No such option"),
    ],
)
def test_slips(minicontainer_cli: Run, words: list[str], says: str) -> None:
    refusal(minicontainer_cli(*words), 125, [says])


@pytest.mark.parametrize("words", [[], ["run"], ["network"], ["network", "create"]])
def test_help_is_that_of_the_option(minicontainer_cli: Run, words: list[str]) -> None:
    done = minicontainer_cli("help", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == minicontainer_cli(*words, "--help").stdout
    assert done.stdout.startswith(f"Usage: {' '.join(['minicontainer', *words])} ")


def test_version(minicontainer_cli: Run) -> None:
    text = minicontainer_cli("version").stdout
    assert minicontainer.__version__ in text
    assert platform.python_version() in text
    client = json.loads(minicontainer_cli("version", "--format", "json").stdout)["Client"]
    assert (client["Version"], client["KernelVersion"]) == (minicontainer.__version__, os.uname().release)
    assert minicontainer_cli("version", "-f", "{{.Client.Version}}").stdout == f"{minicontainer.__version__}\n"
    assert minicontainer_cli("version", "-f", "{{.Server}}").stdout == "<no value>\n"


def test_info(minicontainer_cli: Run) -> None:
    told = json.loads(minicontainer_cli("info", "--format", "json").stdout)
    assert told["KernelVersion"] == os.uname().release
    assert told["NCPU"] == len(os.sched_getaffinity(0))
    states = (told["ContainersRunning"], told["ContainersPaused"], told["ContainersStopped"])
    assert told["Containers"] == sum(states)
    assert f"KernelVersion:      {os.uname().release}" in minicontainer_cli("info").stdout
    refusal(minicontainer_cli("info", "-f", "{{.Images}}"), 125, ["{{.Images}}: there is no Images"])
