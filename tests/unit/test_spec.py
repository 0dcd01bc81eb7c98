"""A whole spec: immutable, checked when it is made, without a system call."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import TEXTS, refused

from minicontainer.errors import SpecError
from minicontainer.spec import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    NAME_PATTERN,
    Device,
    Mount,
    Spec,
    make,
)

ROOT = "/srv/root"


def spec(*args: str, **fields: Any) -> Spec:
    return Spec(args, ROOT, **fields)


def test_defaults() -> None:
    one = spec()
    assert one.args == ("/bin/sh",)
    assert (one.cwd, one.umask, one.network, one.pid, one.no_new_privileges) == ("/", 0o022, "none", "private", True)
    assert one.capabilities() == 0xA80405FB
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.cwd = "/x"  # type: ignore[misc]


def test_paths() -> None:
    assert Spec(("x",), "a/../b").rootfs == str(Path.cwd() / "b")
    assert Spec((Path("/bin/x"), "y"), Path("/srv")).args == ("/bin/x", "y")  # type: ignore[arg-type]
    refused(lambda: Spec(("x",), ""), "rootfs: none was given (a directory ")
    refused(lambda: Spec("ls -l", ROOT), "args", "sequence")
    refused(lambda: spec("a\0b"), "args", "NUL")
    refused(lambda: spec(cwd="etc"), "cwd etc: must be an", "absolute")


@pytest.mark.parametrize("name", ["a", "A9", "a.b-c_d", "x" * 64, "0"])
def test_name(name: str) -> None:
    assert spec(name=name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-a", "_a", "x" * 65, "é", "a\n", "a\0"])
def test_no_name(name: str) -> None:
    refused(lambda: spec(name=name), "name", NAME_PATTERN if "\0" not in name else "NUL")


@given(TEXTS)
def test_a_name_is_a_file_name(name: str) -> None:
    """Whatever passes lies directly in a directory, and is no option and no hidden file."""
    try:
        spec(name=name)
    except SpecError:
        return
    assert Path("/d", name).parent == Path("/d")
    assert name.isascii()
    assert not name.startswith((".", "-"))
    assert len(name) <= 64


@pytest.mark.parametrize("hostname", ["a", "my_host", "a.b.c", "x" * 64, "1"])
def test_hostname(hostname: str) -> None:
    assert spec(hostname=hostname).hostname == hostname


@pytest.mark.parametrize("hostname", ["", "x" * 65, "-a", "a-", "a b", "a/b", "é" * 40, ".", "a\n"])
def test_no_hostname(hostname: str) -> None:
    refused(lambda: spec(hostname=hostname), "hostname")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"env": {"A=B": "1"}}, "env A=B"),
        ({"env": {"": "1"}}, "env ''"),
        ({"env": {"A": "\0"}}, "env A"),
        ({"env": {"A": 1}}, "must be a string, not int"),
        ({"user": "1:2:3"}, "user 1:2:3"),
        ({"group_add": ("4294967295",)}, "group_add"),
        ({"cap_add": ("FLY",)}, "cap_add[0] FLY"),
        ({"cap_drop": ("",)}, "cap_drop"),
        ({"umask": 0o1000}, "umask"),
        ({"umask": -1}, "umask"),
        ({"oom_score_adj": 1001}, "from -1000 to 1000"),
        ({"stop_timeout": -1}, "stop_timeout -1"),
        ({"stop_timeout": float("nan")}, "stop_timeout nan"),
        ({"stop_timeout": float("inf")}, "stop_timeout inf"),
        ({"stop_signal": "NONE"}, "stop_signal NONE"),
        ({"shm_size": "1"}, "shm_size"),
        ({"seccomp": "a\0b"}, "seccomp"),
        ({"network": "a b"}, "network 'a b'"),
        ({"network": "private"}, "network private"),
        ({"pid": "none"}, "pid none"),
        ({"pid": "pid:0"}, "pid pid:0"),
        ({"ipc": "ns:x"}, "ipc ns:x"),
        ({"userns": "none"}, "userns none"),
        ({"userns": "1:2"}, "userns 1:2"),
        ({"userns": "1:2:0"}, "userns 1:2:0"),
        ({"userns": "4294967290:0:100"}, "leads beyond the last id that can be mapped to (2147483647)"),
        ({"userns": "0:2147483600:65"}, "leads beyond the last id that can be mapped to (2147483647)"),
        ({"hostname": "x", "uts": "host"}, "uts=host"),
        ({"hostname": "x", "uts": "pid:1"}, "uts=pid:1"),
        ({"mounts": (Mount("/x", "/a"), Mount("/y/../x", "/b"))}, "mounts /x: is given more than once"),
        ({"devices": (Device("/dev/a", "/dev/x"), Device("/dev/b", "/dev/x"))}, "devices /dev/x"),
        ({"root_image": "zfs"}, "root_image zfs: must be erofs or ext4"),
        ({"root_image": "erofs", "ephemeral": True}, "root_image erofs: is for a virtual machine"),
        (
            {"root_image": "ext4", "isolation": "kvm"},
            "is read-only: changes would be lost (--ephemeral or --read-only)",
        ),
    ],
)
def test_no_spec(fields: dict[str, Any], says: str) -> None:
    refused(lambda: spec(**fields), says)


# ---- sysctls


@pytest.mark.parametrize(
    "key",
    [
        "net.ipv4.ip_forward",
        "net/ipv4/ip_forward",
        "kernel.msgmax",
        "kernel.shm_rmid_forced",
        "fs.mqueue.msg_max",
        "kernel.sem",
        "kernel.domainname",
    ],
)
def test_sysctl(key: str) -> None:
    assert spec(sysctls={key: "1"}).sysctls == {key: "1"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sysctls": {"kernel.panic": "1"}}, "kernel.panic: is none that a namespace keeps apart"),
        ({"sysctls": {"vm.swappiness": "1"}}, "apart from the host's (those are net.* kernel.msgmax "),
        ({"sysctls": {"net..x": "1"}}, "is no name of a sysctl (such as net.ipv4.ip_forward)"),
        ({"sysctls": {"net/../../kernel/panic": "1"}}, "is no name of a sysctl (such as net.ipv4.ip_forward)"),
        ({"sysctls": {"/net/x": "1"}}, "is no name of a sysctl (such as net.ipv4.ip_forward)"),
        ({"sysctls": {"net": "1"}}, "net: is none that a namespace keeps apart"),
        ({"sysctls": {"": "1"}}, "is empty"),
        ({"sysctls": {"net.x": ""}}, "is empty"),
        ({"sysctls": {"net.x": "1"}, "network": "host"}, "network=host"),
        ({"sysctls": {"kernel.msgmax": "1"}, "ipc": "host"}, "ipc=host"),
        ({"sysctls": {"kernel.domainname": "x"}, "uts": "host"}, "uts=host"),
    ],
)
def test_no_sysctl(fields: dict[str, Any], says: str) -> None:
    refused(lambda: spec(**fields), "sysctl", says)


@given(TEXTS)
def test_a_sysctl_stays_below_proc_sys(key: str) -> None:
    try:
        spec(sysctls={key: "1"})
    except SpecError:
        return
    path = Path("/proc/sys", key.replace(".", "/"))
    assert ".." not in path.parts
    assert path.parts[:3] == ("/", "proc", "sys")


# ---- capabilities

NAMES = st.lists(st.sampled_from(CAPABILITIES), unique=True, max_size=6)


@given(NAMES, NAMES)
def test_capabilities(add: list[str], drop: list[str]) -> None:
    mask = spec(cap_add=tuple(add), cap_drop=tuple(drop)).capabilities()
    assert mask == sum(1 << CAPABILITIES.index(name) for name in (DEFAULT_CAPABILITIES | set(add)) - set(drop))


def test_all_capabilities() -> None:
    every = (1 << len(CAPABILITIES)) - 1
    assert spec(privileged=True).capabilities() == spec(cap_add=("ALL",)).capabilities() == every
    assert spec(cap_drop=("all",)).capabilities() == 0
    assert spec(cap_drop=("ALL",), cap_add=("KILL",)).capabilities() == 1 << 5
    assert spec(cap_add=("ALL",), cap_drop=("KILL",)).capabilities() == every & ~(1 << 5)
    assert spec(privileged=True).capabilities(permitted=0b101) == 0b101
    assert spec(cap_add=("CHOWN",)).capabilities(permitted=0) == 0xA80405FB  # what is named is not left out


def test_no_new_suid() -> None:
    """By default where nobody installs packages."""
    setfcap = 1 << CAPABILITIES.index("SETFCAP")
    for fields, barred in (
        ({}, False),
        ({"user": "0:5"}, False),
        ({"user": ":5"}, False),
        ({"user": 1000}, True),
        ({"user": "bob"}, True),
        ({"read_only": True}, True),
        ({"read_only": True, "privileged": True}, False),
        ({"read_only": True, "no_new_privileges": False}, False),
        ({"read_only": True, "cap_add": ("cap_setfcap",)}, False),
        ({"read_only": True, "no_new_suid": False}, False),
        ({"user": 1000, "seccomp": "unconfined"}, False),
        ({"privileged": True, "no_new_suid": True}, True),
    ):
        one = spec(**fields)
        assert (one.bars_new_suid, not one.capabilities() & setfcap) == (barred, barred), fields
    refused(lambda: spec(no_new_suid=True, cap_add=("SETFCAP",)), "cap_add SETFCAP", "no-new-suid")


# ---- namespaces, changes


def test_joined() -> None:
    one = spec(network="pid:5", userns="pid:6", cgroupns="ns:/x/y", pid="host")
    assert one.joined("network") == "/proc/5/ns/net"
    assert one.joined("userns") == "/proc/6/ns/user"
    assert one.joined("cgroupns") == "/x/y"
    assert one.joined("pid") is None
    assert one.joined("ipc") is None


def test_make() -> None:
    one = make(["x"], rootfs=ROOT, cwd="/etc")
    assert one == Spec(("x",), ROOT, cwd="/etc")
    assert make(one) is one
    assert make(one, cwd="/") == Spec(("x",), ROOT)
    refused(lambda: make(one, cwd="x"), "cwd x")
    with pytest.raises(TypeError, match="unexpected keyword argument 'cdw'"):
        make(["x"], rootfs=ROOT, cdw="/")
