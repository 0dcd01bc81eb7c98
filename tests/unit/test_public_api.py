"""The public names: each is there, typed, documented, and loaded only when it is used."""

from __future__ import annotations

import importlib
import inspect
import subprocess
from pathlib import Path

import pytest
from pages import PAGES

import minicontainer as mc
from minicontainer.container.result import Result, Usage
from minicontainer.plan.timeline import Timeline

SUBPROCESS = ("PIPE", "STDOUT", "DEVNULL", "CalledProcessError", "TimeoutExpired")


@pytest.mark.parametrize("name", mc.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(mc, name)
    assert name in dir(mc)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


@pytest.mark.parametrize("package", ["kvm", "linux", "plan", "spec"])
def test_every_name_of_a_package_is_there(package: str) -> None:
    module = importlib.import_module(f"minicontainer.{package}")
    assert module.__all__
    assert not [name for name in module.__all__ if not hasattr(module, name)]


def test_the_list_is_that_of_the_lazy_table() -> None:
    """Written out for tools that read and do not run."""
    assert mc.__all__ == ["__version__", *sorted(mc._HOME)]
    for name, home in mc._HOME.items():
        assert getattr(importlib.import_module(home), name) is getattr(mc, name)


def test_star_import_gives_them_all() -> None:
    found: dict[str, object] = {}
    exec("from minicontainer import *", found)
    assert set(mc.__all__) <= set(found)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'minicontainer' has no attribute 'Contaner'"):
        mc.Contaner  # noqa: B018
    assert not hasattr(mc, "_no_such_thing")


def test_type_checkers_see_what_is_there_at_run_time() -> None:
    """The imports under TYPE_CHECKING name the same objects."""
    source = Path(mc.__file__).read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:")[2].partition("\ndef __getattr__")[0]
    seen: dict[str, object] = {}
    exec("\n".join(line.strip() for line in block.splitlines() if "import" in line), seen)
    for other in ("__builtins__", "Any"):
        seen.pop(other)
    assert set(seen) == set(mc._HOME)
    assert all(getattr(mc, name) is value for name, value in seen.items())


def test_constants_and_exceptions_are_subprocess_s() -> None:
    import subprocess as original

    for name in SUBPROCESS:
        assert getattr(mc, name) == getattr(original, name)


def test_names_that_run_and_popen_share_with_subprocess() -> None:
    run, popen = inspect.signature(mc.run).parameters, inspect.signature(mc.Popen).parameters
    assert {"args", "input", "capture_output", "timeout", "check"} <= set(run)
    assert {"args", "stdin", "stdout", "stderr", "text", "encoding", "errors"} <= set(popen)
    assert {"env", "cwd", "umask", "user"} <= set(mc.Spec.__dataclass_fields__)
    for name in ("communicate", "poll", "wait", "send_signal", "terminate", "kill", "__enter__", "__exit__"):
        original = inspect.signature(getattr(subprocess.Popen, name)).parameters
        ours = inspect.signature(getattr(mc.Popen, name)).parameters
        assert len(ours) == len(original)
        assert name in ("send_signal", "__exit__") or list(ours) == list(original)
    for name in ("pid", "pidfd", "cgroup", "usage", "freeze", "thaw", "timeline", "reason"):
        assert hasattr(mc.Popen, name)


def test_the_asyncio_form_has_the_shape_of_asyncio_s() -> None:
    from asyncio.subprocess import Process

    from minicontainer.container.asyncio import Container

    assert inspect.iscoroutinefunction(mc.create_container_exec)
    shared = [name for name in vars(Process) if not name.startswith("_")]
    assert [name for name in shared if not hasattr(Container, name)] == []


def test_usage_is_in_si_units_and_unknown_is_none() -> None:
    usage = Usage(walltime=1.5)
    assert usage.walltime == 1.5
    assert all(value is None for value in usage[1:])
    named = ("cputime", "cputime_user", "cputime_system", "memory_peak", "pids_peak", "io_read", "io_write")
    assert set(named) <= set(Usage._fields)


def test_a_result_is_as_a_completed_process() -> None:
    result = Result(["x"], 3, b"out", b"err", Usage(1.0), "exited", Timeline([], None, b"", 0))
    with pytest.raises(mc.CalledProcessError) as caught:
        result.check_returncode()
    error = caught.value
    assert (error.returncode, error.cmd, error.stdout, error.stderr) == (3, ["x"], b"out", b"err")
    assert Result(["x"], -9, b"", b"", Usage(1.0), "signal", Timeline([], None, b"", 0)).meta() == {
        "args": ["x"],
        "returncode": -9,
        "exit_status": None,
        "exit_signal": 9,
        "reason": "signal",
        "usage": Usage(1.0)._asdict(),
    }


def test_errors_are_of_one_family() -> None:
    for error in (mc.SpecError, mc.StepError, mc.ProgramError, mc.UnsupportedError):
        assert issubclass(error, mc.Error)
    assert issubclass(mc.StepError, OSError)
    assert issubclass(mc.ProgramError, OSError)
    assert issubclass(mc.SpecError, ValueError)


def test_the_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert mc.__version__ == version("minicontainer")


def test_the_examples_in_the_documentation_of_the_package_name_only_what_is_there() -> None:
    import re

    texts = [mc.__doc__ or "", *(page.read_text(encoding="utf-8") for page in PAGES)]
    used = {name for text in texts for name in re.findall(r"\bmc\.(\w+)", text)}
    assert used <= set(mc.__all__)
    assert {"run", "Popen", "Limits"} <= used
