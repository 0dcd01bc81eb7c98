"""Files of which somebody has a lease (F_SETLEASE of fcntl(2)), for whose end the kernel would have each wait who opens
them: nobody waits for longer than a moment, and the lease is what is told."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from box import Box, Operator, refusal
from supplies import Run

pytestmark = pytest.mark.needs("root")

STRICT = {  # what cannot be asked for under it is looked at before
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["statx"], "action": "SCMP_ACT_ERRNO"}],
}
LEASED = "a process holds a lease of it (fcntl(2))"


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """By this process, as long as the kernel lets it: fs.lease-break-time, 45 seconds."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel says that somebody waits
    with open(path, "rb") as f:
        fcntl.fcntl(f.fileno(), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        try:
            yield
        finally:
            fcntl.fcntl(f.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, before)


@pytest.fixture
def own(own_box: Box, minicontainer_cli: Run) -> Iterator[tuple[Path, Operator]]:
    """A root file system of its own, and a container of it."""
    operator = Operator(minicontainer_cli, own_box.rootfs)
    etc = own_box.rootfs / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text("root:x:0:0::/:/bin/sh\nbob:x:7:7::/:/bin/sh\n", encoding="ascii")
    (own_box.rootfs / "opt").mkdir(exist_ok=True)
    (own_box.rootfs / "opt/true").write_bytes((own_box.rootfs / "bin/busybox").read_bytes())
    (own_box.rootfs / "opt/true").chmod(0o755)
    operator.run("sleep", "1000", options=("--name", "leaser"))
    yield own_box.rootfs, operator
    minicontainer_cli("rm", "-f", *operator.ids)


@pytest.mark.parametrize("option", [(), ("--init",), ("--security-opt", "STRICT")], ids=str)
def test_a_program(own: tuple[Path, Operator], minicontainer_cli: Run, tmp_path: Path, option: tuple[str, ...]) -> None:
    rootfs, _ = own
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(STRICT), encoding="ascii")
    option = tuple(f"seccomp={profile}" if word == "STRICT" else word for word in option)
    runs: list[list[Any]] = [["run", *option, rootfs, "/opt/true"], ["run", "-d", *option, rootfs, "/opt/true"]]
    for given in [*runs, ["exec", "leaser", "/opt/true"]]:
        with leased(rootfs / "opt/true"):
            assert f"program /opt/true: {LEASED}" in refusal(minicontainer_cli(*given, timeout=30), code=126)
    assert minicontainer_cli("exec", "leaser", "/opt/true").returncode == 0


@pytest.mark.parametrize("option", [(), ("--init",), ("--userns", "host")], ids=str)
def test_the_interpreter_of_a_script(
    own: tuple[Path, Operator], minicontainer_cli: Run, option: tuple[str, ...]
) -> None:
    """Also that of an interpreter that is a script."""
    rootfs, _ = own
    for name, line in (("first", "/opt/second"), ("second", "/opt/true sh")):
        (rootfs / "opt" / name).write_text(f"#!{line}\n", encoding="ascii")
        (rootfs / "opt" / name).chmod(0o755)
    commands: list[list[Any]] = [["run", *option, rootfs, "/opt/first"], ["exec", "leaser", "/opt/first"]]
    for given in commands:
        with leased(rootfs / "opt/true"):
            assert f"program /opt/first: {LEASED}" in refusal(minicontainer_cli(*given, timeout=30), code=126)


def test_the_loader_of_a_program(own: tuple[Path, Operator], minicontainer_cli: Run, tmp_path: Path) -> None:
    rootfs, _ = own
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n", encoding="ascii")
    command = ["cc", "-o", str(rootfs / "opt/dynamic"), "-Wl,--dynamic-linker=/opt/true", str(source)]
    subprocess.run(command, check=True)
    commands: list[list[Any]] = [["run", rootfs, "/opt/dynamic"], ["exec", "leaser", "/opt/dynamic"]]
    for given in commands:
        with leased(rootfs / "opt/true"):
            assert f"program /opt/dynamic: {LEASED}" in refusal(minicontainer_cli(*given, timeout=30), code=126)


def test_the_users(own: tuple[Path, Operator], minicontainer_cli: Run) -> None:
    """Whom a name stands for is not known then, and not that there is none; nor which groups go with a number."""
    rootfs, _ = own
    for user in ("bob", "7"):
        for given in (["run", "-u", user, rootfs, "true"], ["exec", "-u", user, "leaser", "true"]):
            with leased(rootfs / "etc/passwd"):
                assert f"/etc/passwd: {LEASED}" in refusal(minicontainer_cli(*given, timeout=30))
    assert minicontainer_cli("exec", "-u", "bob", "leaser", "id", "-u").stdout == "7\n"


def test_what_is_copied(own: tuple[Path, Operator], minicontainer_cli: Run, tmp_path: Path) -> None:
    rootfs, _ = own
    with leased(rootfs / "etc/passwd"):
        done = minicontainer_cli("cp", "leaser:/etc/passwd", tmp_path / "out", timeout=30)
        assert f"cp /etc/passwd: {LEASED}" in refusal(done)
        done = minicontainer_cli("export", "-o", tmp_path / "out.tar", "leaser", timeout=30)
        assert f"export /etc/passwd: {LEASED}" in refusal(done)
    assert not {"out", "out.tar"} & set(os.listdir(tmp_path))
