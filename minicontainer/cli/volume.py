"""``minicontainer volume``: named volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from minicontainer.cli import filters as f
from minicontainer.cli.command import confirm
from minicontainer.cli.formats import Row, format_option
from minicontainer.cli.groups import Group
from minicontainer.cli.named import Listing, Name, each_name
from minicontainer.cli.tables import ago
from minicontainer.cli.times import format_time


def _names() -> list[str]:
    from minicontainer import volumes

    return [volume.name for volume in volumes.volumes()]


VOLUME = Name("volume", _names)


@click.group("volume", cls=Group)
def group() -> None:
    """Create, list and remove volumes; run -v VOLUME:PATH mounts a volume, and creates it if it is missing.

    A volume is a directory that outlives containers and reboots. The files of ROOTFS at PATH are not copied into it.
    """


@group.command("create")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Label of the volume; may be repeated.")
@click.argument("name", required=False)
def create(labels: Sequence[str], name: str | None) -> int:
    """Create the volume NAME (default: 64 random digits); an existing volume is left unchanged."""
    from minicontainer import volumes
    from minicontainer.cli.options import pairs

    click.echo(volumes.create(name, labels=pairs("label", labels)).name)
    return 0


def _dangling(volume: Any) -> str:
    """ "true" if no container uses the volume, else "false"."""
    from minicontainer import volumes

    return "false" if volumes.users(volume.name) else "true"


def _row(volume: Any) -> Row:
    return Row(_data(volume), {"Labels": ",".join(f"{name}={value}" for name, value in sorted(volume.labels.items()))})


LISTING = Listing(
    filters={
        "name": f.matches("name", lambda volume: volume.name),
        "label": f.label(lambda volume: volume.labels),
        "dangling": f.one_of("dangling", ("true", "false"), _dangling),
    },
    headings={"Name": "VOLUME NAME", "Links": "CONTAINERS"},
    head=("VOLUME NAME", "CREATED", "CONTAINERS"),
    row=_row,
    cells=lambda volume, data: [volume.name, ago(volume.created or None), str(data["Links"])],
)


@group.command("ls")
@LISTING.options
def ls(quiet: bool, filters: Sequence[str], format_: str) -> int:
    """List the volumes."""
    from minicontainer import volumes

    return LISTING.show(volumes.volumes(), quiet=quiet, filters=filters, format_=format_)


def _data(volume: Any) -> dict[str, Any]:
    """docker's fields; ``Links`` is the number of containers that use the volume, running or stopped."""
    from minicontainer import volumes

    return {
        "Name": volume.name,
        "CreatedAt": format_time(volume.created or None),
        "Driver": "local",
        "Labels": dict(volume.labels),
        "Mountpoint": volume.path,
        "Options": {},
        "Scope": "local",
        "Links": len(volumes.users(volume.name)),
    }


@group.command("inspect")
@format_option("json", short=True)
@VOLUME.argument()
def inspect(format_: str, names: Sequence[str]) -> int:
    """Show the details of volumes as a JSON list, or with -f by a template."""
    from minicontainer import volumes
    from minicontainer.cli.inspect import inspect_each

    return inspect_each(names, lambda name: _data(volumes.find(name)), format_)


@group.command("rm")
@click.option("-f", "--force", is_flag=True, help="A missing volume is no error.")
@VOLUME.argument()
def rm(force: bool, names: Sequence[str]) -> int:
    """Remove volumes that no container uses, and their files."""
    from minicontainer import volumes

    return each_name(names, volumes.remove, spare=volumes.NoVolumeError if force else None)


@group.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Remove named volumes too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
def prune(everything: bool, force: bool) -> int:
    """Remove all volumes that were created without a name and that no container uses."""
    from minicontainer import volumes

    if not force:
        what = "all volumes" if everything else "all volumes without a name"
        confirm(f"Remove {what} that no container uses?")
    click.echo("".join(f"{name}\n" for name in volumes.prune(everything=everything)), nl=False)
    return 0
