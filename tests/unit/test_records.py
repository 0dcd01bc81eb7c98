"""The light records behave as the originals of dataclasses and typing."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import typing
from typing import Any

import pytest

from minicontainer import records

if typing.TYPE_CHECKING:
    from dataclasses import dataclass, field
else:
    from minicontainer.records import dataclass, field


@dataclass(frozen=True)
class Light:
    first: int
    second: str = "two"
    third: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("first")

    @property
    def doubled(self) -> int:
        return 2 * self.first


@dataclasses.dataclass(frozen=True)
class Original:
    first: int
    second: str = "two"
    third: dict[str, int] = dataclasses.field(default_factory=dict)


class LightChild(Light):
    pass


class LightOwn(Light):
    fourth: int = 4

    def __init__(self, only: int) -> None:
        super().__init__(only, third={"own": only})


class OriginalChild(Original):
    pass


class OriginalOwn(Original):
    fourth: int = 4

    def __init__(self, only: int) -> None:
        super().__init__(only, third={"own": only})


class LightTuple(records.NamedTuple):
    first: int
    second: str = "two"

    @property
    def doubled(self) -> int:
        return 2 * self.first


class LightTupleChild(LightTuple):
    third: int = 3


class LightTupleOwn(LightTuple):
    def __new__(cls, only: int) -> LightTupleOwn:
        made: LightTupleOwn = super().__new__(cls, only)
        return made


class OriginalTuple(typing.NamedTuple):
    first: int
    second: str = "two"


class OriginalTupleChild(OriginalTuple):
    third: int = 3


class OriginalTupleOwn(OriginalTuple):
    def __new__(cls, only: int) -> OriginalTupleOwn:
        return super().__new__(cls, only)


PAIRS: list[tuple[Any, Any]] = [
    (Light, Original),
    (LightChild, OriginalChild),
    (LightOwn, OriginalOwn),
    (LightTuple, OriginalTuple),
    (LightTupleChild, OriginalTupleChild),
    (LightTupleOwn, OriginalTupleOwn),
]

CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "x"), {}),
    ((), {"first": 1}),
    ((1,), {"second": "x"}),
    ((), {"second": "x", "first": 3}),
]
WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, "x", {}, 4), {}),
    ((1,), {"first": 2}),
    ((1,), {"fourth": 2}),
]


def shown(value: object) -> str:
    return repr(value).replace("Light", "").replace("Original", "")


@pytest.mark.parametrize(("args", "keywords"), CALLS)
@pytest.mark.parametrize(("light", "original"), [(Light, Original), (LightTuple, OriginalTuple)])
def test_a_record_is_made_and_shown_as_the_original(light: Any, original: Any, args: Any, keywords: Any) -> None:
    ours, theirs = light(*args, **keywords), original(*args, **keywords)
    assert shown(ours) == shown(theirs)
    assert (ours.first, ours.second) == (theirs.first, theirs.second)
    assert ours == light(*args, **keywords)
    assert ours != light(5, "y")
    assert ours.doubled == 2 * theirs.first


@pytest.mark.parametrize(("args", "keywords"), WRONG)
@pytest.mark.parametrize("light", [Light, LightTuple])
def test_wrong_arguments_are_type_errors(light: Any, args: Any, keywords: Any) -> None:
    with pytest.raises(TypeError, match=light.__name__):
        light(*args, **keywords)


def test_a_record_is_checked_and_immutable() -> None:
    with pytest.raises(ValueError, match="first"):
        Light(-1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'first'"):
        Light(1).first = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'first'"):
        del Light(1).first
    with pytest.raises(TypeError, match="unhashable"):
        hash(Light(1))
    assert Light(1).third is not Light(1).third


def test_dataclasses_and_copy_take_a_record() -> None:
    light: Any = Light(1, third={"a": 1})
    assert dataclasses.is_dataclass(Light)
    assert [f.name for f in dataclasses.fields(light)] == [f.name for f in dataclasses.fields(Original)]
    assert dataclasses.asdict(light) == {"first": 1, "second": "two", "third": {"a": 1}}
    assert dataclasses.replace(light, second="x") == records.replace(light, second="x") == Light(1, "x", {"a": 1})
    assert inspect.signature(Light).parameters.keys() == inspect.signature(Original).parameters.keys()
    assert pickle.loads(pickle.dumps(light)) == light == copy.deepcopy(light)
    match light:
        case Light(first, second):
            assert (first, second) == (1, "two")


def test_a_tuple_is_replaced_copied_and_converted_as_the_original() -> None:
    light, original = LightTuple(1), OriginalTuple(1)
    assert light._fields == original._fields
    assert light._asdict() == original._asdict()
    assert light._replace(second="x") == original._replace(second="x") == (1, "x")
    assert LightTuple._make([1, "x"]) == (1, "x")
    assert pickle.loads(pickle.dumps(light)) == light
    assert isinstance(pickle.loads(pickle.dumps(light)), LightTuple)
    assert hash(light) == hash(original)


@pytest.mark.parametrize(("light", "original"), PAIRS)
def test_the_signature_is_that_of_the_original(light: Any, original: Any) -> None:
    assert str(inspect.signature(light)) == str(inspect.signature(original)).replace("Original", "Light")
    assert light(1).first == original(1).first == 1
    assert shown(light(1)) == shown(original(1))


@pytest.mark.parametrize(("light", "original"), [(LightChild, OriginalChild), (LightOwn, OriginalOwn)])
def test_dataclasses_takes_a_subclass_of_a_record(light: Any, original: Any) -> None:
    ours, theirs = light(1), original(1)
    assert [(f.name, f.type) for f in dataclasses.fields(light)] == [
        (f.name, f.type) for f in dataclasses.fields(original)
    ]
    assert dataclasses.fields(Light) == dataclasses.fields(light)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert dataclasses.astuple(ours) == dataclasses.astuple(theirs)
    assert pickle.loads(pickle.dumps(ours)) == ours == copy.copy(ours)
    assert ours != Light(*dataclasses.astuple(ours))
    if light is LightChild:
        assert shown(dataclasses.replace(ours, first=2)) == shown(dataclasses.replace(theirs, first=2))
        assert dataclasses.replace(ours, first=2) == records.replace(ours, first=2) == light(2)


def test_a_record_of_a_record_is_refused() -> None:
    with pytest.raises(TypeError, match="LightChild has a base record"):
        dataclass(frozen=True)(LightChild)


@pytest.mark.parametrize("value", [LightTuple(1), OriginalTuple(1)])
@pytest.mark.parametrize("name", ["first", "new", "_fields", "doubled"])
def test_a_tuple_refuses_assignment(value: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(value, name, 1)
    with pytest.raises(AttributeError):
        delattr(value, name)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("child", [LightTupleChild, OriginalTupleChild])
def test_a_subclass_of_a_tuple_has_its_fields_and_takes_more(child: Any) -> None:
    value = child(1, "x")
    assert (value._fields, value, value.third) == (("first", "second"), (1, "x"), 3)
    value.new = 1
    assert vars(value) == {"new": 1}
    with pytest.raises(AttributeError):
        value.first = 2
    with pytest.raises(TypeError):
        child(1, "x", 4)


def test_the_module_imports_none_of_the_originals() -> None:
    code = "import sys; old = set(sys.modules); exec(open(sys.argv[1]).read()); print(sorted(set(sys.modules) - old))"
    command = [sys.executable, "-S", "-c", code, records.__file__]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout == "['__future__', '_operator']\n"
