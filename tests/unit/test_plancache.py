"""Plans that are kept in files: equal to those that are compiled, and compiled again where anything differs."""

from __future__ import annotations

import marshal
import os
from pathlib import Path
from typing import Any

import pytest
from hosts import compiled, some_host
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.container import parent, plancache
from minicontainer.container.compilation import compile_plans
from minicontainer.container.host import Host
from minicontainer.plan import Plan
from minicontainer.spec import Mount, Spec

CODE = b"version"
RANGE: dict[str, Any] = {"userns": "range", "idmapped": True}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the files, in a home of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(plancache, "_sources", lambda: iter(()))
    return tmp_path / "minicontainer/plans"


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[Spec]:
    """The specs that are compiled."""
    seen: list[Spec] = []

    def counting(spec: Spec, host: Host) -> Any:
        seen.append(spec)
        return compile_plans(spec, host)

    monkeypatch.setattr(plancache, "compile_plans", counting)
    return seen


def a_spec(*args: str, **fields: Any) -> Spec:
    return Spec(args or ("/bin/true",), rootfs="/srv/root", **fields)


@given(compiled(), st.lists(st.text("ab/", max_size=3), max_size=3), st.sampled_from([None, "box"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_kept_is_what_is_compiled(case: tuple[Spec, Host, Plan], args: list[str], name: str | None) -> None:
    spec, host, _ = case
    other = Spec(**{**{n: getattr(spec, n) for n in spec.__match_args__}, "args": args, "name": name})
    plancache.plans(spec, host, CODE)
    made, made_of_parent = plancache.plans(other, host, CODE)
    expected, of_parent = compile_plans(other, host)
    assert (made.inputs, made.slots) == (expected.inputs, expected.slots)
    assert made.steps == expected.steps
    assert made.nstrings >= expected.nstrings
    assert made.encoded().ops == expected.encoded().ops
    assert (made_of_parent is None) == (of_parent is None)


def test_the_parent_side_plan_is_kept_too(count: list[Spec]) -> None:
    spec = a_spec(mounts=[Mount("/data", "/srv/data")], ulimits=["nofile=64:128"])
    host = some_host(spec, **RANGE)
    _, expected = plancache.plans(spec, host, CODE)
    _, found = plancache.plans(spec, host, CODE)
    assert len(count) == 1
    assert found is not None
    assert expected is not None
    assert found.plan.buffer == expected.plan.buffer
    assert found.plan.steps == parent.parent_plan(spec, host).steps
    assert (found.names, found.pipe_slots, found.room) == (expected.names, expected.pipe_slots, expected.room)
    assert list(found.shared) == list(expected.shared)


def test_a_command_never_seen_before_is_not_compiled(count: list[Spec]) -> None:
    for number in range(3):
        spec = a_spec("/bin/echo", str(number), env={"N": str(number)}, hostname=f"h{number}", cwd="/tmp")
        plan, _ = plancache.plans(spec, some_host(spec), CODE)
        assert ("/bin/echo", str(number)) in [step.args[1] for step in plan.steps if step.call == "execve"]
    assert len(count) == 1


@pytest.mark.parametrize(
    "other",
    [
        ({"read_only": True}, {}, CODE),
        ({"rootfs": "/srv/other"}, {}, CODE),
        ({}, {"uid": 7}, CODE),
        ({}, {"seccomp": b"\x06\0\0\0\0\0\xff\x7f"}, CODE),
        ({}, {"userns": "private", "outer_maps": (("uid_map", "0 0 7"), ("gid_map", "0 0 7"))}, CODE),
        ({}, {}, b"later version"),
    ],
)
def test_another_spec_host_or_version_is_compiled(
    count: list[Spec], other: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    fields, facts, code = other
    spec, changed = a_spec(), Spec(**{"args": ("/bin/true",), "rootfs": "/srv/root", **fields})
    plancache.plans(spec, some_host(spec), CODE)
    plan, _ = plancache.plans(changed, some_host(changed, **facts), code)
    assert len(count) == 2
    assert plan.steps == compile_plans(changed, some_host(changed, **facts))[0].steps


def test_a_module_that_changed_makes_it_stale(
    count: list[Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module.py"
    module.write_text("1", encoding="ascii")
    monkeypatch.setattr(plancache, "_sources", lambda: iter([str(module)]))
    spec = a_spec()
    for _ in range(2):  # it may be newer than what this process imported, so nothing is kept
        plancache.plans(spec, some_host(spec), CODE)
    assert len(count) == 2
    monkeypatch.setattr(plancache, "IMPORTED", module.stat().st_ctime_ns + 1)
    for _ in range(2):
        plancache.plans(spec, some_host(spec), CODE)
    assert len(count) == 3
    module.write_text("22", encoding="ascii")
    plancache.plans(spec, some_host(spec), CODE)
    assert len(count) == 4


MAPS = {
    "root": (("uid_map", "0 0 70000"), ("gid_map", "0 0 70000")),
    "user": (
        ("/usr/bin/newuidmap", "newuidmap", "PID", "0", "1000", "1", "1", "200000", "65536"),
        ("/usr/bin/newgidmap", "newgidmap", "PID", "0", "1000", "1", "1", "200000", "65536"),
    ),
}


@pytest.mark.parametrize("outer_maps", MAPS.values(), ids=MAPS)
def test_other_id_maps_are_another_plan(count: list[Spec], outer_maps: tuple[tuple[str, ...], ...]) -> None:
    """They come from /etc/subuid, PATH and /proc/self/uid_map, which change while plans are kept."""
    spec = a_spec()
    changed = tuple((*words[:-1], words[-1].replace("6", "5").replace("7", "6")) for words in outer_maps)
    for maps in (outer_maps, changed, changed):
        _, found = plancache.plans(spec, some_host(spec, userns="private", outer_maps=maps), CODE)
        assert found is not None
        written = str([step.args for step in found.plan.steps])
        assert all(word in written for words in maps for word in words)
    assert len(count) == 2


def test_the_modules_beside_a_bundle_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    listed = list(plancache._sources())
    assert plancache.__file__ in listed
    assert all(os.path.isfile(path) for path in listed)


def test_a_damaged_file_is_not_believed(count: list[Spec], place: Path) -> None:
    spec = a_spec()
    expected, _ = plancache.plans(spec, some_host(spec), CODE)
    (file,) = place.iterdir()
    data = file.read_bytes()
    for at in range(0, len(data), 97):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        plan, _ = plancache.plans(spec, some_host(spec), CODE)
        assert plan.buffer == expected.buffer
    assert len(count) > len(data) // 97


@pytest.mark.parametrize("payload", [b"", b"\0", marshal.dumps(()), marshal.dumps(((), (), (), None))])
def test_a_file_with_other_content_is_not_believed(
    count: list[Spec], monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    """Its checksum is right."""
    spec = a_spec()
    monkeypatch.setattr(plancache, "_pack", lambda *_: payload)
    for _ in range(2):
        plan, _ = plancache.plans(spec, some_host(spec), CODE)
        assert plan.buffer == compile_plans(spec, some_host(spec))[0].buffer
    assert len(count) == 2


def test_there_are_few_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plancache, "FILES", 3)
    for number in range(20):
        spec = a_spec(umask=number)
        plancache.plans(spec, some_host(spec), CODE)
    assert 1 <= len(list(place.iterdir())) <= 3
