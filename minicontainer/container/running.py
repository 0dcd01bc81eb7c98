"""``run``: a container from its start to its end, as ``subprocess.run``."""

from __future__ import annotations

from minicontainer.container.process import Popen
from minicontainer.container.result import Result
from minicontainer.container.stdio.streams import PIPE
from minicontainer.spec import check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, AnyStr, overload

    from typing_extensions import Unpack

    from minicontainer.spec import Spec
    from minicontainer.spec.keywords import BytesRunKeywords, EncodedRunKeywords, RunKeywords, TextRunKeywords
else:
    from minicontainer.records import AnyStr, overload


class OfRun:
    """A Popen of ``run``. If it is garbage-collected while the container runs (an exception came before ``run`` held
    it), the container is killed."""

    buffers = False  # only ``communicate`` reads and writes its pipes

    def __del__(self) -> None:
        """Does nothing: the Child, which is not abandoned, kills the container."""


class _Run(OfRun, Popen[AnyStr]):
    """The Popen of ``run``."""


@overload
def run(args: Sequence[str] | Spec, **keywords: Unpack[TextRunKeywords]) -> Result[str]: ...
@overload
def run(args: Sequence[str] | Spec, **keywords: Unpack[EncodedRunKeywords]) -> Result[str]: ...
@overload
def run(args: Sequence[str] | Spec, **keywords: Unpack[BytesRunKeywords]) -> Result[bytes]: ...
@overload
def run(args: Sequence[str] | Spec, **keywords: Unpack[RunKeywords]) -> Result[Any]: ...
def run(
    args: Sequence[str] | Spec,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **keywords: Any,
) -> Result[Any]:
    """Runs a container to its end. Keywords are subprocess.run's, ``max_output`` (of Popen) and the fields of Spec.

    After ``timeout`` seconds the whole container is killed; TimeoutExpired has the output so far."""
    of_run = {"input": input, "capture_output": capture_output, "timeout": timeout, "check": check}
    return finish(lambda **fields: _Run(args, **fields), **of_run, **keywords)


def finish(
    start: Callable[..., Popen[Any]],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **keywords: Any,
) -> Result[Any]:
    """``subprocess.run`` for a Popen that ``start`` creates from the other keywords."""
    if timeout is not None:
        timeout = check_timeout(timeout)  # before anything is started
    if capture_output:
        if keywords.get("stdout") is not None or keywords.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output")
        keywords["stdout"] = keywords["stderr"] = PIPE
    elif keywords.get("max_output") is not None and PIPE not in (keywords.get("stdout"), keywords.get("stderr")):
        raise ValueError("max_output needs capture_output, or a pipe")
    if input is not None:
        if keywords.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used")
        keywords["stdin"] = PIPE
    process = start(**keywords)
    stdout = stderr = None
    try:
        if process.stdin or process.stdout or process.stderr:
            stdout, stderr = process.communicate(input, timeout)
        else:
            process.wait(timeout)
    except BaseException as e:
        _end(process, e)
        raise
    finally:
        process.close()
    result = process.result(stdout, stderr)
    if check:
        result.check_returncode()
    return result


def _end(process: Popen[Any], error: BaseException) -> None:
    """Ends the container after an error in ``run``. A TimeoutExpired gets the streams (bytes in text mode too, as
    subprocess's) and the usage."""
    import subprocess

    if isinstance(error, subprocess.TimeoutExpired):
        process.expire()
        if process.stdout or process.stderr:
            error.stdout, error.stderr = (data or None for data in process._communicate(None, None, text=False))
        process.wait()
        error.usage = process.usage()  # type: ignore[attr-defined]
        error.timeline = process.timeline  # type: ignore[attr-defined]
        error.lost = process.lost  # type: ignore[attr-defined]
        return
    process.kill()
    process.wait()
