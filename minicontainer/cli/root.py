"""The group of all commands, which are imported when they are called."""

from __future__ import annotations

import signal
from typing import Any

import click

from minicontainer import __version__
from minicontainer.cli.clicked import made
from minicontainer.cli.groups import Group
from minicontainer.cli.plain import prepare
from minicontainer.cli.syntax import Syntax

COMMANDS = {  # name -> (module, its click command or Syntax, summary)
    "attach": ("minicontainer.cli.attach", "command", "Attach to the streams of a running container."),
    "compile": ("minicontainer.cli.compile", "SYNTAX", "Write a container as a file that starts it without Python."),
    "completion": ("minicontainer.cli.completion", "command", "Print the completion script for a shell."),
    "compare": ("minicontainer.cli.compare", "group", "Measure minicontainer and other runtimes on this host."),
    "create": ("minicontainer.cli.create", "SYNTAX", "Create a container without starting it."),
    "cp": ("minicontainer.cli.cp", "command", "Copy files between a container and the host."),
    "diff": ("minicontainer.cli.diff", "command", "Show the files that an ephemeral container has changed."),
    "doctor": ("minicontainer.cli.doctor", "command", "Check what this host supports, and find leftovers."),
    "events": ("minicontainer.cli.events", "command", "Show events as they happen."),
    "exec": ("minicontainer.cli.exec", "SYNTAX", "Run a command in a running container."),
    "export": ("minicontainer.cli.export", "command", "Write the file system of a container as a tar archive."),
    "help": ("minicontainer.cli.help", "command", "Show the help of a command."),
    "info": ("minicontainer.cli.about", "info", "Show the host and the number of containers."),
    "inspect": ("minicontainer.cli.inspect", "command", "Show the details of containers, as JSON."),
    "kernel": ("minicontainer.cli.kernel", "group", "Fetch, add, list, check and remove kernels for machines."),
    "kill": ("minicontainer.cli.lifecycle", "kill", "Send a signal to containers."),
    "kvm-boot": ("minicontainer.cli.kvmboot", "SYNTAX", "Boot a kernel in a virtual machine."),
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
    "run": ("minicontainer.cli.run", "SYNTAX", "Run a command in a new container."),
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


class LazyGroup(Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        import importlib

        module, attribute, _ = COMMANDS[name]
        command: click.Command | Syntax = getattr(importlib.import_module(module), attribute)
        return made(command) if isinstance(command, Syntax) else command

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
    prepare(ctx.invoked_subcommand, root)
