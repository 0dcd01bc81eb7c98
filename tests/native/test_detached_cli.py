"""Detached containers on the command line, as a person or a script drives them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from box import CLI, Operator, refusal, until
from ptys import session

from minicontainer.detached.container import Container

pytestmark = pytest.mark.needs("root")


def test_a_day_in_the_life(op: Operator) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo hello; echo oops >&2; while :; do sleep 0.05; done"
    c = op.run("sh", "-c", script, options=("--name", "day", "--label", "a=b", "--label", "bare"))
    until(lambda: op.do("logs", "day").stdout == "hello\n")
    assert op.do("logs", "day").stderr == "oops\n"
    (row,) = op.rows()
    assert (row["Names"], row["State"], row["Labels"]) == ("day", "running", {"a": "b", "bare": ""})
    assert op.out("ps", "-q").splitlines().count(c[:12]) == 1
    line = next(line for line in op.out("ps").splitlines() if line.startswith(c[:12]))
    assert re.search(r"ago +Up .* +day$", line), line
    assert "\x1b" not in op.out("ps")
    assert op.out("exec", "day", "hostname") == "day\n"
    assert op.out("pause", "day") == "day\n"
    assert op.rows()[0]["State"] == "paused"
    assert " (paused)" in op.out("ps")
    op.out("unpause", "day")
    assert op.out("stop", c[:12]) == f"{c[:12]}\n"
    assert op.out("wait", "day") == "7\n"
    assert not op.rows()
    (row,) = op.rows("-a")
    assert (row["State"], row["ExitCode"]) == ("exited", 7)
    assert re.search(r"Exited \(7\) .*ago +day$", op.out("ps", "-a"), re.MULTILINE)
    op.out("start", "day")
    until(lambda: op.do("logs", "day").stdout == "hello\nbye\nhello\n")
    op.out("rename", "day", "night")
    refusal(op.do("rm", "night", code=1), 1, ["is running", "rm -f"])
    assert op.out("rm", "-f", "night") == "night\n"
    refusal(op.do("rm", "night", code=1), 1, ["night", "there is no such container"])
    assert op.out("rm", "-f", "night") == ""


def test_options_of_a_detached_run(op: Operator, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    options = (
        "--cidfile",
        str(cidfile),
        "--restart",
        "on-failure:3",
        "--log-opt",
        "max-size=1m",
        "--log-opt",
        "max-file=2",
    )
    c = op.run("sleep", "1000", options=options)
    assert cidfile.read_text() == c
    told = op.inspect(c)
    wished = told["HostConfig"]
    assert wished["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert wished["LogConfig"]["Config"] == {"max-size": 2**20, "max-file": 2}
    assert (told["Path"], told["Args"]) == ("sleep", ["1000"])
    assert told["State"]["Running"] is True
    assert told["State"]["OOMKilled"] is False
    assert told["Id"] == c


def test_an_explained_start(op: Operator, tmp_path: Path) -> None:
    done = op.do("run", "-d", "--explain", "--name", "explained", str(op.rootfs), "sleep", "1000")
    op.ids.append(done.stdout.strip())
    assert "pivot_root" in done.stderr
    assert "execve" in done.stderr
    shown = tmp_path / "explained.json"
    op.run("sleep", "1000", options=(f"--explain=json:{shown}",))
    assert "pivot_root" in shown.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cidfile", "/etc/passwd"], ["--cidfile", "/etc/passwd", "already exists"]),
        (["--restart", "maybe"], ["--restart", "maybe", "must be no, on-failure[:N], always or unless-stopped"]),
        (["--restart", "always", "--rm"], ["--restart", "always", "cannot be combined with --rm"]),
        (["--log-opt", "max-size=3"], ["--log-opt", "max-size"]),
        (["--log-opt", "colour=red"], ["--log-opt", "colour", "must be max-size=SIZE or max-file=N"]),
        (["--label", "=x"], ["--label", "=x", "must be NAME=VALUE"]),
        (["--meta", "m.json"], ["--meta", "m.json", "minicontainer inspect"]),
        (["--timeout", "soon"], ["--timeout", "soon"]),
    ],
)
def test_refused_options(op: Operator, options: list[str], words: list[str]) -> None:
    refusal(op.do("run", "-d", *options, str(op.rootfs), "true", code=125), 125, words)


@pytest.mark.parametrize("option", [["--restart", "always"], ["--log-opt", "a=b"]])
def test_options_that_are_for_detached_ones_alone(op: Operator, option: list[str]) -> None:
    refusal(
        op.do("run", *option, str(op.rootfs), "true", code=125), 125, [option[0], "is for detached containers", "-d"]
    )


def test_unless_stopped(op: Operator) -> None:
    """It lasts over every end but stop, as always does; the word is kept."""
    c = op.run("sleep", "1000", options=("--restart", "unless-stopped"))
    found = Container.find(c)
    first = found.pid
    os.kill(first, 9)
    until(lambda: found.pid not in (0, first))
    shown = ("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", c)
    assert op.out(*shown) == "unless-stopped\n"
    op.out("stop", "-t", "0", c)
    assert found.status == "exited"
    for word in ("no", "unless-stopped"):
        op.out("update", "--restart", word, c)
        assert op.out(*shown) == f"{word}\n"


def test_a_program_that_is_not_there(op: Operator, tmp_path: Path) -> None:
    done = op.do("run", "-d", "--cidfile", str(tmp_path / "cid"), str(op.rootfs), "/nope", code=127)
    refusal(done, 127, ["program /nope: not found in the container"])
    assert not (tmp_path / "cid").exists()


def test_words_that_are_no_container(op: Operator) -> None:
    for words in (
        ["stop", "x"],
        ["logs", "x"],
        ["exec", "x", "true"],
        ["wait", "x"],
        ["rename", "x", "y"],
        ["attach", "x"],
    ):
        done = op.do(*words, code=1 if words[0] in ("stop", "wait") else 125)
        refusal(done, done.returncode, ["container x: there is no such container", "minicontainer ps -a"])
    c = op.run("true")
    done = op.do("stop", "x", c, "y", code=1)
    assert done.stdout == f"{c}\n"
    assert [line.split()[2] for line in done.stderr.splitlines()] == ["x:", "y:"]
    done = op.do("wait", "x", c, code=1)  # the others' codes come all the same
    refusal(done.__class__([], 1, "", done.stderr), 1, ["container x: there is no such container"])
    assert done.stdout == "0\n"


def test_filters(op: Operator) -> None:
    one = op.run("sleep", "1000", options=("--name", "filter-one", "--label", "kind=a", "--restart", "always"))
    two = op.run("sh", "-c", "exit 4", options=("--name", "filter-two", "--label", "kind=b"))
    op.out("wait", two)

    def found(*filters: str) -> list[str]:
        return [row["ID"] for row in op.rows("-a", *(w for f in filters for w in ("--filter", f)))]

    assert found("label=kind") == [two, one]
    assert found("label=kind=a") == [one]
    assert found("name=filter-t") == [two]
    assert found("status=exited", "label=kind") == [two]
    assert found("exited=4", "name=filter") == [two]
    assert found(f"id={one[:10]}") == [one]
    assert found("restart=always", "name=filter") == [one]
    refusal(op.do("ps", "--filter", "colour=red", code=125), 125, ["filter colour=red: must be KEY=VALUE"])


def test_what_is_logged(op: Operator) -> None:
    script = "echo one; echo two >&2; printf thr; sleep 0.1; echo ee; echo four"
    c = op.run("sh", "-c", script)
    op.out("wait", c)
    both = op.do("logs", c)
    assert (both.stdout, both.stderr) == ("one\nthree\nfour\n", "two\n")
    assert op.do("logs", "--tail", "3", c).stdout == "three\nfour\n"
    assert op.do("logs", "-n", "0", c).stdout == ""
    stamped = op.do("logs", "-t", c).stdout.splitlines()
    assert [line.split(" ")[1] for line in stamped] == ["one", "three", "four"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z \w+", line) for line in stamped)
    lines = [json.loads(line) for line in op.out("logs", "--format", "json", c).splitlines()]
    assert ("stderr", "two\n") in [(line["stream"], line["log"]) for line in lines]
    assert op.do("logs", "--since", lines[-1]["time"], c).stdout == "four\n"
    assert op.do("logs", "--since", "1h", c).stdout == "one\nthree\nfour\n"
    assert op.do("logs", "--since", "2999-01-01T00:00:00Z", c).stdout == ""
    refusal(op.do("logs", "--since", "yesterday", c, code=125), 125, ["since yesterday: is no time"])
    refusal(op.do("logs", "--tail", "few", c, code=125), 125, ["tail few"])


def test_a_log_that_is_followed(op: Operator) -> None:
    c = op.run("sh", "-c", "echo first; read x; echo $x; exit 3", options=("-i",))
    with subprocess.Popen([*CLI, "logs", "-f", c], stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "first\n"
        op.do("attach", c, input="second\n", code=3)
        assert following.stdout.read() == "second\n"
        assert following.wait(60) == 0


def test_exec(op: Operator) -> None:
    c = op.run("sleep", "1000", options=("-e", "A=1", "--hostname", "inside"))
    told = op.out(
        "exec", "-e", "B=2", "-w", "/tmp", "-u", "1000:1000", c, "sh", "-c", "echo $A $B $(id -u) $(pwd); hostname"
    )
    assert told == "1 2 1000 /tmp\ninside\n"
    assert op.do("exec", c, "sh", "-c", "exit 9", code=9)
    assert op.do("exec", c, "sh", "-c", "kill -9 $$", code=137)
    assert op.out("exec", c, "cat", input="not passed") == ""
    assert op.out("exec", "-i", c, "cat", input="passed") == "passed"
    refusal(op.do("exec", c, "/nope", code=127), 127, ["program /nope: not found in the container"])
    refusal(op.do("exec", "-w", "/no/where", c, "true", code=125), 125, ["-w /no/where"])
    refusal(op.do("exec", "-t", c, "true", code=125), 125, ["-t", "terminal"])
    left, go = op.rootfs / "tmp/left", op.rootfs / "tmp/go"
    op.out(
        "exec", "-d", c, "sh", "-c", "echo there > /tmp/left; while [ ! -e /tmp/go ]; do sleep 0.02; done; rm /tmp/*"
    )
    until(left.exists)
    op.do("exec", c, "cat", "/tmp/left", code=0)
    go.touch()
    until(lambda: not left.exists() and not go.exists())
    op.out("stop", "-t", "0", c)
    refusal(op.do("exec", c, "true", code=125), 125, [f"exec {c[:12]}: is not running (exited)"])


def test_exec_with_an_env_file(op: Operator, tmp_path: Path) -> None:
    c, file = op.run("sleep", "1000"), tmp_path / "env"
    file.write_text("A=7\nB=3\nC D=4\n", encoding="ascii")
    words = ("exec", "--env-file", str(file), "-e", "B=4", c, "sh", "-c", "echo $A $B")
    refusal(op.do(*words, code=125), 125, [f"--env-file {file}:3: 'C D' is a name with a blank in it"])
    file.write_text("A=7\nB=3\n", encoding="ascii")
    assert op.out(*words) == "7 4\n"


def test_exec_explained(op: Operator) -> None:
    c = op.run("sleep", "1000")
    told = op.do("exec", "--explain", c, "true").stderr
    assert "setns(<process>, " in told
    assert "execve(" in told


def test_what_is_used(op: Operator) -> None:
    c = op.run("sh", "-c", "while :; do :; done", options=("--name", "busy"))
    (row,) = [json.loads(line) for line in op.out("stats", "--no-stream", "--format", "json", "busy").splitlines()]
    assert (row["ID"], row["Name"]) == (c, "busy")
    assert row["CPUPerc"] > 1
    assert row["PIDs"] == 1
    head, line = op.out("stats", "--no-stream", "busy").splitlines()
    assert head.startswith("CONTAINER ID   NAME   CPU %")
    assert line.startswith(c[:12])
    (task,) = [json.loads(line) for line in op.out("top", "--format", "json", "busy").splitlines()]
    assert (task["InnerPID"], task["UID"], task["CMD"]) == (1, 0, "sh -c while :; do :; done")
    assert "while :; do :; done" in op.out("top", "busy")
    refusal(op.do("top", code=125), 125, ["top: stdin and stdout are not a terminal"])


def test_ports(op: Operator) -> None:
    c = op.run("nc", "-l", "-p", "8080")
    until(lambda: op.out("port", c))
    assert op.out("port", c) == "8080/tcp on ::, not reachable from the host\n"
    assert json.loads(op.out("port", "--format", "json", c)) == {
        "PrivatePort": 8080,
        "Type": "tcp",
        "Address": "::",
        "HostIp": None,
        "HostPort": None,
    }


def test_prune_takes_what_has_ended(op: Operator) -> None:
    ended, running = op.run("true"), op.run("sleep", "1000")
    op.out("wait", ended)
    asked = op.do("prune", input="n\n", code=130)
    assert "Remove 1 container that has ended? [y/N]: " in asked.stdout
    again = op.run("true")
    op.out("wait", again)
    asked = op.do("prune", input="", code=125)
    assert asked.stdout.endswith("Remove 2 containers that have ended? [y/N]: \n")
    assert asked.stderr.endswith("? stdin has ended without an answer (-f does not ask)\n")
    assert {ended, again} == set(op.out("prune", "--force").split())
    assert [row["ID"] for row in op.rows("-a")] == [running]


def test_a_corrupt_one_is_listed_and_can_be_removed(op: Operator) -> None:
    c = op.run("true", options=("--name", "broken"))
    op.out("wait", c)
    directory = Path(op.inspect(c)["LogPath"]).parent
    (directory / "config.json").write_text("{")
    line = next(line for line in op.out("ps", "-a", "--no-trunc").splitlines() if line.startswith(c))
    assert "Corrupt: config.json: cannot be read" in line
    refusal(
        op.do("inspect", "broken", code=1).__class__([], 1, "", op.do("inspect", "broken", code=1).stderr),
        1,
        ["config.json"],
    )
    op.out("rm", c)
    assert not directory.exists()


# ---- at a terminal


def test_a_shell_in_a_running_container(op: Operator) -> None:
    c = op.run("sleep", "1000")
    with session("exec", "-it", c, "sh", rows=30, columns=90) as shell:
        shell.expect(r"# ")
        shell.type("tty; stty size; exit 6\r")
        shell.expect(r"/dev/pts/\d+\r\n30 90\r\n")
        assert shell.ends() == 6


def test_attached_to_a_terminal_and_left(op: Operator) -> None:
    c = op.run("sh", options=("-t",))
    with session("attach", c, rows=33, columns=99) as attached:
        until(attached.is_raw)
        attached.type("stty size; echo $((6 * 7)) is\r")
        attached.expect(r"33 99\r\n")
        attached.expect(r"42 is")
        attached.type(b"\x10\x11")
        assert attached.ends() == 0
    assert op.rows()[0]["State"] == "running"
    with session("attach", c) as again:
        until(again.is_raw)
        again.type("exit 5\r")
        assert again.ends() == 5
    assert op.out("wait", c) == "5\n"


def test_the_screen(op: Operator) -> None:
    c = op.run("sleep", "1000", options=("--name", "on-the-screen"))
    with session("top", rows=24, columns=120) as screen:
        screen.expect(r"on-the-screen")
        screen.type("e")
        screen.expect(r"# ")
        screen.type("echo $((6 * 7)) inside; exit\r")
        screen.expect(r"42 inside")
        screen.expect(r"sorted by c")  # what is typed before belongs to the shell
        screen.type("nk")
        screen.expect(r"was killed")
        screen.type("q")
        assert screen.ends() == 0
    assert op.out("wait", c) == "137\n"


def test_a_table_fits_the_terminal(op: Operator) -> None:
    c = op.run("sh", "-c", "sleep 1000", *["word"] * 50)
    with session("ps", rows=24, columns=100) as listed:
        assert listed.ends() == 0
        lines = re.sub(rb"\x1b\[[0-9;]*m", b"", listed.seen).decode().splitlines()
    assert all(len(line) <= 100 for line in lines), lines
    (line,) = [line for line in lines if c[:12] in line]
    assert "sh -c" in line
    assert "…" in line


# ---- the shell, and the manual


def test_names_are_completed(op: Operator) -> None:
    op.run("true", options=("--name", "complete-me"))
    env = {
        **os.environ,
        "_MINICONTAINER_COMPLETE": "bash_complete",
        "COMP_WORDS": "minicontainer stop comp",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([CLI[0], "-m", "minicontainer"], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,complete-me\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_the_shells(op: Operator, shell: str) -> None:
    assert "_MINICONTAINER_COMPLETE" in op.out("completion", shell)


def test_the_manual_names_every_command(op: Operator) -> None:
    page = op.out("manual")
    for name in re.findall(r"^  ([a-z-]+)  ", op.out("--help").partition("Commands:")[2], re.MULTILINE):
        assert re.search(rf"^\.SS {name.replace('-', '.{1,2}')} ", page, re.MULTILINE), name
    assert ".SH EXIT STATUS" in page
