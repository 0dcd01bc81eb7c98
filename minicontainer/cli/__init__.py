"""The command line. Commands are imported when they are called; only this package prints or exits.

Exit codes: the program's own; 128+n when signal n ended it; 124 ``--timeout``; 125 an error here; 126 the program
cannot be invoked; 127 it was not found. An error is one line on stderr.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Any

import click

from minicontainer import __version__, runtime
from minicontainer.cli.groups import Group
from minicontainer.cli.outputs import name_stdout
from minicontainer.errors import Error, SpecError, as_step_error

COMMANDS = {  # name -> (module, its click command, summary)
    "attach": ("minicontainer.cli.attach", "command", "Attach to the streams of a running container."),
    "completion": ("minicontainer.cli.completion", "command", "Print the completion script for a shell."),
    "compare": ("minicontainer.cli.compare", "group", "Measure minicontainer and other runtimes on this host."),
    "create": ("minicontainer.cli.create", "command", "Create a container without starting it."),
    "cp": ("minicontainer.cli.cp", "command", "Copy files between a container and the host."),
    "diff": ("minicontainer.cli.diff", "command", "Show the files that an ephemeral container has changed."),
    "doctor": ("minicontainer.cli.doctor", "command", "Check what this host supports, and find leftovers."),
    "events": ("minicontainer.cli.events", "command", "Show events as they happen."),
    "exec": ("minicontainer.cli.exec", "command", "Run a command in a running container."),
    "export": ("minicontainer.cli.export", "command", "Write the file system of a container as a tar archive."),
    "help": ("minicontainer.cli.help", "command", "Show the help of a command."),
    "info": ("minicontainer.cli.about", "info", "Show the host and the number of containers."),
    "inspect": ("minicontainer.cli.inspect", "command", "Show the details of containers, as JSON."),
    "kill": ("minicontainer.cli.lifecycle", "kill", "Send a signal to containers."),
    "kvm-boot": ("minicontainer.cli.kvmboot", "command", "Boot a kernel in a virtual machine."),
    "logs": ("minicontainer.cli.logs", "command", "Show the output of a container."),
    "manual": ("minicontainer.cli.manual", "command", "Print the man page."),
    "network": ("minicontainer.cli.network", "group", "Create, list and remove networks."),
    "pause": ("minicontainer.cli.lifecycle", "pause", "Freeze all processes of containers."),
    "port": ("minicontainer.cli.port", "command", "Show the ports of a container."),
    "prune": ("minicontainer.cli.lifecycle", "prune", "Remove all stopped containers."),
    "ps": ("minicontainer.cli.ps", "command", "List containers."),
    "rename": ("minicontainer.cli.lifecycle", "rename", "Rename a container."),
    "restart": ("minicontainer.cli.lifecycle", "restart", "Stop containers and start them again."),
    "rm": ("minicontainer.cli.lifecycle", "rm", "Remove stopped containers."),
    "rootfs": ("minicontainer.cli.rootfs", "group", "Create root file systems."),
    "run": ("minicontainer.cli.run", "command", "Run a command in a new container."),
    "start": ("minicontainer.cli.lifecycle", "start", "Start created or stopped containers."),
    "stats": ("minicontainer.cli.stats", "stats", "Show the resource usage of containers, live."),
    "stop": ("minicontainer.cli.lifecycle", "stop", "Stop containers."),
    "top": ("minicontainer.cli.stats", "top", "Show the processes of a container, or all containers, live."),
    "unpause": ("minicontainer.cli.lifecycle", "unpause", "Resume paused containers."),
    "update": ("minicontainer.cli.lifecycle", "update", "Change the limits of containers."),
    "version": ("minicontainer.cli.about", "version", "Show the versions of minicontainer, Python and the kernel."),
    "volume": ("minicontainer.cli.volume", "group", "Create, list and remove volumes."),
    "wait": ("minicontainer.cli.lifecycle", "wait", "Wait until containers have ended."),
}


NO_CONTAINERS = {"completion", "compare", "doctor", "help", "kvm-boot", "manual", "rootfs", "version"}


class LazyGroup(Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        import importlib

        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """A closed pipe ends the command as SIGPIPE does; click would exit with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(128 + signal.SIGPIPE) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--root",
    metavar="DIR",
    help="State directory. [default: $MINICONTAINER_ROOT, else the user's; see minicontainer manual]",
)
@click.pass_context
def cli(ctx: click.Context, root: str | None) -> None:
    """Containers from Linux primitives, and virtual machines from /dev/kvm."""
    if root is not None:
        if not root:
            raise SpecError("root", root, "is empty")
        os.environ[runtime.VARIABLE] = os.path.abspath(root)
    if ctx.invoked_subcommand not in NO_CONTAINERS:
        _end_dead()


def _end_dead() -> None:
    """End the containers whose monitors were killed, before every command."""
    from minicontainer.container.registry import names

    try:
        unmonitored = names.without_owner()
    except (Error, OSError):
        return  # the command itself reports the error of the state directory
    if unmonitored:
        from minicontainer.detached.container import end_dead

        end_dead(unmonitored)


def main() -> None:
    """The entry point: turns any failure into one line on stderr and a documented exit code."""
    _open_streams()
    name_stdout()
    warnings.showwarning = _warn
    try:
        code = cli.main(prog_name="minicontainer", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as e:
        code = report(e)
    _flush()
    os._exit(code if isinstance(code, int) else 0)  # finalization of the interpreter takes a tenth of a short run


def _open_streams() -> None:
    """Open /dev/null for a closed stdin, stdout or stderr, so that no other descriptor gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)  # gets ``number``, the lowest that is free
            setattr(sys, name, open(fd, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - for ever


def report(error: BaseException) -> int:
    """Print an error as one line; return its exit code. An unexpected exception (a bug) is raised again."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE  # the reader closed the pipe
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return 130
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2; a group without a command shows its help
        click.echo(error.ctx.get_help())  # type: ignore[attr-defined]
        return 0
    if isinstance(error, click.ClickException):
        return _print_error(error.format_message(), 125, hint=_help_hint(error))
    if isinstance(error, OSError):
        error = as_step_error(error, type(error).__name__)
    if isinstance(error, Error):
        return _print_error(str(error), error.exit_code)
    if isinstance(error, OSError):
        return _print_error(f"{type(error).__name__}: {error}", 125)
    raise error


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line."""
    _print_error(f"warning: {message}", 0)


def _help_hint(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _print_error(message: str, code: int, hint: str = "") -> int:
    line = " ".join(message.split("\n"))
    try:
        print(f"minicontainer: {line}{hint}", file=sys.stderr)
    except (OSError, ValueError):
        pass  # stderr is closed
    return code


def _flush() -> None:
    """Flush the streams; a failed write to stdout has been reported already."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
