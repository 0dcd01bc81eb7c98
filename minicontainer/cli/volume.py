"""``minicontainer volume``: named volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from minicontainer.cli import filters as f
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.groups import Group
from minicontainer.cli.moments import shown
from minicontainer.cli.tables import ago, table
from minicontainer.errors import Error

HEAD = ("VOLUME NAME", "CREATED", "CONTAINERS")
HEADS = {"Name": "VOLUME NAME", "Links": "CONTAINERS"}


class VolumeName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A volume's name, completed by the shell."""

    name = "volume"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from minicontainer import volumes

        return [CompletionItem(volume.name) for volume in volumes.volumes() if volume.name.startswith(incomplete)]


names_argument = click.argument("names", type=VolumeName(), nargs=-1, required=True, metavar="VOLUME...")


@click.group("volume", cls=Group)
def group() -> None:
    """Make, list and remove volumes; run -v VOLUME:PATH mounts one, and makes it where it is missing.

    A volume is a directory that outlives containers, and the shutdown of the host. What ROOTFS holds at PATH is not
    copied into it.
    """


@group.command("create")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label.")
@click.argument("name", required=False)
def create(labels: Sequence[str], name: str | None) -> int:
    """Make the volume NAME (one of 64 digits, if there is none); one that is there stays as it is."""
    from minicontainer import volumes
    from minicontainer.cli.options import pairs

    click.echo(volumes.create(name, labels=pairs("label", labels)).name)
    return 0


def _dangling(volume: Any) -> str:
    """Whether no container has it."""
    from minicontainer import volumes

    return "false" if volumes.users(volume.name) else "true"


FILTERS: dict[str, Callable[[str], f.Test]] = {
    "name": f.matches("name", lambda volume: volume.name),
    "label": f.label(lambda volume: volume.labels),
    "dangling": f.one_of("dangling", ("true", "false"), _dangling),
}


@group.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"Of {', '.join(FILTERS)}.")
@format_option()
def ls(quiet: bool, filters: Sequence[str], format_: str) -> int:
    """List the volumes."""
    from minicontainer import volumes

    chosen = f.Filters(filters, FILTERS)
    found = [volume for volume in volumes.volumes() if chosen.fit(volume)]
    if quiet:
        click.echo("".join(f"{volume.name}\n" for volume in found), nl=False)
        return 0
    rows = [Row(_data(volume), {"Labels": _labels(volume)}) for volume in found]
    cells = [
        [row.data["Name"], ago(v.created or None), str(row.data["Links"])] for row, v in zip(rows, found, strict=True)
    ]
    click.echo(rows_text(rows, format_, HEADS, lambda: table(HEAD, cells)), nl=False)
    return 0


def _labels(volume: Any) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(volume.labels.items()))


def _data(volume: Any) -> dict[str, Any]:
    """docker's fields; ``Links`` are the containers that have it, also those that do not run."""
    from minicontainer import volumes

    return {
        "Name": volume.name,
        "CreatedAt": shown(volume.created or None),
        "Driver": "local",
        "Labels": dict(volume.labels),
        "Mountpoint": volume.path,
        "Options": {},
        "Scope": "local",
        "Links": len(volumes.users(volume.name)),
    }


@group.command("inspect")
@format_option("json", short=True)
@names_argument
def inspect(format_: str, names: Sequence[str]) -> int:
    """Show all that is known of volumes, as a JSON list; with -f as a template says."""
    from minicontainer import volumes
    from minicontainer.cli.inspect import inspect_each

    return inspect_each(names, lambda name: _data(volumes.find(name)), format_)


@group.command("rm")
@click.option("-f", "--force", is_flag=True, help="One that is not there is no error.")
@names_argument
def rm(force: bool, names: Sequence[str]) -> int:
    """Remove volumes that no container has, with all that they hold."""
    from minicontainer import volumes
    from minicontainer.cli import report

    status = 0
    for name in names:
        try:
            volumes.remove(name)
            click.echo(name)
        except volumes.NoVolumeError as e:
            if not force:
                report(e)
                status = 1
        except (Error, OSError) as e:
            report(e)
            status = 1
    return status


@group.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Those with a name of somebody's choice too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(everything: bool, force: bool) -> int:
    """Remove volumes that no container has, and that were made without a name."""
    from minicontainer import volumes

    if not force:
        what = "all volumes" if everything else "all volumes without a name"
        click.confirm(f"Remove {what} that no container has?", abort=True)
    click.echo("".join(f"{name}\n" for name in volumes.prune(everything=everything)), nl=False)
    return 0
