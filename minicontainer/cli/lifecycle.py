"""Commands that act on containers and print the name of each: stop, kill, start, restart, wait, pause, rm ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from minicontainer import spec as s
from minicontainer.cli.command import Command, OptionalValues, confirm
from minicontainer.cli.names import container_argument, containers_argument, each, find
from minicontainer.cli.options import yes_or_no
from minicontainer.errors import Error

time_option = click.option("-t", "--time", "seconds", help="Seconds from the stop signal to SIGKILL; -1: never.")


def _seconds(text: str | None) -> float | None:
    return None if text is None else s.decimal("time", text, -1, s.SECONDS_MAX, "seconds")


@click.command("stop", cls=Command)
@time_option
@containers_argument()
def stop(seconds: str | None, containers: Sequence[str]) -> int:
    """Stop containers: send the stop signal, and SIGKILL if they do not end in time."""
    limit = _seconds(seconds)
    return each(containers, lambda c: c.stop(limit))


@click.command("kill", cls=Command)
@click.option("-s", "--signal", "name", default="KILL", show_default=True, help="Signal to send, by name or number.")
@containers_argument()
def kill(name: str, containers: Sequence[str]) -> int:
    """Send a signal to process 1 of containers."""
    number = s.signal_number("signal", name)
    return each(containers, lambda c: c.kill(number))


@click.command("start", cls=Command)
@containers_argument()
def start(containers: Sequence[str]) -> int:
    """Start created or stopped containers, with the options that they were created with."""
    return each(containers, lambda c: c.start_again())


@click.command("restart", cls=Command)
@time_option
@containers_argument()
def restart(seconds: str | None, containers: Sequence[str]) -> int:
    """Stop containers and start them again."""
    limit = _seconds(seconds)
    return each(containers, lambda c: c.restart(limit))


@click.command("wait", cls=Command)
@containers_argument()
def wait(containers: Sequence[str]) -> int:
    """Wait until containers have ended, and print the exit code of each."""
    return each(containers, lambda c: c.wait(), shown=lambda name, code: code)


@click.command("pause", cls=Command)
@containers_argument()
def pause(containers: Sequence[str]) -> int:
    """Freeze all processes of containers until unpause."""
    return each(containers, lambda c: c.pause())


@click.command("unpause", cls=Command)
@containers_argument()
def unpause(containers: Sequence[str]) -> int:
    """Resume paused containers."""
    return each(containers, lambda c: c.unpause())


@click.command("rm", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Kill running containers first; a missing container is no error.")
@containers_argument()
def rm(force: bool, containers: Sequence[str]) -> int:
    """Remove stopped containers and their logs."""
    from minicontainer.detached.store import NotFoundError

    def remove(name: str) -> int:
        try:
            find(name)
        except NotFoundError:
            if force:
                return 0
        return each([name], lambda c: c.remove(force=force))

    return max(map(remove, containers))


@click.command("rename", cls=Command)
@container_argument()
@click.argument("name")
def rename(container: str, name: str) -> int:
    """Rename CONTAINER to NAME."""
    find(container).rename(name)
    return 0


@click.command("prune", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
def prune(force: bool) -> int:
    """Remove all stopped containers."""
    from minicontainer.detached.container import CorruptError, containers

    def is_over(container: Any) -> bool:
        try:
            return container.status in ("exited", "dead")
        except CorruptError:
            return True
        except Error:
            return False

    ended = [c for c in containers() if is_over(c)]
    if ended and not force:
        many = "1 container that has" if len(ended) == 1 else f"{len(ended)} containers that have"
        confirm(f"Remove {many} ended?")
    return each([c.id for c in ended], lambda c: c.remove())


@click.command("update", cls=OptionalValues, context_settings={"max_content_width": 100})
@click.option("-m", "--memory", help="Memory limit, in bytes or with k, m, g.")
@click.option("--memory-swap", help="Limit of memory and swap together; -1: unlimited.")
@click.option("--memory-reservation", help="Memory protected from reclaim (memory.low).")
@click.option("--cpus", help="Number of CPUs, such as 0.5.")
@click.option("--cpu-shares", help="CPU weight, 2 to 262144.")
@click.option("--cpuset-cpus", help="CPUs to run on, such as 0-2,5.")
@click.option("--pids-limit", "pids", help="Maximum number of processes; -1: unlimited.")
@click.option("--blkio-weight", help="Block I/O weight, 10 to 1000.")
@click.option(
    "--oom-group/--no-oom-group",
    default=None,
    help="When out of memory, kill the whole container [default with a memory limit] or one process.",
)
@click.option("--oom-group-to", hidden=True)
@click.option("--restart", help="Restart policy: no, on-failure[:N], always or unless-stopped.")
@containers_argument()
@click.pass_context
def update(ctx: click.Context, /, containers: Sequence[str], restart: str | None, **limits: Any) -> int:
    """Change the limits of containers, running or stopped."""
    limits["oom_group"] = yes_or_no("oom-group", limits["oom_group"], limits.pop("oom_group_to"))
    changes = {name: value for name, value in limits.items() if value is not None}
    if not changes and restart is None:
        raise click.UsageError("nothing to change: give a limit, or --restart.", ctx)
    _check(changes, restart)
    return each(containers, lambda c: c.update(restart=restart, **changes))


def _check(limits: dict[str, Any], restart: str | None) -> None:
    """SpecError for an invalid value, before any container is changed."""
    from minicontainer.detached.options import check_restart

    for name, value in limits.items():
        s.Limits(**{"memory": 4096, name: value} if name == "memory_swap" else {name: value})
    if restart is not None:
        check_restart(restart, s.Spec(rootfs="/"))
