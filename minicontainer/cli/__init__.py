"""The command line: what it reports. Commands are imported when they are called; only this package prints or exits.

Exit codes: the program's own; 128+n when signal n ended it; 124 ``--timeout``; 125 an error here; 126 the program
cannot be invoked; 127 it was not found. An error is one line on stderr.
"""

from __future__ import annotations

import _signal  # signal imports enum
import sys

from minicontainer.errors import Error, as_step_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONSOLE = 12  # lines
INTERRUPTED, CLOSED_PIPE = 128 + int(_signal.SIGINT), 128 + int(_signal.SIGPIPE)  # exit codes


def report(error: BaseException) -> int:
    """Print an error as one line; return its exit code. An unexpected exception (a bug) is raised again."""
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE  # the reader closed the pipe
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if "click" in sys.modules and (code := _report_click(error)) is not None:
        return code
    if isinstance(error, OSError):
        error = as_step_error(error, type(error).__name__)
    if isinstance(error, Error):
        code = print_error(str(error), error.exit_code)
        _print_console(getattr(error, "console", ""))
        return code
    if isinstance(error, OSError):
        return print_error(f"{type(error).__name__}: {error}", 125)
    raise error


def _print_console(text: str) -> None:
    """Print the last lines of what a guest's kernel has printed, which nobody but the guest is responsible for."""
    for line in text.splitlines()[-CONSOLE:]:
        print("  " + "".join(c if c.isprintable() else "?" for c in line), file=sys.stderr)


def _report_click(error: BaseException) -> int | None:
    """``report`` for an exception of click; None for any other."""
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2; a group without a command shows its help
        click.echo(error.ctx.get_help())  # type: ignore[attr-defined]
        return 0
    if isinstance(error, click.ClickException):
        context: Any = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return print_error(f"{error.format_message()}{hint}", 125)
    return None


def warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line."""
    print_error(f"warning: {message}", 0)


def print_error(message: str, code: int) -> int:
    """Print a message as one line, if anybody reads it; return ``code``."""
    line = " ".join(message.split("\n"))
    try:
        print(f"minicontainer: {line}", file=sys.stderr)
    except (OSError, ValueError):
        pass  # stderr is closed
    return code
