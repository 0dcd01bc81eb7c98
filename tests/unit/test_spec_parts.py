"""Parts of a spec: mounts, devices, limits of resources, as docker's command line writes them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import TEXTS, or_refused, refused

from minicontainer.spec import RLIMITS, Device, DeviceRate, Limits, Mount, Ulimit

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0:,/"), min_size=1, max_size=12)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map(
    lambda n: "/" + "/".join(n)
)

# ---- mounts


@given(PATHS, PATHS, st.sets(st.sampled_from(["ro", "nosuid", "nodev", "noexec"])))
def test_volume(source: str, target: str, modes: set[str]) -> None:
    mount = Mount.volume(":".join([source, target, *([",".join(sorted(modes))] if modes else [])]))
    assert (mount.type, mount.source, mount.target) == ("bind", source, target)
    assert mount.readonly == ("ro" in modes)
    assert mount.options == modes - {"ro"}


@given(PATHS, PATHS, st.booleans())
def test_mount(source: str, target: str, readonly: bool) -> None:
    """Both notations say the same, in whatever order the items come."""
    items = ["type=bind", f"src={source}", f"dst={target}", *(["ro"] if readonly else [])]
    option = Mount.option(",".join(items))
    assert (
        option
        == Mount.option(",".join(reversed(items)))
        == Mount.volume(f"{source}:{target}:{'ro' if readonly else 'rw'}")
    )


def test_relative_sources_are_the_callers() -> None:
    assert Mount.volume("x/:/y").source == os.path.abspath("x")
    assert Mount.volume("./x/../z:/y").source == os.path.abspath("z")
    assert Mount.option("source=x,target=/y").source == os.path.abspath("x")


def test_a_word_without_a_slash_is_the_name_of_a_volume() -> None:
    assert Mount.volume("x:/y") == Mount("/y", "x", "volume")
    assert Mount.volume("x.1:/y:ro,noexec") == Mount("/y", "x.1", "volume", True, options=frozenset({"noexec"}))
    assert Mount.option("type=volume,source=x,target=/y") == Mount("/y", "x", "volume")
    assert Mount.volume(".:/y").type == Mount.volume("..:/y").type == "bind"
    for value in ("a b:/y", "~:/y", "-x:/y"):
        refused(Mount.volume, "volume", "must match", "a path begins with / or ./", arguments=(value,))


def test_tmpfs() -> None:
    assert Mount.tmpfs("/x") == Mount("/x", type="tmpfs")
    mount = Mount.tmpfs("/x:size=64m,mode=1750,ro,exec")
    assert mount == Mount("/x", type="tmpfs", size=64 << 20, mode=0o1750, readonly=True, options=frozenset({"exec"}))
    assert Mount.option("type=tmpfs,target=/x,tmpfs-size=64m,tmpfs-mode=1750,ro") == Mount(
        "/x", type="tmpfs", size="64m", mode=0o1750, readonly=True
    )
    mount = Mount.tmpfs("/x:uid=1,gid=2,nr_inodes=1k,size=50%")
    assert mount == Mount("/x", type="tmpfs", uid=1, gid=2, nr_inodes=1024, size="50%")
    assert Mount.tmpfs("/x:") == Mount.tmpfs("/x")


@pytest.mark.parametrize(
    ("notation", "text", "says"),
    [
        (Mount.volume, "", "is empty"),
        (Mount.volume, "/a", "SOURCE:TARGET"),
        (Mount.volume, "/a:", "SOURCE:TARGET"),
        (Mount.volume, ":/b", "SOURCE:TARGET"),
        (Mount.volume, "/a:/b:/c:ro", "SOURCE:TARGET"),
        (Mount.volume, "/a:/b:", "SOURCE:TARGET"),
        (Mount.volume, "/a:b", "volume /a:b: target b must be an absolute path"),
        (Mount.volume, "/a:/b:z", "unknown option 'z'"),
        (Mount.volume, "/a:/b:ro,rw", "both ro and rw"),
        (Mount.volume, "/a:/b:suid,nosuid", "nosuid"),
        (Mount.volume, "/a:/", "root itself"),
        (Mount.volume, "/a:/x/..", "root itself"),
        (Mount.volume, "/a:/b\0", "NUL"),
        (Mount.option, "", "is empty"),
        (Mount.option, "target=/b", "no source"),
        (Mount.option, "source=/a", "no target"),
        (Mount.option, "source=/a,target=b", "absolute"),
        (Mount.option, "type=overlay,source=a,target=/b", "bind, volume or tmpfs"),
        (Mount.option, "type=tmpfs,source=/a,target=/b", "a tmpfs has none"),
        (Mount.option, "source=/a,target=/b,tmpfs-mode=700", "no size, mode or owner"),
        (Mount.tmpfs, "/x:uid=root", "unknown option"),
        (Mount.tmpfs, "/x:uid=4294967295", "uid"),
        (Mount.tmpfs, "/x:size=101%", "size 101% is no share of the memory (1% to 100%, or a size as 64m)"),
        (Mount.tmpfs, "/x:size=0%", "size 0% is no share of the memory"),
        (Mount.tmpfs, "/x:nr_inodes=0", "at least 1"),
        (Mount.option, "source=/a,target=/b,readonly=perhaps", "unknown item"),
        (Mount.option, "source=/a,target=/b,bind-propagation=rshared", "unknown item"),
        (Mount.option, "type=tmpfs,target=/b,tmpfs-size=1", "at least 4096"),
        (Mount.option, "type=tmpfs,target=/b,tmpfs-mode=99", "unknown item"),
        (Mount.tmpfs, "", "is empty"),
        (Mount.tmpfs, "b", "absolute"),
        (Mount.tmpfs, "/b:size=x", "is no size"),
        (Mount.tmpfs, "/b:mode=99", "unknown option"),
    ],
)
def test_no_mount(notation: Any, text: str, says: str) -> None:
    refused(lambda: notation(text), says)


def test_no_mount_of_a_script() -> None:
    refused(lambda: Mount("/b"), "mount source")
    refused(lambda: Mount("/b", "/a", options=frozenset({"sync"})), "sync")
    refused(lambda: Mount("/b", "/a", size="1m"), "no size")
    refused(lambda: Mount("/b", type="tmpfs", mode=0o10000), "mode")


@given(TEXTS, st.sampled_from([Mount.volume, Mount.option, Mount.tmpfs, Device.option, Ulimit.option]))
def test_anything(text: str, notation: Any) -> None:
    """A part, or one line; never another exception."""
    with or_refused():
        notation(text)


# ---- devices


def test_device() -> None:
    assert Device.option("/dev/x") == Device("/dev/x", "/dev/x", "rwm")
    assert Device.option("/dev/x:/dev/y") == Device("/dev/x", "/dev/y", "rwm")
    assert Device.option("/dev/x:rw") == Device("/dev/x", "/dev/x", "rw")
    assert Device.option("/tmp/x:/dev//y/../z:rwm").target == "/dev/z"


@pytest.mark.parametrize(
    "text", ["", "x", "/x", "/dev/x:/y", "/dev/x:/dev/../y", "/dev/x:/dev", "/dev/x:rx", "/dev/x:/dev/y:z", "/dev/x:"]
)
def test_no_device(text: str) -> None:
    refused(lambda: Device.option(text), "device")


def test_rates() -> None:
    assert DeviceRate.option("device-read-bps", "/dev/x:1m", bytes_per_second=True) == DeviceRate("/dev/x", 1 << 20)
    assert DeviceRate.option("device-read-iops", "/dev/a:b:5", bytes_per_second=False) == DeviceRate("/dev/a:b", 5)
    for text in ("/dev/x", "x:1", "/dev/x:", "/dev/x:0", "/dev/x:-1"):
        refused(lambda text: DeviceRate.option("device-read-bps", text, bytes_per_second=True), arguments=(text,))
    refused(lambda: DeviceRate.option("device-read-iops", "/dev/x:1m", bytes_per_second=False), "operations a second")


# ---- limits of resources


@given(st.sampled_from(sorted(RLIMITS)), st.integers(-1, 2**63 - 1), st.integers(-1, 2**63 - 1))
def test_ulimit(name: str, soft: int, hard: int) -> None:
    def text(number: int) -> str:
        return "unlimited" if number == -1 else str(number)

    above = hard != -1 and (soft == -1 or soft > hard)
    if above:
        refused(lambda: Ulimit.option(f"{name}={soft}:{hard}"), "soft limit is above")
    else:
        assert Ulimit.option(f"{name}={text(soft)}:{text(hard)}") == Ulimit(name, soft, hard)
    assert Ulimit.option(f"{name}={soft}") == Ulimit(name, soft, soft)


@pytest.mark.parametrize(
    "text",
    [
        "nofile",
        "=1",
        "nofile=",
        "nofile=a",
        "nofile=1:",
        "nofile=1:2:3",
        "files=1",
        "NOFILE=1",
        "nofile=-2",
        "nofile=1.5",
    ],
)
def test_no_ulimit(text: str) -> None:
    refused(lambda: Ulimit.option(text), "ulimit")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"memory": "0"}, "memory 0"),
        ({"memory": 4095}, "at least 4096"),
        ({"memory_swap": "1g"}, "needs a limit of memory"),
        ({"memory": "64m", "memory_swap": "63m"}, "below memory"),
        ({"memory": "64m", "memory_reservation": "65m"}, "above memory"),
        ({"cpus": "0"}, "cpus 0"),
        ({"cpus": "nan"}, "cpus nan"),
        ({"cpus": True}, "cpus True"),
        ({"cpu_shares": 1}, "from 2 to 262144"),
        ({"cpuset_cpus": "0-"}, "cpuset_cpus"),
        ({"pids": -7}, "pids -7"),
        ({"pids": 0}, "at least 1"),
        ({"pids": 1.5}, "whole number"),
        ({"blkio_weight": 1001}, "from 10 to 1000"),
    ],
)
def test_no_limits(fields: dict[str, Any], says: str) -> None:
    refused(lambda: Limits(**fields), says)


def test_limits() -> None:
    limits = Limits(memory="64M", memory_swap=-1, memory_reservation="32M", cpus="1.5", cpu_shares="512", pids="20")
    assert (limits.memory, limits.memory_swap, limits.memory_reservation) == (64 << 20, -1, 32 << 20)
    assert (limits.cpus, limits.cpu_shares, limits.pids) == (1.5, 512, 20)
    assert Limits(memory="64m", memory_swap="64m").memory_swap == 64 << 20
    assert limits
    assert not Limits()
    assert hash(limits) == hash(Limits(64 << 20, -1, 32 << 20, 1.5, 512, None, 20))
