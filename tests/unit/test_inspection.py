"""``inspect`` tells all that was asked for, in docker's words."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from minicontainer.cli.inspection import as_data
from minicontainer.detached.records import Config, State
from minicontainer.spec import Device, DeviceRate, Limits, Mount, Port, Spec, Ulimit

ID = "0123456789abcdef" * 4
PLAIN = Spec(["true"], rootfs="/r", network="net")
LIMITS: dict[str, Any] = {
    "memory": "64m", "memory_swap": -1, "memory_reservation": "1m", "cpus": 0.5, "cpu_shares": 2, "cpuset_cpus": "0",
    "pids": 7, "blkio_weight": 10, "oom_group": False, **{f"device_{what}": (DeviceRate("/dev/x", 5),) for what in
                                      ("read_bps", "write_bps", "read_iops", "write_iops")},
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "args": ["false", "x"], "executable": "/bin/x", "rootfs": "/s", "ephemeral": True, "name": "n", "hostname": "h",
    "env": {"A": "1"}, "cwd": "/w", "user": "5", "group_add": ("6",), "mounts": (Mount("/m", "/s"),), "read_only": True,
    "shm_size": 4096, "devices": (Device("/dev/a", "/dev/b"),), "init": True, "tty": True,
    "limits": Limits(memory="1m"), "ulimits": (Ulimit("nofile", 1, 2),), "sysctls": {"net.x": "1"},
    "cap_add": ("ALL",), "cap_drop": ("KILL",), "seccomp": "unconfined", "no_new_privileges": False,
    "privileged": True, "network": "none", "ports": (Port(80, 8080),), "ip": "10.0.0.2",
    "mac_address": "02:00:00:00:00:01", "dns": ("10.0.0.3",), "add_hosts": {"a": "10.0.0.4"}, "pid": "host",
    "ipc": "host", "uts": "host", "cgroupns": "host", "timens": "host", "userns": "host", "stop_signal": "INT",
    "isolation": "kvm", "kernel": "k", "root_image": "erofs", "stop_timeout": 3, "oom_score_adj": 5, "umask": 0o77,
    "no_new_suid": True,
}  # fmt: skip


def told(spec: Spec = PLAIN, **of_config: Any) -> dict[str, Any]:
    """Of one that was created."""
    container: Any = SimpleNamespace(
        config=Config(ID, spec, 1700000000.0, **of_config),
        state=State("created"),
        directory="/d",
        open_cgroup=lambda: None,
        lease=lambda: None,
        published=lambda: spec.ports,
    )
    data = as_data(container)
    assert json.loads(json.dumps(data)) == data
    return data


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Spec) if f.name != "die_with_parent"])
def test_every_field_of_a_spec_is_seen(field: str) -> None:
    of_machines = field in ("kernel", "root_image")
    plain = dataclasses.replace(PLAIN, isolation="kvm", read_only=True) if of_machines else PLAIN
    assert told(dataclasses.replace(plain, **{field: OTHERS[field]})) != told(plain)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Limits)])
def test_every_limit_is_seen(field: str) -> None:
    base: dict[str, Any] = {"memory": "32m"} if field.startswith(("memory_", "oom_")) else {}
    with_it = dataclasses.replace(PLAIN, limits=Limits(**{**base, field: LIMITS[field]}))
    assert told(with_it) != told(dataclasses.replace(PLAIN, limits=Limits(**base)))


@pytest.mark.parametrize(
    "options",
    [{"labels": {"a": "b"}}, {"restart": "always"}, {"log_size": 1}, {"log_files": 9}, {"interactive": True},
     {"remove": True}, {"timeout": 5.0}],
    ids=str,
)  # fmt: skip
def test_every_option_is_seen(options: dict[str, Any]) -> None:
    assert told(**options) != told()


def test_what_was_not_asked_for_is_null() -> None:
    data = told()
    assert (data["Name"], data["Created"]) == (None, "2023-11-14T22:13:20.000000000Z")
    assert data["Config"]["Hostname"] == ID[:12]
    assert {data["State"][key] for key in ("Pid", "ExitCode", "Error", "StartedAt", "FinishedAt")} == {None}
    wished = data["HostConfig"]
    assert {wished[key] for key in ("Memory", "NanoCpus", "PidsLimit", "OomScoreAdj", "UsernsMode")} == {None}
    assert data["NetworkSettings"]["Networks"]["net"]["IPAddress"] is None


def test_a_tmpfs() -> None:
    mount = Mount("/t", type="tmpfs", size=65536, mode=0o700, uid=1, gid=2, nr_inodes=9, options=frozenset({"exec"}))
    found = told(dataclasses.replace(PLAIN, mounts=(mount,)))["HostConfig"]["Tmpfs"]
    assert found == {"/t": "rw,size=65536,uid=1,gid=2,nr_inodes=9,mode=700,exec"}
