"""The keywords as type checkers know them are those that there are, and a mistake in one is found."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import minicontainer as mc
from minicontainer.container.running import finish
from minicontainer.detached import creation
from minicontainer.spec import keywords

ROOT = Path(__file__).parents[2]


def of(function: object) -> set[str]:
    """The keywords that a function names itself."""
    assert callable(function)
    return {p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY}


def test_the_fields_are_those_of_spec() -> None:
    assert set(keywords.Fields.__annotations__) == {f.name for f in dataclasses.fields(mc.Spec)} - {"args"}


def test_the_others_are_those_of_the_functions() -> None:
    assert set(keywords.PopenKeywords.__annotations__) == of(mc.Popen) | set(keywords.Fields.__annotations__)
    for kind in ("Popen", "Run", "Exec", "ExecRun"):  # each form of one has the same
        names = [f"{form}{kind}Keywords" for form in ("", "Text", "Encoded", "Bytes")]
        forms = [set(getattr(keywords, name).__annotations__) for name in names]
        assert forms == [forms[0]] * 4
    assert set(keywords.RunAnyOptions.__annotations__) == of(finish) == of(mc.run)
    assert set(keywords.ExecOptions.__annotations__) == of(mc.Container.exec)
    assert set(keywords.DetachedOptions.__annotations__) == of(mc.Container.start) >= set(creation.CONFIG_OPTIONS)
    assert set(keywords.ByteStreams.__annotations__) == of(mc.Popen) - {"text", "encoding", "errors"}


SNIPPET = """
import minicontainer as mc

GOOD = mc.Limits(memory="64M")
mc.run(["x"], rootfs="r", limits=GOOD, mounts=["/a:/b", mc.Mount("/x", "/y")], ports=["80:80"], env=["A=B"])
mc.run(["x"], rootfs="r", capture_output=True, max_output=5)
mc.Popen(mc.Spec(["x"], "r"), stdin=mc.PIPE, stdout=open("x"), user=0).wait()
c = mc.Container.start(["x"], rootfs="r", limits={"memory": "1M"}, labels={"a": "b"})
c.run(["x"], capture_output=True, user="bob", timeout=5.0)
c.exec(["x"], stdout=mc.PIPE, tty=True)
m = mc.Machine()
m.load(b"x")
m.load("hello")
rip: int = m.run().registers["rip"]
regs = m.processors[0].vcpu.get_regs()
regs.rip = 5

reveal_type(mc.run(["x"], rootfs="r", capture_output=True).stdout)  # bytes
reveal_type(mc.run(["x"], rootfs="r", capture_output=True, text=False, input=b"x").stderr)  # bytes
reveal_type(mc.run(["x"], rootfs="r", capture_output=True, text=True, input="x").stdout)  # str
reveal_type(mc.run(["x"], rootfs="r", stdout=mc.PIPE, encoding="utf-8", check=True).stdout)  # str
reveal_type(mc.Popen(["x"], rootfs="r", stdout=mc.PIPE).stdout)  # IO[bytes] | None
reveal_type(mc.Popen(["x"], rootfs="r", stdin=mc.PIPE, text=True).stdin)  # IO[str] | None
reveal_type(mc.Popen(["x"], rootfs="r", stderr=mc.PIPE, encoding="ascii", errors="replace").stderr)  # IO[str] | None
reveal_type(mc.Popen(["x"], rootfs="r", text=True).communicate())  # tuple[str, str]
reveal_type(mc.Popen(["x"], rootfs="r", text=True).__enter__().communicate("x")[0])  # str
reveal_type(c.run(["x"], capture_output=True).stdout)  # bytes
reveal_type(c.run(["x"], capture_output=True, text=True, input="x").stdout)  # str
reveal_type(c.exec(["x"], stdout=mc.PIPE).stdout)  # IO[bytes] | None
reveal_type(c.exec(["x"], stdout=mc.PIPE, text=True).stdout)  # IO[str] | None
reveal_type(c.exec(["x"], stdout=mc.PIPE, encoding="utf-8").communicate()[1])  # str
vcpu = m.processors[0].vcpu
reveal_type(vcpu.get_fpu().mxcsr)  # int
reveal_type(vcpu.get_fpu().xmm[0][0])  # int
reveal_type(vcpu.get_xsave().region[0])  # int
reveal_type(vcpu.get_xcrs().xcrs[0].value)  # int
reveal_type(vcpu.get_lapic().regs[0])  # bytes
reveal_type(vcpu.get_vcpu_events().sipi_vector)  # int
reveal_type(vcpu.get_cpuid2().entries[0].eax)  # int
reveal_type(vcpu.get_sregs().interrupt_bitmap[0])  # int
reveal_type(vcpu.get_debugregs().db[0])  # int
reveal_type(vcpu.sync_regs().regs.rip)  # int

mc.run(["x"], rootfs="r", text=True).stdout.decode()  # BAD
mc.run(["x"], rootfss="r")  # BAD
mc.run(["x"], rootfs=5)  # BAD
mc.run(["x"], rootfs="r", timeuot=5)  # BAD
mc.Popen(["x"], rootfs="r", stdinn=mc.PIPE)  # BAD
mc.Popen(["x"], rootfs="r", stdin="file")  # BAD
mc.Popen(["x"], rootfs="r").stdout.read()  # BAD
mc.Container.start(["x"], rootfss="r")  # BAD
mc.Container.create(["x"], rootfss="r")  # BAD
mc.Container.start(["x"], rootfs="r", tty=1.5)  # BAD
c.exec(["x"], stdoutt=mc.PIPE)  # BAD
c.exec(["x"], rootfs="r")  # BAD
c.run(["x"], usr="bob")  # BAD
c.exec_detached(["x"], usr="bob")  # BAD
m.load(5)  # BAD
regs.rpi = 5  # BAD


async def main() -> None:
    p = await mc.create_container_exec("x", rootfs="r", stdout=mc.PIPE)
    reveal_type(await p.communicate())  # tuple[bytes, bytes]
    reveal_type(p.stdout)  # asyncio.streams.StreamReader | None
    await mc.create_container_exec("x", rootfss="r")  # BAD
    await mc.create_container_exec("x", rootfs="r", text=True)  # BAD
"""


def _plain(text: str) -> str:
    """A type as it is written, whichever mypy says it."""
    text = re.sub(r"Union\[(.*), None\]", r"\1 | None", re.sub(r"builtins\.|typing\.", "", text))
    return re.sub(r"^Tuple\[", "tuple[", text)


def test_mypy_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300)
    found = {int(line) for line in re.findall(r"snippet\.py:(\d+): error", done.stdout)}
    bad = {number for number, line in enumerate(SNIPPET.split("\n"), 1) if line.endswith("# BAD")}
    assert found == bad, done.stdout
    lines = SNIPPET.split("\n")
    told = {int(n): text for n, text in re.findall(r'snippet\.py:(\d+): note: Revealed type is "(.*)"', done.stdout)}
    wanted = {n: line.partition("  # ")[2] for n, line in enumerate(lines, 1) if "reveal_type" in line}
    assert {n: _plain(text) for n, text in told.items()} == wanted
    assert 'Unexpected keyword argument "rootfss"' in done.stdout
