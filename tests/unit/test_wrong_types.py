"""Whatever a spec, a part of one, or a step is given: it is taken, or a mistake that names the field."""

from __future__ import annotations

import inspect
import signal
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest

import minicontainer as mc
from minicontainer import plan
from minicontainer.errors import SpecError
from minicontainer.plan import netlink
from minicontainer.spec import Device, DeviceRate, Limits, Mount, Port, Spec, Ulimit, make


class Strange:
    """No type that anything takes."""

    def __repr__(self) -> str:
        return "strange"


WRONG: list[Any] = [
    None, 0, -1, 10**30, 1.5, float("nan"), True, "", "x", "a:b:c:d", "\0", "\ud800", b"x", [], [1], ["x"],
    [None], [[]], (), ("x", 2), {}, {"a": 1}, {1: "a"}, {"x": None}, {1, 2}, frozenset("x"), Strange(),
    [Strange()], {"x": Strange()}, Spec, print,
]  # fmt: skip

WORDS = {  # what the command line calls a field
    "cwd": "workdir", "mounts": "volume", "devices": "device", "ulimits": "ulimit", "sysctls": "sysctl",
    "ports": "publish", "add_hosts": "add-host",
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Spec)])
def test_every_field_of_a_spec(name: str) -> None:
    given = {"args": ["x"], "rootfs": "/srv"}
    for wrong in WRONG:
        try:
            made = Spec(**{**given, name: wrong})
        except SpecError as e:
            said = str(e)
            assert "\n" not in said
            words = {name, name.replace("_", "-"), WORDS.get(name, name)}
            assert any(word in said for word in words), (name, wrong, said)
        else:
            assert make(made, hostname=None).args == made.args
            hash((made.rootfs, made.mounts, made.devices, made.ulimits, made.ports, made.limits, made.cap_add))


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (Limits, {}),
        (Mount, {"target": "/x", "source": "/y"}),
        (Mount, {"target": "/x", "type": "tmpfs"}),
        (Device, {"source": "/dev/x", "target": "/dev/x"}),
        (DeviceRate, {"path": "/dev/x", "rate": 1}),
        (Port, {"number": 80}),
        (Ulimit, {"name": "core", "soft": 0, "hard": 0}),
    ],
)
def test_every_field_of_a_part(kind: type[Any], good: dict[str, Any]) -> None:
    for field in fields(kind):
        for wrong in WRONG:
            with suppress(SpecError):
                hash(kind(**{**good, field.name: wrong}))


def test_the_strings_of_the_command_line() -> None:
    one = Spec(
        ["x"],
        "/srv",
        limits={"memory": "64M", "device_read_bps": ["/dev/sda:1m"]},  # type: ignore[arg-type]
        mounts=["/a:/b:ro", Mount("/t", type="tmpfs")],  # type: ignore[arg-type]
        devices=["/dev/null:r"],  # type: ignore[arg-type]
        ulimits=["nofile=5", "core=0:1"],  # type: ignore[arg-type]
        env=["A=B", "C=d=e"],  # type: ignore[arg-type]
        sysctls=["net.ipv4.ip_forward=1"],  # type: ignore[arg-type]
        ports=["8080:80", "127.0.0.1::53/udp", 443, "90-91:90-91"],  # type: ignore[arg-type]
        add_hosts=["a:10.0.0.1"],  # type: ignore[arg-type]
        cap_add=["KILL"],  # type: ignore[arg-type]
        stop_signal=signal.SIGINT,  # type: ignore[arg-type]
    )
    assert one.limits == Limits(memory=64 << 20, device_read_bps=(DeviceRate("/dev/sda", 1 << 20),))
    assert one.mounts == (Mount("/b", "/a", readonly=True), Mount("/t", type="tmpfs"))
    assert one.devices == (Device("/dev/null", "/dev/null", "r"),)
    assert one.ulimits == (Ulimit("nofile", 5, 5), Ulimit("core", 0, 1))
    assert one.env == {"A": "B", "C": "d=e"}
    assert one.sysctls == {"net.ipv4.ip_forward": "1"}
    assert one.ports == (Port(80, 8080), Port(53, 0, "udp", "127.0.0.1"), Port(443), Port(90, 90), Port(91, 91))
    assert one.add_hosts == {"a": "10.0.0.1"}
    assert (one.cap_add, one.stop_signal) == (("KILL",), "2")


def test_no_limits_are_none() -> None:
    assert not Spec(["x"], "/srv", limits={}).limits  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="limits memroy: is no limit"):
        Spec(["x"], "/srv", limits={"memroy": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 5, b"x", "ls -l", {}, object()])
def test_args(wrong: Any) -> None:
    for call in (make, mc.Popen):
        with pytest.raises(SpecError, match=r"^args.*: must be a sequence, as a list, not"):
            call(wrong, rootfs="/srv")


# ---- steps

STEPS: dict[str, Any] = {  # every function that makes one
    name: made
    for module in (plan, netlink)
    for name, made in vars(module).items()
    if inspect.isfunction(made) and made.__annotations__.get("return") == "Step" and not name.startswith("_")
}
GOOD: dict[str, Any] = {  # of each annotation, something that is right
    "str": "O_RDONLY", "str | None": "x", "int": 1, "bytes": bytes(8), "bool": True, "Slot": plan.Slot("x"),
    "Slot | None": None, "Slot | int": 1, "Slot | Const": plan.FDCWD, "Sequence[int]": [1], "Sequence[str]": ["x"],
    "Sequence[tuple[int, int] | None]": [(1, 2), None], "Step": plan.close(plan.Slot("x")), "object": 1,
}  # fmt: skip
WRONG_FOR: dict[str, list[Any]] = {
    "str": [None, 0, b"x", ["x"], Strange()], "int": [None, 1.5, "1", b"1", [1], Strange()],
    "bytes": [None, "x", 1, [1], bytearray(8)], "bool": [None, "x", 5, []], "None": ["x", 5, []],
    "Slot": [None, "x", 1, [], Strange()], "Sequence[int]": [None, 5, "x", b"x", ["1"], [None], {1}, {"a": 1}],
    "Sequence[str]": ["str", b"bytes", None, 5, [1], ["x", b"y"], {"a": 1}, Strange()],
    "Sequence[tuple[int, int] | None]": [None, 5, "x", [1], [(1,)], [(1, "2")], [(1, 2, 3)], [[1, 2]]],
    "Step": [None, "close", (), Strange()], "Const": [], "object": [],
}  # fmt: skip
ARGUMENTS = [
    (name, of.name) for name, make in STEPS.items() for of in inspect.signature(make).parameters.values()
    if of.annotation != "object"
]  # fmt: skip


def given_to(name: str, argument: str = "", value: Any = None) -> plan.Step:
    """A step of good arguments, but for one."""
    args, words = [], {}
    for of in inspect.signature(STEPS[name]).parameters.values():
        is_name = (name, of.name) == ("call", "name")
        one = value if of.name == argument else "close" if is_name else GOOD[of.annotation]
        if of.kind is of.KEYWORD_ONLY:
            words[of.name] = one
        else:
            args.append(one)
    made: plan.Step = STEPS[name](*args, **words)
    return made


def test_steps_of_good_arguments() -> None:
    assert set(STEPS) > {"mount", "execve", "netlink", "prlimit64_all"}
    for name in STEPS:
        assert given_to(name).describe()


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_argument_of_a_step(name: str, argument: str) -> None:
    annotation = inspect.signature(STEPS[name]).parameters[argument].annotation
    kinds = [annotation] if annotation in WRONG_FOR else annotation.split(" | ")
    tried = 0
    for value in WRONG_FOR[kinds[0]]:
        if (value is None and "None" in kinds) or (type(value) is int and "int" in kinds):
            continue
        tried += 1
        with pytest.raises(TypeError, match=rf"^{name}: {argument} must be "):
            given_to(name, argument, value)
    assert tried >= 2


@pytest.mark.parametrize("given", [[-1], [2**40]])
def test_numbers_that_a_step_cannot_hold(given: list[int]) -> None:
    with pytest.raises(SpecError, match=r"^step setgroups\(\[-?[0-9]+\]\): a number is out of range"):
        plan.setgroups(given)


def test_constants_by_name() -> None:
    for wrong in (None, 1.5, b"MS_NOSUID"):
        with pytest.raises(TypeError, match=r"^constants must be a string of names, not "):
            plan.const(wrong)


@pytest.mark.parametrize("wrong", [None, 5, "a=b", ["a=b"], {1: "a"}, {"a": 1}, {"a=b": "c"}, object()])
@pytest.mark.parametrize("field", ["labels", "log", "restart", "timeout"])
def test_options_of_a_detached_container(field: str, wrong: Any) -> None:
    if wrong is None and field in ("labels", "log"):
        return  # as where it is not given
    if (field, wrong) == ("timeout", 5):
        return
    with pytest.raises(SpecError):
        mc.Container.start(["x"], rootfs="/srv", **{field: wrong})


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("wrong", ["file", b"x", 1.5, [], object()])
def test_streams(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}: must be None, PIPE, DEVNULL, a descriptor or a file, not "):
        mc.Popen(["x"], rootfs="/srv", **{name: wrong})
