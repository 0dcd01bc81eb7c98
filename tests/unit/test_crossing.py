"""What is public crosses to another process: every error, result, spec and exit, found by looking for them."""

from __future__ import annotations

import copy
import dataclasses
import errno
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, get_type_hints

import pytest

import minicontainer as mc
from minicontainer import kvm, plan
from minicontainer.container.result import Result, Usage
from minicontainer.errors import Error, ProgramError, SpecError, StepError
from minicontainer.native import ffi
from minicontainer.plan.timeline import Event, Timeline

COPIERS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {n}": lambda value, n=n: pickle.loads(pickle.dumps(value, n)) for n in range(2, 6)},  # type: ignore[misc]
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(params=COPIERS)
def crossed(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return COPIERS[request.param]


# ---- errors


def errors() -> Iterator[type[Error]]:
    """Every class of an error, of every module."""
    for module in pkgutil.walk_packages(mc.__path__, "minicontainer."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting: list[type[Error]] = [Error]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if "_made" not in vars(kind) and kind.__module__.startswith("minicontainer."):
            yield kind


def sample(kind: type[Any]) -> Error:
    """One of them, of whatever its constructor wants."""
    if not inspect.isfunction(kind.__init__):  # that of Exception
        plain: Error = kind("some text")
        return plain
    wanted = inspect.signature(kind).parameters.values()
    values = {"number": errno.ENOENT, "exit_code": 127, "value": "x\ny"}
    given: dict[str, Any] = {p.name: values.get(p.name, f"some {p.name}") for p in wanted if p.kind != p.VAR_POSITIONAL}
    positional = [given.pop(p.name) for p in wanted if p.kind == p.POSITIONAL_OR_KEYWORD]
    made: Error = kind(*(positional or ["some text"]), **given)
    return made


@pytest.mark.parametrize("kind", sorted(set(errors()), key=str))
def test_every_error(kind: type[Error], crossed: Callable[[Any], Any]) -> None:
    error = sample(kind)
    other = crossed(error)
    assert type(other) is type(error)
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert vars(other) == vars(error)
    for name in ("errno", "strerror", "filename", "exit_code"):
        assert getattr(other, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EPERM, errno.EACCES, errno.EEXIST, errno.EINVAL, errno.ECHILD])
def test_errors_of_the_system(number: int, crossed: Callable[[Any], Any]) -> None:
    """What Python makes of an errno, and the way to say it, stay."""
    for error in (StepError(number, "mount(a)", hint="h", where="w"), ProgramError(number, "/x", "reason", "hint")):
        other = crossed(error)
        assert type(other) is type(error)
        assert isinstance(other, type(OSError(number, "")) if isinstance(error, StepError) else ProgramError)
        assert (str(other), other.errno, vars(other)) == (str(error), number, vars(error))


def test_an_error_about_what_cannot_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(SpecError("args", lambda: 0, "is no text")))
    assert "function" in error.value
    assert str(error).startswith("args ")


# ---- results and specs

EVENTS = [Event("parent", "clone", "clone3(0)", 1, 5, 7), Event("child", "x", "mount(a)", 2, 3, -1)]
RESULT: Result[Any] = Result(["x"], 3, b"out", None, Usage(1.5, cputime=0.5), "exited", Timeline.of(EVENTS))
VALUES: dict[str, Any] = {
    "Result": RESULT,
    "Usage": RESULT.usage,
    "Timeline": RESULT.timeline,
    "Container": mc.Container("a" * 64),
    "Plan": plan.Plan(
        [
            plan.sethostname("box"),
            plan.mount("a", "b", "c", "MS_NOSUID|MS_NODEV"),
            plan.setgroups([1]),
            plan.umount2("/"),
        ]
    ),
    "Spec": mc.Spec(("x",), "/srv", env={"A": "b"}, limits=mc.Limits(memory="1M"), mounts=(mc.Mount("/x", "/y"),)),
    "Limits": mc.Limits(cpus=1.5),
    "Mount": mc.Mount("/x", type="tmpfs", options=frozenset({"exec"})),
    "Device": mc.Device("/dev/null", "/dev/null"),
    "DeviceRate": mc.DeviceRate("/dev/sda", 1),
    "Port": mc.Port(80),
    "Ulimit": mc.Ulimit("core", 0, 0),
}
HANDLES = {"Pool", "Popen", "Machine"}  # of what runs in this process, as subprocess.Popen


def test_no_class_is_forgotten() -> None:
    classes = {name for name in mc.__all__ if inspect.isclass(getattr(mc, name))}
    assert {name for name in classes if not issubclass(getattr(mc, name), BaseException)} == {*VALUES, *HANDLES} - {
        "Timeline"
    }


@pytest.mark.parametrize("name", VALUES)
def test_every_value(name: str, crossed: Callable[[Any], Any]) -> None:
    value = VALUES[name]
    other = crossed(value)
    assert type(other) is type(value)
    assert other == value
    if name not in ("Result", "Timeline", "Spec"):  # mutable, or of what is
        assert hash(other) == hash(value)


def test_a_spec_that_was_started_crosses() -> None:
    """What is compiled for it holds pointers of this process."""
    spec = mc.Spec(("x",), "/srv")
    object.__setattr__(spec, "_compiled", ffi.new("int *"))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert "_compiled" not in vars(copy.copy(spec))


def test_a_plan_is_encoded_as_it_was() -> None:
    one = VALUES["Plan"]
    assert one.buffer == pickle.loads(pickle.dumps(one)).buffer
    assert one.describe() == copy.deepcopy(one).describe()


def test_containers_are_equal_by_their_id() -> None:
    one, other = mc.Container("a" * 64), mc.Container("b" * 64)
    assert one == mc.Container("a" * 64) != other
    assert len({one, mc.Container("a" * 64), other}) == 2
    assert one != "a" * 64


# ---- virtual machines

STATE = bytes(ffi.sizeof("struct kvm_regs")), bytes(ffi.sizeof("struct kvm_sregs"))
TALLY = bytes(ffi.sizeof("struct mc_vcpu")), b""
KVM_RESULT = kvm.Result("halt", 0, "", 0, b"hi", 0, STATE, [TALLY], 0.5, 0.25)


def test_a_result_of_a_machine(crossed: Callable[[Any], Any]) -> None:
    assert crossed(KVM_RESULT) == KVM_RESULT
    KVM_RESULT.exits, KVM_RESULT.registers, KVM_RESULT.ports  # noqa: B018 - kept from then on
    assert crossed(KVM_RESULT).as_dict() == KVM_RESULT.as_dict()


EXITS = [getattr(kvm, name) for name in kvm.__all__ if name.endswith("Exit") and name != "Exit"]


@pytest.mark.parametrize("kind", EXITS)
def test_every_exit(kind: type[Any], crossed: Callable[[Any], Any]) -> None:
    """Where its data is the place of what is read, it crosses as bytes."""
    names = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(kind._fields)
    hints = get_type_hints(kind, localns={"Any": Any, "Callable": Callable, "Mapping": Mapping})  # of type checkers
    values = {int: 3, bool: False, tuple[int, ...]: (1, 2)}
    given = [ffi.buffer(ffi.new("char[3]")) if name == "data" else values[hints[name]] for name in names]
    other = crossed(kind(*given))
    assert type(other) is kind
    for name, value in zip(names, given, strict=True):
        assert getattr(other, name) == (b"\0\0\0" if name == "data" else value)


MORE = [kvm.ExitCount(2, 0.5), kvm.Outcome("halt"), kvm.Entry("flat", "real", 1, {}, []), kvm.Access(1, 2, True, 3, 0)]


@pytest.mark.parametrize("value", MORE)
def test_other_values_of_machines(value: object, crossed: Callable[[Any], Any]) -> None:
    assert crossed(value) == value


# ---- a pool of processes


RAISED = [
    (StepError(errno.EPERM, "mount(a)"), PermissionError, "mount(a): Operation not permitted"),
    (ProgramError(errno.ENOENT, "/x", "is missing"), FileNotFoundError, "program /x: is missing"),
    (SpecError("a", 1, "b"), ValueError, "a 1: b"),
]


def give(number: int) -> Any:
    return (VALUES, KVM_RESULT)[number]


def fail(number: int) -> Any:
    raise RAISED[number][0]


def test_a_pool_of_processes() -> None:
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(give, 0).result(120) == VALUES
        assert pool.submit(give, 1).result(120) == KVM_RESULT
        for number, (error, kind, said) in enumerate(RAISED):
            found = pool.submit(fail, number).exception(120)
            assert isinstance(found, kind)
            assert (type(found), str(found)) == (type(error), said)
