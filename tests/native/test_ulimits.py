"""Resource limits are the program's: however small, none stops what is done for it before (``--ulimit``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from abilities import USER_ID
from box import Box, until
from ptys import session

import minicontainer as mc

pytestmark = pytest.mark.needs("root")

Make = Callable[..., mc.Container]
SMALL = ("nofile=0", "nofile=3", "nofile=10", "nproc=1", "fsize=0", "core=0", "stack=65536", "msgqueue=0", "memlock=0")


def told(text: str) -> dict[str, list[str]]:
    """/proc/PID/limits: soft and hard, by name."""
    return {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()}


def test_they_are_the_programs(box: Box) -> None:
    options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "stack=1048576:unlimited"]
    for more in ([], ["--init"], ["--userns", "host"]):
        limits = told(box.sh("cat /proc/self/limits", *options, *more))
        assert limits["Max open files"] == ["100", "200"]
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max stack size"] == ["1048576", "unlimited"]


@pytest.mark.parametrize("userns", ["private", "host", "keep-id"])
@pytest.mark.parametrize("init", [False, True], ids=["", "init"])
def test_none_stops_what_comes_before(rootfs: Path, userns: str, init: bool) -> None:
    """A file of /etc is written for it, and with init a process made."""
    spec = mc.Spec(["/bin/echo", "here"], rootfs=str(rootfs), userns=userns, init=init, add_hosts={"x": "10.0.0.1"})
    for words in SMALL:
        done = mc.run(spec, ulimits=(mc.Ulimit.option(words),), capture_output=True, text=True)
        assert (words, done.stdout, done.stderr, done.returncode) == (words, "here\n", "", 0)


@pytest.mark.parametrize("userns", ["private", "host"])
def test_an_ordinary_user_inside_is_alone_too(rootfs: Path, userns: str) -> None:
    """The kernel counts the processes of a user, init's too; what was there before does not stop the program."""
    spec = mc.Spec(["/bin/sh", "-c", "echo here; /bin/true & wait"], rootfs=str(rootfs), userns=userns, init=True)
    done = mc.run(spec, user=str(USER_ID), ulimits=(mc.Ulimit("nproc", 1, 1),), capture_output=True)
    assert done.stdout == b"here\n"
    assert b"fork" in done.stderr


@pytest.mark.needs("raises-limits")
def test_more_than_the_callers(box: Box) -> None:
    """What root may raise, for a container that has no rights outside its user namespace."""
    hard = int(told(Path("/proc/self/limits").read_text(encoding="ascii"))["Max open files"][1])
    most = int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))
    wish = min(hard + 1, most)
    for userns in ("private", "host"):
        limits = told(box.sh("cat /proc/self/limits", "--userns", userns, "--ulimit", f"nofile=10:{wish}"))
        assert limits["Max open files"] == ["10", str(wish)]


@pytest.mark.parametrize("userns", ["private", "host"])
def test_of_a_detached_one_and_of_what_enters_it(make: Make, userns: str) -> None:
    limits = (mc.Ulimit("nofile", 3, 3), mc.Ulimit("nproc", 1, 1), mc.Ulimit("fsize", 0, 0))
    c = make("sleep", "1000", ulimits=limits, userns=userns, init=True, add_hosts={"x": "10.0.0.1"})
    program = int(until(lambda: Path(f"/proc/{c.pid}/task/{c.pid}/children").read_text(encoding="ascii")))
    until(lambda: os.readlink(f"/proc/{program}/exe").endswith("busybox"))
    own = [told(Path(f"/proc/{pid}/limits").read_text(encoding="ascii")) for pid in (c.pid, program)]
    entered = c.run(["/bin/echo", "here"], capture_output=True, text=True)
    assert (entered.stdout, entered.stderr) == ("here\n", "")
    with c.exec(["sleep", "1000"]) as p:
        own.append(told(Path(f"/proc/{p.pid}/limits").read_text(encoding="ascii")))
        p.kill()
    for found in own:  # process 1's too: the program could trace it, and do by it what it may not
        assert [found[name] for name in ("Max open files", "Max processes", "Max file size")] == [
            ["3", "3"],
            ["1", "1"],
            ["0", "0"],
        ]


def test_at_a_terminal(rootfs: Path) -> None:
    with session("run", "--ulimit", "nofile=0", rootfs, "/bin/echo", "here") as opened:
        opened.expect("here")
        assert opened.ends() == 0


def test_what_cannot_be_executed_is_still_told(box: Box) -> None:
    for userns in ("private", "host"):
        options = ["--userns", userns, "--ulimit", "nofile=0"]
        box.refused("nothing", options=options, code=127, says=["nothing", "not found"])
        box.refused("/etc", options=options, code=126, says=["/etc"])
