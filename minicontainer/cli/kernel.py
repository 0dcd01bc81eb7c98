"""``minicontainer kernel``: the Linux kernels of machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from minicontainer.cli import filters as f
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.groups import Group
from minicontainer.cli.named import Listing, Name, each_name
from minicontainer.cli.tables import ago, bytes_text, table
from minicontainer.cli.times import format_time


def _names() -> list[str]:
    from minicontainer.microvm import store

    return [entry.name for entry in store.registered()]


KERNEL = Name("name", _names)
KINDS = ("linux", "libkrunfw")


@click.group("kernel", cls=Group)
def group() -> None:
    """Fetch, add, list, check and remove Linux kernels for machines (run --isolation kvm).

    A machine boots the first of these: the kernel of --kernel; the registered default; the host's own, where
    /boot/vmlinuz-* and its modules can be read; the newest registered one; the newest of /boot that has modules.
    """


@group.command("add")
@click.option("--modules", metavar="DIR", help="Its modules. [default: lib/modules/RELEASE beside, else the host's]")
@click.option("--name", metavar="NAME", help="Name. [default: its release]")
@click.option("--default", is_flag=True, help="Machines boot it unless --kernel names another.")
@click.argument("file", metavar="FILE")
def add(modules: str | None, name: str | None, default: bool, file: str) -> int:
    """Register a copy of the kernel in FILE: a bzImage, an ELF file, or a libkrunfw.so.

    Its modules and its configuration are copied too. Of libkrunfw, a library of libkrun, the code is not run.
    """
    from minicontainer.microvm import adding

    _tell(adding.add(file, modules=modules, name=name, default=default))
    return 0


@group.command("fetch")
@click.option("--name", metavar="NAME", help="Name. [default: its release]")
@click.option("--default", is_flag=True, help="Machines boot it unless --kernel names another.")
@click.argument("package", metavar="[PACKAGE]", required=False)
def fetch(name: str | None, default: bool, package: str | None) -> int:
    """Download a kernel of this system's distribution with apt-get, and register it; it is not installed.

    PACKAGE is by default the first of these that there is: linux-image-cloud-amd64, linux-image-virtual,
    linux-image-amd64, linux-image-generic. What was fetched before is not downloaded again.
    """
    from minicontainer.microvm import fetching

    _tell(fetching.fetch(package, name=name, default=default))
    return 0


def _tell(entry: Any) -> None:
    """Print the name of a new kernel, and what it lacks."""
    click.echo(entry.name)
    if entry.kernel.lacks:
        from minicontainer.cli import warn

        what = ", ".join(entry.kernel.lacks)
        warn(f"kernel {entry.name}: machines need what it lacks: {what} (minicontainer kernel check {entry.name})")


def _row(entry: Any) -> Row:
    kernel = entry.kernel
    data = {
        "Name": entry.name,
        "Release": kernel.release,
        "Kind": "damaged" if entry.damage else kernel.kind,
        "Default": entry.is_default,
        "Size": entry.size,
        "CreatedAt": format_time(entry.created or None),
        "Source": entry.source,
        "Path": kernel.path,
        "Modules": kernel.modules,
        "Announcement": kernel.announce,
        "Lacks": list(kernel.lacks),
        "Damage": entry.damage or None,
    }
    return Row(data, {"Size": bytes_text(entry.size), "Lacks": ",".join(kernel.lacks)})


LISTING = Listing(
    filters={
        "name": f.matches("name", lambda entry: entry.name),
        "kind": f.one_of("kind", KINDS, lambda entry: entry.kernel.kind),
    },
    headings={"CreatedAt": "CREATED"},
    head=("NAME", "RELEASE", "KIND", "DEFAULT", "SIZE", "CREATED"),
    row=_row,
    cells=lambda entry, data: [
        entry.name,
        data["Release"],
        data["Kind"],
        "yes" if entry.is_default else "",
        bytes_text(entry.size),
        ago(entry.created or None),
    ],
)


@group.command("ls")
@LISTING.options
def ls(quiet: bool, filters: Sequence[str], format_: str) -> int:
    """List the registered kernels."""
    from minicontainer.microvm import store

    return LISTING.show(store.registered(), quiet=quiet, filters=filters, format_=format_)


@group.command("rm")
@click.option("-f", "--force", is_flag=True, help="A missing kernel is no error.")
@KERNEL.argument()
def rm(force: bool, names: Sequence[str]) -> int:
    """Remove registered kernels; a machine that runs one goes on."""
    from minicontainer.microvm import store

    return each_name(names, store.remove, spare=store.NoKernelError if force else None)


@group.command("check")
@format_option()
@click.argument("kernel", metavar="[KERNEL]", required=False, type=KERNEL)
def check(format_: str, kernel: str | None) -> int:
    """Show what KERNEL (a file, or a registered one; default: the one that machines boot) has of what machines use.

    Exit code 1: it lacks what they need. "unknown": its configuration is not at hand, and nothing tells.
    """
    from minicontainer.microvm import check as checking
    from minicontainer.microvm import kernels

    found = kernels.find(kernel)
    findings = checking.check(found)
    if format_ in ("table", ""):
        click.echo(f"kernel {found.name or found.path} ({found.release})")
    rows = [_finding_row(finding) for finding in findings]
    head = ("FEATURE", "OPTION", "NEEDED", "STATE")

    def as_table() -> str:
        cells = [[row.data["Feature"], row.data["Option"], row.text["Needed"], row.data["State"]] for row in rows]
        return table(head, cells)

    click.echo(rows_text(rows, format_, {}, as_table), nl=False)
    return int(any(finding.is_lacking for finding in findings))


def _finding_row(finding: Any) -> Row:
    data = {
        "Feature": finding.feature.name,
        "Option": finding.feature.option,
        "Needed": finding.is_needed,
        "State": finding.state,
        "File": finding.file or None,
    }
    return Row(data, {"Needed": "yes" if finding.is_needed else ""})
