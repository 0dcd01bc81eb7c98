"""The architecture, kept by a test: who may import whom, how long a function and a file may be, what is loaded when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from graphs import circles

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "minicontainer"

# A room is a module of the package, or a subpackage. Each may import those named here, all of which stand above it.
ROOMS: dict[str, set[str]] = {
    "bundle": set(),
    "light": set(),
    "records": set(),
    "cpio": set(),
    "errors": set(),
    "failpoint": set(),
    "usercache": set(),
    "_libnftables": set(),
    "_libseccomp": set(),
    "_libzstd": set(),
    "_native": set(),
    "spec": {"errors"},
    "native": {"_native", "errors"},
    "plan": {"errors", "native"},
    "runtime": {"errors"},
    "linux": {"_libnftables", "_libseccomp", "errors", "native", "plan", "spec"},
    "events": {"linux", "runtime"},
    "kvm": {"_libzstd", "errors", "native", "plan", "spec", "usercache"},
    "rootfs": {"errors", "linux", "native"},
    "volumes": {"errors", "events", "linux", "rootfs", "runtime", "spec"},
    "network": {"errors", "events", "failpoint", "linux", "native", "plan", "runtime", "spec"},
    "microvm": {"cpio", "errors", "kvm", "native", "runtime", "spec", "usercache"},
    "container": {
        "errors",
        "failpoint",
        "linux",
        "microvm",
        "native",
        "network",
        "plan",
        "runtime",
        "spec",
        "usercache",
        "volumes",
    },
    "detached": {
        "container",
        "errors",
        "events",
        "failpoint",
        "linux",
        "native",
        "network",
        "plan",
        "runtime",
        "spec",
        "volumes",
    },
    "compiled": {
        "container",
        "errors",
        "linux",
        "microvm",
        "native",
        "plan",
        "records",
        "runtime",
        "spec",
        "usercache",
    },
    "pool": {"container", "errors", "linux", "native", "plan", "spec"},
    "compare": {
        "compiled",
        "container",
        "cpio",
        "detached",
        "errors",
        "kvm",
        "linux",
        "microvm",
        "native",
        "network",
        "plan",
        "pool",
        "rootfs",
        "runtime",
        "spec",
    },
    "doctor": {"container", "detached", "errors", "kvm", "linux", "native", "network", "plan", "rootfs", "spec"},
    "cli": {
        "bundle",
        "compare",
        "compiled",
        "container",
        "detached",
        "doctor",
        "errors",
        "events",
        "kvm",
        "linux",
        "microvm",
        "native",
        "network",
        "plan",
        "rootfs",
        "runtime",
        "spec",
        "volumes",
    },
    "__main__": {"bundle", "cli"},
}
EVERYWHERE = {"light", "records"}  # rooms that any module may import
FUNCTION, FILE = 65, 400  # lines
DOORS = {
    "_native": "native.py",
    "_libseccomp": "linux/libseccomp.py",
    "_libnftables": "linux/nftables.py",
    "_libzstd": "kvm/boot/zstd.py",
}
PRINTERS = {"cli"}  # who may print or exit; programs that are run by themselves are named in PROGRAMS
PROGRAMS = {f"compare/{name}.py" for name in ("bootworker", "machinememory", "networkworker", "worker")}


@cache
def sources() -> dict[Path, ast.Module]:
    """All but what the build makes: _libseccomp.py, of csrc/libseccomp.py, and its like."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.name.startswith("_lib")]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def room(path: Path) -> str:
    """``container`` of container/start.py, ``plan`` of plan.py, and "" of the package's own __init__."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Absolute names of modules of this package, with their lines; from anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield str(node.module), node.lineno
            if node.module == "minicontainer":
                yield from ((f"minicontainer.{alias.name}", node.lineno) for alias in node.names)


def edges() -> Iterator[tuple[Path, str, str, int]]:
    """(file, its room, the room that it imports, line)."""
    for path, tree in sources().items():
        for name, line in imports(path, tree):
            parts = name.split(".")
            if parts[0] == "minicontainer" and len(parts) > 1 and parts[1] != room(path):
                yield path, room(path), parts[1], line


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {here} imports {there}"
        for path, here, there, line in edges()
        if here and there not in ROOMS.get(here, set()) | EVERYWHERE and not there.startswith("__")
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_is_known_and_the_table_has_no_circle() -> None:
    made_by_the_build = set(DOORS)
    assert {room(path) for path in sources()} - {""} == set(ROOMS) - made_by_the_build
    order = list(ROOMS)
    assert all(order.index(below) < order.index(name) for name, allowed in ROOMS.items() for below in allowed)


@cache
def modules() -> dict[str, Path]:
    """Each module of the package by its name."""
    names = (path.relative_to(ROOT).with_suffix("").parts for path in sources())
    return {".".join(parts).removesuffix(".__init__"): path for parts, path in zip(names, sources(), strict=True)}


def module_edges() -> dict[str, set[str]]:
    """Module -> the modules that it imports; also for types alone, and inside functions."""
    found = {}
    for name, path in modules().items():
        imported = set()
        for node in ast.walk(sources()[path]):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= names & set(modules()) or {str(node.module)}
        found[name] = imported & set(modules())
    return found


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert "minicontainer.plan.step" in module_edges()["minicontainer.plan.language"]
    assert "minicontainer.spec.network" in module_edges()["minicontainer.spec.container"]  # inside a function


def test_no_module_leads_back_to_itself() -> None:
    assert circles(module_edges()) == []


def test_one_door_to_the_extension_and_to_each_library() -> None:
    for made, door in DOORS.items():
        assert {str(path.relative_to(PACKAGE)) for path, _, there, _ in edges() if there == made} == {door}


def test_there_is_no_drawer_for_the_rest() -> None:
    vague = {"utils", "util", "common", "helpers", "misc", "tools", "base", "core"}
    assert not [p for p in [*PACKAGE.rglob("*.py"), *(ROOT / "csrc").rglob("*.*")] if p.stem in vague]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_functions_fit_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{f.lineno}: {f.name} has {length} lines"
        for path, tree in sources().items()
        for f in functions(tree)
        if (length := (f.end_lineno or 0) - f.lineno + 1) > FUNCTION
    ]
    assert not long, "\n".join(long)


def test_files_hold_one_idea() -> None:
    files = [*sources(), *(ROOT / "csrc").rglob("*.[chS]"), *(ROOT / "examples").glob("*.py")]
    lengths = {p.relative_to(ROOT): len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert not {str(path): lines for path, lines in lengths.items() if lines > FILE}


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by their names alone, in one process."""
    names = [path.name for path in Path(__file__).parents[1].glob("*/test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_every_public_function_says_what_it_does() -> None:
    silent = []
    for path, tree in sources().items():
        assert ast.get_docstring(tree), path
        for node in tree.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            form = any(ast.unparse(d) == "overload" for d in getattr(node, "decorator_list", ()))  # of what says it
            if public and not form and not ast.get_docstring(node):  # type: ignore[arg-type]
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")  # type: ignore[attr-defined]
    assert not silent, "\n".join(silent)


def test_only_the_command_line_prints_or_exits() -> None:
    loud = []
    for path, tree in sources().items():
        if room(path) in PRINTERS or str(path.relative_to(PACKAGE)) in PROGRAMS or path.name == "__main__.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("print", "sys.exit", "exit", "quit", "os._exit", "click.echo"):
                    loud.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not loud, "\n".join(loud)


# ---- what is loaded when

HEAVY = {
    "asyncio",
    "ctypes",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "prctl",
    "pyroute2",
    "subprocess",
    "tempfile",
}


def loaded(code: str) -> set[str]:
    """The modules that are there after ``code``."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import minicontainer",
        "import minicontainer as mc; mc.run, mc.Popen, mc.Spec, mc.Limits, mc.PIPE, mc.Plan",
        "import minicontainer.cli",
        "import minicontainer.linux",
    ],
)
def test_what_a_start_does_not_need_is_not_loaded(code: str) -> None:
    clicks = loaded("import click") if "cli" in code else set()  # before Python 3.11 its uuid takes subprocess
    assert not (loaded(code) - clicks) & HEAVY


def test_the_package_itself_loads_nothing_of_its_own() -> None:
    ours = {name for name in loaded("import minicontainer") if name.startswith("minicontainer")}
    assert ours == {"minicontainer"}


def test_a_spec_needs_no_extension() -> None:
    ours = {name for name in loaded("from minicontainer.spec import Spec") if name.startswith("minicontainer")}
    assert {name.split(".")[1] for name in ours - {"minicontainer"}} == {"errors", "records", "spec"}


def test_no_error_shows_what_it_was_made_of() -> None:
    """It says all in its line; what Python raised before is noise in a traceback."""
    found = []
    for path, tree in sources().items():
        for handler in ast.walk(tree):
            raised = [n for n in ast.walk(handler) if isinstance(n, ast.Raise) and n.exc is not None]
            if isinstance(handler, ast.ExceptHandler):
                found += [
                    f"{path.relative_to(ROOT)}:{n.lineno}"
                    for n in raised
                    if not (isinstance(n.cause, ast.Constant) and n.cause.value is None)
                ]
    assert found == []
