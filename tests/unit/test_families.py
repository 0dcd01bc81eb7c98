"""Specs of one family share what was checked and compiled; a spec is the same whether its family was known or not."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from minicontainer import Limits, Mount, Spec, SpecError
from minicontainer.records import replace
from minicontainer.spec import family

PLAIN: dict[str, Any] = {"rootfs": "/srv/x"}
MAPPINGS: dict[str, dict[str, str]] = {
    "env": {"A": "1", "B": "2"},
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "add_hosts": {"db": "10.88.0.7"},
}


@pytest.fixture(autouse=True)
def _no_families() -> None:
    family._families.clear()


@pytest.mark.parametrize(
    "changed",
    [
        {"args": ("/bin/b",)},
        {"env": {"A": "1"}},
        {"cwd": "/tmp"},
        {"hostname": "h"},
        {"name": "n"},
        {"limits": Limits(memory="64M")},
        {"limits": {"pids": 3}},
    ],
)
def test_specs_that_differ_in_these_fields_are_one_family(changed: dict[str, Any]) -> None:
    first = Spec(**PLAIN)
    assert Spec(**PLAIN, **changed).family is first.family
    assert replace(first, **changed).family is first.family


@pytest.mark.parametrize(
    "changed",
    [
        {"rootfs": "/srv/y"},
        {"read_only": True},
        {"userns": "host"},
        {"mounts": ["/a:/b"]},
        {"mounts": (Mount("/t", type="tmpfs"),)},
        {"cap_drop": ["ALL"]},
        {"sysctls": {"net.ipv4.ip_forward": "1"}},
        {"umask": 0},
        {"tty": True},
    ],
)
def test_other_fields_make_another_family_once(changed: dict[str, Any]) -> None:
    first = Spec(**PLAIN)
    other = Spec(**{**PLAIN, **changed})
    assert other.family is not first.family
    again = Spec(**{**PLAIN, **changed})
    assert again.family is other.family
    assert again == other


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": "sh"},
        {"args": ["a\0"]},
        {"env": {"A=": ""}},
        {"cwd": "relative"},
        {"hostname": "-"},
        {"name": "/"},
        {"limits": 3},
        {"limits": {"nothing": 1}},
        {"user": True},
        {"user": 1.0},
        {"group_add": (True,)},
        {"read_only": 0},
        {"shm_size": True},
        {"umask": "22"},
        {"sysctls": None},
        {"sysctls": {"net.ipv4.ip_forward": 1}},
        {"rootfs": "/srv/x\0y"},
        {"rootfs": ""},
        {"rootfs": 3},
    ],
)
def test_a_known_family_hides_no_error(wrong: dict[str, Any]) -> None:
    similar = {"user": 1, "group_add": (1,), "read_only": False, "shm_size": 4096, "umask": 0o22}
    for name, value in similar.items():
        Spec(**{**PLAIN, name: value})
    Spec(**PLAIN)
    with pytest.raises(SpecError):
        Spec(**{**PLAIN, **wrong})


def test_a_hostname_is_refused_without_a_namespace_of_its_own() -> None:
    Spec(**PLAIN, uts="host")
    with pytest.raises(SpecError, match="cannot be set with uts=host"):
        Spec(**PLAIN, uts="host", hostname="h")


def made(**fields: Any) -> Spec:
    return Spec(**fields)


def test_a_relative_path_is_of_the_directory_of_now(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    specs = []
    for place in places:
        place.mkdir()
        monkeypatch.chdir(place)
        specs.append(made(rootfs="root", mounts=["./data:/data"]))
    assert [spec.rootfs for spec in specs] == [f"{place}/root" for place in places]
    assert [spec.mounts[0].source for spec in specs] == [f"{place}/data" for place in places]


def test_few_families_are_remembered() -> None:
    specs = [Spec(rootfs=f"/srv/{number}") for number in range(10 * family.MOST)]
    assert len(family._families) == family.MOST
    assert Spec(rootfs=specs[-1].rootfs).family is specs[-1].family
    assert Spec(**PLAIN, args=[str(number) for number in range(9)]).args[8] == "8"


def test_a_copy_has_a_family() -> None:
    spec = Spec(**PLAIN, env={"A": "1"})
    copied = pickle.loads(pickle.dumps(spec))
    assert copied == spec
    assert copied.family.fields == spec.family.fields


def test_what_a_caller_changes_later_changes_no_spec() -> None:
    env, drop = {"A": "1"}, ["ALL"]
    spec = made(**PLAIN, env=env, cap_drop=drop)
    env["A"], drop[0] = "2", "CHOWN"
    assert (spec.env, spec.cap_drop) == ({"A": "1"}, ("ALL",))
    assert made(**PLAIN, env=env, cap_drop=drop).cap_drop == ("CHOWN",)


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize(
    "change",
    [
        lambda mapping: mapping.__setitem__("A", "B"),
        lambda mapping: mapping.__delitem__("A"),
        lambda mapping: mapping.__ior__({"A": "B"}),
        lambda mapping: mapping.clear(),
        lambda mapping: mapping.pop("A", None),
        lambda mapping: mapping.popitem(),
        lambda mapping: mapping.setdefault("C", "D"),
        lambda mapping: mapping.update(A="B"),
    ],
)
def test_a_mapping_of_a_spec_is_read_only(name: str, change: Callable[[Any], object]) -> None:
    spec = Spec(**PLAIN, network="bridge", **{name: MAPPINGS[name]})  # type: ignore[arg-type]
    again = Spec(**PLAIN, network="bridge", **{name: MAPPINGS[name]})  # type: ignore[arg-type]
    for changed in (spec, Spec(**PLAIN), replace(spec, cwd="/tmp"), pickle.loads(pickle.dumps(spec))):
        with pytest.raises(TypeError, match=r"read-only \(make another spec, as by replace\(spec, env="):
            change(getattr(changed, name))
    assert getattr(spec, name) == getattr(again, name) == MAPPINGS[name]
    assert getattr(Spec(**PLAIN), name) == {}


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_mapping_of_a_spec_is_used_as_a_dict(name: str, copied: Callable[[Any], Any]) -> None:
    value, plain = getattr(Spec(**PLAIN, network="bridge", **MAPPINGS), name), MAPPINGS[name]  # type: ignore[arg-type]
    assert copied(value) == value == plain
    assert type(copied(value)) is type(value)
    assert repr(value) == repr(plain)
    assert json.dumps(value) == json.dumps(plain)
    assert {**value, "x": "y"} == value | {"x": "y"} == plain | {"x": "y"}
    free = value.copy()
    free["x"] = "y"
    assert free == plain | {"x": "y"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)


def test_the_mappings_of_a_spec_make_the_same_spec_and_family() -> None:
    spec = Spec(**PLAIN, network="bridge", **MAPPINGS)  # type: ignore[arg-type]
    given = {name: getattr(spec, name) for name in MAPPINGS}
    assert Spec(**PLAIN, network="bridge", **given) == replace(spec) == copy.deepcopy(spec) == spec
    assert Spec(**PLAIN, network="bridge", **given).family is replace(spec).family is spec.family
    assert dataclasses.replace(spec, env={**spec.env, "A": "3"}).env == {"A": "3", "B": "2"}
    assert {name: dataclasses.asdict(spec)[name] for name in MAPPINGS} == MAPPINGS


def test_strings_of_the_command_line_make_read_only_mappings() -> None:
    words: dict[str, Any] = {"env": ["A=1"], "sysctls": ["net.ipv4.ip_forward=1"], "add_hosts": ["db:10.88.0.7"]}
    spec = Spec(**PLAIN, network="bridge", **words)
    for name in words:
        with pytest.raises(TypeError, match="read-only"):
            getattr(spec, name)["A"] = "B"
