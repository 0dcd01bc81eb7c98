"""What the files of a detached container say, whatever is in them: a record, or CorruptError and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicontainer as mc
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.linux.process import Process, boot_id
from minicontainer.spec import Device, DeviceRate, Limits, Mount, Spec, Ulimit

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
STATE: dict[str, Any] = {
    "status": "running",
    "boot": "",
    "monitor": [1, 2],
    "process": [3, 4],
    "started": 5 * 10**9,
    "finished": None,
    "exit_code": None,
    "reason": "",
    "oom_killed": False,
    "restarts": 0,
    "log_lost": 0,
}


def full() -> Spec:
    """One with something of everything."""
    return Spec(
        ["a", "b\udcff"],
        rootfs="/tmp",
        env={"A": "b"},
        mounts=(Mount("/a", "/b", readonly=True, options=frozenset({"dev"})), Mount("/t", type="tmpfs", size="1m")),
        devices=(Device("/dev/null", "/dev/x", "r"),),
        ulimits=(Ulimit("core", 0, -1),),
        sysctls={"kernel.domainname": "x"},
        limits=Limits(memory="64M", device_read_bps=(DeviceRate("/dev/sda", 7),)),
        cap_add=("SYS_PTRACE",),
        tty=True,
    )


def test_a_config_comes_back() -> None:
    config = Config("0" * 64, full(), 1.5, {"a": "b"}, "on-failure:3", 10**6, 2, True, True, 4.5)
    assert Config.from_json(config.to_json()) == config
    assert config.renamed("other").spec.name == "other"


def test_a_renamed_one_keeps_its_host_name() -> None:
    config = Config("0" * 64, Spec(["a"], rootfs="/tmp", name="first"), 0.0)
    assert config.renamed("second").spec.hostname == "first"
    config = Config("0123456789abcdef" * 4, Spec(["a"], rootfs="/tmp"), 0.0)
    assert config.renamed("second").spec.hostname == "0123456789ab"
    config = Config("0" * 64, Spec(["a"], rootfs="/tmp", name="first", uts="host"), 0.0)
    assert config.renamed("second").spec.hostname is None


@given(JSON)
def test_any_json_is_a_config_or_corrupt(data: object) -> None:
    for text in (json.dumps(data), json.dumps({"version": 1, "spec": data}), json.dumps({"version": 1, "id": data})):
        with pytest.raises(CorruptError):
            Config.from_json(text)


@given(st.text())
def test_any_text_is_corrupt(text: str) -> None:
    with pytest.raises(CorruptError):
        Config.from_json(text)
    with pytest.raises(CorruptError):
        State.from_json(text, owner_alive=True)


@given(st.integers(0, 400))
def test_half_a_file_is_corrupt(length: int) -> None:
    text = Config("0" * 64, full(), 1.5).to_json()
    with pytest.raises(CorruptError):
        Config.from_json(text[: min(length, len(text) - 1)])


@given(st.sampled_from(sorted(STATE)), JSON)
def test_any_value_in_a_state(key: str, value: object) -> None:
    """It is a state of the right types, or corrupt."""
    try:
        state = State.from_json(json.dumps({**STATE, "boot": boot_id(), key: value}), owner_alive=True)
    except CorruptError:
        return
    assert state.status in ("running", "restarting", "exited", "dead")
    for when in (state.started, state.finished):
        assert when is None or math.isfinite(when)
    assert state.exit_code is None or isinstance(state.exit_code, int)
    assert isinstance(state.restarts, int)


@given(st.dictionaries(st.sampled_from(sorted(STATE)), JSON))
def test_what_is_missing_or_more(data: dict[str, Any]) -> None:
    if set(data) != set(STATE):
        with pytest.raises(CorruptError):
            State.from_json(json.dumps(data), owner_alive=True)
    with pytest.raises(CorruptError):
        State.from_json(json.dumps({**STATE, "unknown": 1}), owner_alive=True)


def test_processes_of_another_boot_are_not_believed() -> None:
    state = State.from_json(json.dumps({**STATE, "boot": "another"}), owner_alive=True)
    assert (state.status, state.monitor, state.process) == ("dead", None, None)


def test_a_process_is_its_number_and_its_start() -> None:
    import os

    from minicontainer.linux.process import start_time

    own = Process(os.getpid(), start_time(os.getpid()))
    assert own.is_alive()
    assert not Process(own.pid, own.start + 1).is_alive()
    assert Process(own.pid, own.start + 1).pidfd() == -1
    assert isinstance(CorruptError("x"), mc.Error)
