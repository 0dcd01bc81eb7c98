"""What is said of a wrong value: the field, or the option as it was typed, the value and the reason."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest
from commands import COMMANDS

import minicontainer as mc
from minicontainer.cli.root import cli
from minicontainer.errors import Error, SpecError

# ---- the library: a field, a value, and the line

FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"rootfs": ""}, "rootfs: none was given (a directory to be its root, such as rootfs='/srv/x')"),
    ({"args": ["a", 5]}, "args[1] 5: must be a string, not int"),
    ({"mounts": [5]}, "mounts[0] 5: must be a Mount, or a string as the command line takes it, not int"),
    ({"mounts": ["/a:/b", "x"]}, "mounts[1] x: must be SOURCE:TARGET[:ro] (SOURCE: a path, or the name of a volume)"),
    ({"mounts": ["/a:b"]}, "mounts[0] /a:b: target b must be an absolute path in the container"),
    ({"mounts": ["/a:/b", "/c:/b"]}, "mounts /b: is given more than once (each once)"),
    ({"devices": [None]}, "devices[0]: must be a Device, or a string as the command line takes it, not NoneType"),
    ({"devices": ["/dev/null:/x"]}, "devices[0] /dev/null:/x: target /x must be below /dev in the container"),
    ({"ulimits": ["x=1"]}, "ulimits[0] x=1: name x is no resource limit (cpu fsize"),
    ({"ports": ["80/x"]}, "ports[0] 80/x: protocol x must be one of tcp udp"),
    ({"ports": [70000]}, "ports[0] 70000: '70000' is not within 1 to 65535"),
    ({"ports": [80], "network": "host"}, "ports: is of no use with network=host (--network bridge)"),
    ({"sysctls": {"a": "b"}}, "sysctls a: is none that a namespace keeps apart from the host's (those are net.* "),
    ({"sysctls": ["a"]}, "sysctls a: must be NAME=VALUE (as in net.ipv4.ip_forward=1)"),
    ({"cwd": "x"}, "cwd x: must be an absolute path in the container"),
    ({"group_add": ["a", ""]}, "group_add[1] '': is empty"),
    ({"cap_add": ["KILL", "FLY"]}, "cap_add[1] FLY: is no capability (see capabilities(7), or ALL)"),
    ({"cap_drop": ["FLY"]}, "cap_drop[0] FLY: is no capability"),
    ({"dns": ["x"], "network": "bridge"}, "dns[0] x: is no IP address (such as 10.88.0.7 or fd00::7)"),
    ({"add_hosts": {"a": "x"}, "network": "bridge"}, "add_hosts x: is no IP address"),
    ({"read_only": 1}, "read_only 1: must be True or False, not int"),
    ({"shm_size": "x"}, "shm_size x: is no size (bytes, or a number with b, k, m, g or t)"),
    ({"network": "a b"}, "network 'a b': must be none, host, bridge, another network's name, container:NAME, ns:PATH"),
    ({"userns": "x"}, "userns x: must be auto, private, host, keep-id, UID:GID:COUNT, ns:PATH or pid:N"),
    ({"limits": {"pids": 0}}, "pids 0: must be at least 1 (or -1: unlimited)"),
    ({"limits": {"memory_swap": "1m"}}, "memory_swap 1048576: needs a limit of memory (--memory)"),
    ({"limits": {"device_read_bps": ["/x:z"]}}, "device_read_bps[0] /x:z: rate z is no size"),
    ({"limits": {"device_read_bps": [7]}}, "device_read_bps[0] 7: must be a DeviceRate or a string, not int"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "says"), FIELDS)
def test_of_a_field(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        mc.Spec(**{"args": ["x"], "rootfs": "/srv", **fields})
    assert str(caught.value).startswith(says)


def test_of_a_tmpfs() -> None:
    with pytest.raises(
        SpecError, match=r"^tmpfs size 200%: is no share of the memory \(1% to 100%, or a size as 64m\)"
    ):
        mc.Mount("/t", type="tmpfs", size="200%")


# ---- the command line: each option that takes a value, by each of its names

ANY = {"--entrypoint", "--append", "--initrd", "--rootfs"}  # any text may be meant
WRONG = {
    "--name": "/", "--label": "=x", "--log-opt": "x=1", "--env": "=x", "--hostname": "a_!", "--network": "a b",
    "--env-file": "/none/x", "--cidfile": "/none/x", "--meta": "/none/x", "--output": "/none/x", "--user": "a:b:c",
    "--group-add": "-7", "--max-members": "-x", "--serial": "/none/x",
}  # fmt: skip
ARGUMENTS = {
    "compile": ["-o", "/none/x", "/tmp"], "create": ["ROOTFS"], "run": ["-d", "ROOTFS"], "exec": ["C", "true"],
    "export": ["C"], "kvm-boot": ["hello"],
    "rootfs tar": ["/dev/null", "DIR"], "network create": ["N"], "compare linux": ["KERNEL"],
}  # fmt: skip
ALONE = ("ps", "events", "info", "version", "doctor", "network ls", "volume ls", "kernel ls")
VALUED = [
    (name, spelled, option.opts)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag and not option.hidden
    for spelled in option.opts
    if not ANY & {*option.opts}
]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command line that is wrong, before anything is done."""
    try:
        cli.main(words, prog_name="minicontainer", standalone_mode=False)
    except click.ClickException as e:
        return e.format_message()
    except Error as e:
        return str(e) if e.exit_code == 125 else f"{e.exit_code}: {e}"
    raise AssertionError(f"{words} was taken: {capsys.readouterr()}")


@pytest.mark.parametrize(("name", "spelled", "names"), VALUED, ids=lambda v: v if isinstance(v, str) else "")
def test_of_an_option(name: str, spelled: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    value = next((WRONG[other] for other in names if other in WRONG), "x")
    arguments = ARGUMENTS.get(name, [] if name in ALONE or name.startswith("compare") else ["C"])
    if "--meta" in names:
        arguments = arguments[-1:]  # it is for what is waited for
    if "--output" in names:
        arguments = arguments[-1:]  # it is given once
    before = ["--network", "bridge"] if {"--ip", "--mac-address", "--dns", "--add-host"} & {*names} else []
    said = refusal([*name.split(), *before, spelled, value, *arguments], capsys)
    assert re.search(rf"(^|'){re.escape(spelled)}(?![\w-])", said), said
    assert value in said
    assert "\n" not in said


def test_the_name_is_the_last_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in {
        ("ps", "-anx"): "-n x: must be",
        ("ps", "--last=x"): "--last x: must be",
        ("run", "--net", "a b", "R"): "--net 'a b': must be",
        ("run", "-mx", "R"): "-m x: is no size",
        ("run", "-e", "A=1", "-e", "=b", "R"): "-e =b: has no name",
        ("run", "--sysctl", "net.a=1", "--sysctl", "a=b", "R"): "--sysctl a=b: a is none that",
        ("run", "--", "R", "-m", "x"): "rootfs ",
    }.items():
        assert refusal(list(words), capsys).startswith(says)


def test_what_is_wrong_is_said_whoever_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong value ends ``update`` and ``exec`` as it ends ``run``: before the container is looked for."""
    for words, says in {
        ("update", "--memory-swap", "x", "C"): "--memory-swap x: is no size",
        ("update", "--oom-group=x", "C"): "--oom-group x: must be true or false",
        ("exec", "-w", "x", "C", "true"): "-w x: must be an absolute path",
    }.items():
        assert refusal(list(words), capsys).startswith(says)
