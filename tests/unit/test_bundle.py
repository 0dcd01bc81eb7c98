"""The modules of a command in one file: used where it is up to date, never needed, and written again."""

from __future__ import annotations

import compileall
import importlib.util
import marshal
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minicontainer
from minicontainer import bundle

# What ``kvm-boot --list`` prints first, and how many of our modules were not found by the ordinary finder.
CODE = """
import os, sys
exec(os.environ.get("BEFORE", ""))
from minicontainer.__main__ import main
leave = os._exit
def end(code):
    ours = [module for name, module in sys.modules.items() if name.startswith("minicontainer.")]
    print(sum(type(module.__loader__).__name__ == "Finder" for module in ours), file=sys.stderr, flush=True)
    leave(code)
os._exit = end
main()
"""
# For BEFORE: Ctrl-C at a call of a function
INTERRUPTED = """
import signal
import minicontainer.bundle as b
signal.signal(signal.SIGINT, signal.default_int_handler)
def wrap(function):
    def wrapped(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return function(*args)
    return wrapped
"""
# A bundle's data, from a directory and its entries
Change = Callable[[str, list[Any]], object]


class Copy:
    """A copy of the package, with __pycache__ of its own; or of another copy, with its __pycache__."""

    def __init__(self, place: Path, other: Copy | None = None) -> None:
        self.package = place / "minicontainer"
        if other is not None:
            shutil.copytree(other.package, self.package)
        else:
            source = Path(minicontainer.__file__).parent
            shutil.copytree(source, self.package, ignore=shutil.ignore_patterns("__pycache__"))
            (self.package / "__pycache__").mkdir()
        self.bundle = self.package / "__pycache__" / f"kvm-boot.{sys.implementation.cache_tag}.bundle"

    def run(self, **environment: str) -> tuple[str, int]:
        """(first line of the output, modules of the bundle that were used)."""
        paths = [str(self.package.parent), sysconfig.get_path("platlib"), *sys.path]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
        env = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE" or value == "x"}
        command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", CODE, "kvm-boot", "--list"]
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=True)
        return done.stdout.split()[0], int(done.stderr)

    def change(self) -> str:
        """Changes a source: another first word of the output, which is returned."""
        guests = self.package / "kvm" / "guests.py"
        guests.write_text(guests.read_text(encoding="utf-8").replace('"hello"', '"changed"'), encoding="utf-8")
        return "changed"

    def rewrite(self, change: Change) -> None:
        """Writes the bundle with other entries."""
        magic = importlib.util.MAGIC_NUMBER
        directory, entries = marshal.loads(self.bundle.read_bytes()[len(magic) :])
        self.bundle.write_bytes(magic + marshal.dumps(change(directory, entries)))  # type: ignore[arg-type]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_the_second_run_imports_from_it(copy: Copy) -> None:
    word, used = copy.run()
    assert used == 0
    assert copy.bundle.stat().st_mode & 0o777 == 0o644
    again, used = copy.run()
    assert again == word
    assert used > 30
    assert [path.name for path in copy.bundle.parent.iterdir() if path.suffix != ".pyc"] == [copy.bundle.name]


def test_a_source_that_has_changed_counts(copy: Copy) -> None:
    copy.run()
    word = copy.change()
    assert copy.run() == (word, 0)
    assert copy.run()[1] > 30
    (copy.package / "kvm" / "result.py").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        copy.run()


@pytest.mark.parametrize("size", [0, 3, 16, 1000, -1])
def test_a_truncated_one_is_replaced(copy: Copy, size: int) -> None:
    word, _ = copy.run()
    data = copy.bundle.read_bytes()
    copy.bundle.write_bytes(data[:size])
    assert copy.run() == (word, 0)
    assert copy.run()[1] > 30


def test_one_of_another_python_is_replaced(copy: Copy) -> None:
    word, _ = copy.run()
    copy.bundle.write_bytes(b"none" + copy.bundle.read_bytes()[4:])
    assert copy.run() == (word, 0)
    assert copy.run()[1] > 30


def test_none_is_written_where_python_writes_no_bytecode(copy: Copy) -> None:
    word, used = copy.run(PYTHONDONTWRITEBYTECODE="x")
    assert (used, copy.bundle.exists()) == (0, False)
    shutil.rmtree(copy.bundle.parent)
    copy.bundle.parent.write_text("no directory", encoding="utf-8")
    assert copy.run() == (word, 0)


def test_a_copied_tree_runs_its_own_code(copy: Copy, tmp_path: Path) -> None:
    word, _ = copy.run()
    other = Copy(tmp_path / "other", copy)
    assert other.bundle.exists()
    assert other.run() == (word, 0)
    assert other.run()[1] > 30
    last = Copy(tmp_path / "last", other)
    word = last.change()
    assert last.run() == (word, 0)
    assert last.run()[0] == word


def test_it_lies_where_python_keeps_bytecode(copy: Copy, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    word, _ = copy.run(PYTHONPYCACHEPREFIX=str(prefix))
    assert list(prefix.rglob("*.bundle")) == [prefix / str(copy.package)[1:] / copy.bundle.name]
    assert list(copy.bundle.parent.iterdir()) == []
    again, used = copy.run(PYTHONPYCACHEPREFIX=str(prefix))
    assert again == word
    assert used > 30


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.CHECKED_HASH, py_compile.PycInvalidationMode.UNCHECKED_HASH]
)
def test_none_is_written_beside_bytecode_with_hashes(copy: Copy, mode: py_compile.PycInvalidationMode) -> None:
    assert compileall.compile_dir(copy.package, quiet=1, invalidation_mode=mode)
    copy.run()
    assert copy.run()[1] == 0
    assert not copy.bundle.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda directory, entries: None,
        lambda directory, entries: entries,
        lambda directory, entries: (directory, 5),
        lambda directory, entries: (directory, [entries[0][:3]]),
        lambda directory, entries: (directory, [([], *entries[0][1:])]),
        lambda directory, entries: (directory, [({"a": 1}, *entries[0][1:])]),
        lambda directory, entries: (directory, [(name, 2**70, *rest) for name, _, *rest in entries]),
        lambda directory, entries: (directory, [(name, "\0", *rest) for name, _, *rest in entries]),
        lambda directory, entries: (directory, [(*entry[:2], (2**70, -(2**70)), entry[3]) for entry in entries]),
        lambda directory, entries: (directory, [(*entry[:3], None) for entry in entries]),
        lambda directory, entries: (directory, [(*entry[:3], b"code") for entry in entries]),
        lambda directory, entries: (directory, []),
    ],
)
def test_one_of_another_form_is_replaced(copy: Copy, change: Change) -> None:
    word, _ = copy.run()
    copy.rewrite(change)
    assert copy.run() == (word, 0)
    assert copy.run()[1] > 30


def test_garbage_is_no_bundle(tmp_path: Path) -> None:
    code = """
import importlib.util, random, resource, sys
from minicontainer import bundle
resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))  # marshal allocates whatever lengths it reads
bundle.path = lambda command: sys.argv[1]
before = list(sys.meta_path)
choose = random.Random(1)
for i in range(2000):
    kinds = b"([{<>suazZiIlfgyYNTF0rRc.)\\0\\1\\2\\xff" if i % 2 else range(256)
    with open(sys.argv[1], "wb") as f:
        f.write(importlib.util.MAGIC_NUMBER + bytes(choose.choices(kinds, k=choose.randrange(60))))
    assert not bundle.use("a")
assert sys.meta_path == before
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.bundle"], check=True)


@pytest.mark.parametrize(
    "patch",
    [
        "b._write = wrap(b._write)",
        "os.rename = wrap(os.rename)",
        "b._version = wrap(b._version)",
    ],
)
def test_an_interrupt_ends_neither_the_file_nor_the_command(copy: Copy, patch: str) -> None:
    word, _ = copy.run(BEFORE=INTERRUPTED + patch)
    assert copy.run()[0] == word
    assert [path.name for path in copy.bundle.parent.iterdir() if path.suffix != ".pyc"] == [copy.bundle.name]


def test_nothing_that_fails_while_it_is_written_is_told(copy: Copy) -> None:
    fail = "import minicontainer.bundle as b\ndef fail(*args): raise SyntaxError\nb._version = fail"
    word, _ = copy.run(BEFORE=fail)
    assert not copy.bundle.exists()
    assert copy.run() == (word, 0)


def test_the_handler_of_an_interrupt_is_the_same_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(bundle, "_entries", lambda: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    bundle.store("a")
    thread = threading.Thread(target=bundle.store, args=("a",))
    thread.start()
    thread.join()
    assert (seen, signal.getsignal(signal.SIGINT)) == ([signal.SIG_IGN], before)
