"""``minicontainer version`` and ``info``: versions, the host, and the number of containers.

Field names are docker's where docker has the field. There is no daemon, so ``Server`` is null.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from minicontainer import __version__
from minicontainer.cli.command import Command
from minicontainer.cli.formats import Row, Template, format_option


def show(data: dict[str, Any], format_: str, text: str) -> int:
    """Print ``data`` as text, as JSON, or by a template."""
    if format_ == "json":
        import json

        click.echo(json.dumps(data))
    elif format_ == "text":
        click.echo(text)
    else:
        click.echo(Template(format_).render(Row(data)))
    return 0


@click.command("version", cls=Command)
@format_option("text", short=True)
def version(format_: str) -> int:
    """Show the versions of minicontainer, Python and the kernel."""
    system = os.uname()
    client = {
        "Version": __version__,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": system.machine,
        "KernelVersion": system.release,
    }
    headings = ("minicontainer", "Python", "system", "architecture", "kernel")
    lines = [f"{f'{head}:':<15}{value}" for head, value in zip(headings, client.values(), strict=True)]
    return show({"Client": client, "Server": None}, format_, "\n".join(lines))


@click.command("info", cls=Command)
@format_option("text", short=True)
def info(format_: str) -> int:
    """Show the host, the state directory and the number of containers."""
    data = _info()
    return show(data, format_, "\n".join(f"{f'{name}:':<20}{_plain(value)}" for name, value in data.items()))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)


def _info() -> dict[str, Any]:
    from minicontainer import runtime
    from minicontainer.linux.cgroup import hierarchy
    from minicontainer.linux.userns import is_root

    system = os.uname()
    return {
        **_counts(),
        "ServerVersion": __version__,
        "Name": system.nodename,
        "OperatingSystem": _distribution(),
        "OSType": "linux",
        "Architecture": system.machine,
        "KernelVersion": system.release,
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "CgroupVersion": "2",
        "CgroupControllers": sorted(hierarchy().controllers),
        "RootDir": runtime.directory(),
        "Rootless": not is_root(),
    }


def _counts() -> dict[str, int]:
    """The number of containers by state."""
    from minicontainer.cli.ps import read_summary
    from minicontainer.container.registry import names

    states = [summary.state for summary in map(read_summary, names.ids()) if summary is not None]
    paused = sum(state.status == "paused" for state in states)
    running = sum(state.is_running for state in states) - paused
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
    }


def _distribution() -> str | None:
    """The distribution's name (os-release(5))."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None
