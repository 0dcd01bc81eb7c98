"""The door to C: its typed surface is the real one, and every constant that is used is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import minicontainer
from minicontainer import linux
from minicontainer.native import check, ffi, lib, syscall
from minicontainer.plan.step import const

ROOT = Path(__file__).parents[2]
PACKAGE = Path(minicontainer.__file__).parent
STUB = ast.parse((PACKAGE / "_native.pyi").read_text(encoding="utf-8"))
NATIVE_H = "".join(
    (ROOT / "csrc" / name).read_text(encoding="utf-8").split("CDEF BEGIN")[1].split("CDEF END")[0]
    for name in ("plan/native.h", "start/start.h", "kvm/vcpu.h")
)

STRINGS = {  # macros of csrc that are no numbers
    name: value.encode()
    for header in (ROOT / "csrc").glob("*/*.h")
    for part in header.read_text(encoding="utf-8").split("/* STRINGS BEGIN */")[1:]
    for name, value in re.findall(r'#define (\w+) "([^"]*)"', part.split("/* STRINGS END */")[0])
}


def members(name: str) -> dict[str, ast.stmt]:
    """What the stub says of a class."""
    (found,) = [node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name]
    stated: dict[str, ast.stmt] = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef):
            stated[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            stated[node.target.id] = node
    return stated


def test_the_stub_has_every_function_with_its_arguments() -> None:
    declared = {m[1]: m[2] for m in re.finditer(r"\b(mc_\w+)\(([^)]*)\);", NATIVE_H)}
    stated = {name: node for name, node in members("_Lib").items() if isinstance(node, ast.FunctionDef)}
    stated.pop("__getattr__")
    assert set(declared) == set(stated) == {name for name in dir(lib) if name.startswith("mc_")}
    for name, arguments in declared.items():
        wanted = [] if arguments == "void" else [re.split(r"\W+", a.split("[")[0])[-1] for a in arguments.split(",")]
        args = stated[name].args
        given = [a.arg for a in [*args.posonlyargs, *args.args]][1:]
        assert given == wanted, name
        assert len(ffi.typeof(getattr(lib, name)).args) == len(wanted), name


def test_the_stub_has_every_name_of_the_contract() -> None:
    stated = {name for name, node in members("_Lib").items() if isinstance(node, ast.AnnAssign)}
    assert stated == {name for name in dir(lib) if name.startswith("MC_")}
    strings = {name for name in stated if not isinstance(getattr(lib, name), int)}
    assert {name: ffi.string(getattr(lib, name)) for name in strings} == STRINGS


def test_what_the_stub_says_of_ffi_is_there() -> None:
    assert all(hasattr(ffi, name) for name in members("_FFI"))


def test_every_listed_constant_is_a_number() -> None:
    texts = [(ROOT / "csrc" / name).read_text(encoding="utf-8") for name in ("plan/constants.h", "kvm/kvm.h")]
    names = [name for text in texts for name in text.split("NAMES BEGIN */")[1].split("/* NAMES")[0].split()]
    assert sorted(set(names)) == sorted(names), "a name is listed twice"
    assert all(isinstance(getattr(lib, name), int) for name in names)


def uses() -> Iterator[tuple[str, str]]:
    """(file, name) of each ``lib.NAME``: the stub lets any name pass."""
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "examples").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lib":
                yield str(path), node.attr


def test_every_constant_that_is_used_is_listed() -> None:
    found = list(uses())
    assert len(found) > 100
    assert [(path, name) for path, name in found if not hasattr(lib, name)] == []


def test_a_failed_call_names_itself_and_its_object() -> None:
    with pytest.raises(OSError, match=r"^pidfd_open\(4194305\): (No such process|Invalid argument)$"):
        linux.pidfd_open(4194305)
    with pytest.raises(OSError, match=r"^call\('a b', NULL, O_CLOEXEC\|O_PATH, 5\): Bad address$"):
        check(-14, "call", "a b", None, const("O_CLOEXEC|O_PATH"), 5)
    assert check(3, "call") == 3


def test_the_kernel_writes_to_a_bytearray() -> None:
    buffer = bytearray(4096)
    length = syscall("readlinkat", lib.SYS_readlinkat, lib.AT_FDCWD, b"/proc/self/exe", buffer, len(buffer))
    assert Path(buffer[:length].decode()) == Path("/proc/self/exe").readlink()
