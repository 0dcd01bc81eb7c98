"""``minicontainer rootfs``: create root file systems from the host's busybox or from an archive."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from minicontainer.cli.groups import Group

MAX_NOTES = 20  # notes that are printed one by one


@click.group("rootfs", cls=Group)
def group() -> None:
    """Create root file systems."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _unwind)


def _unwind(number: int, frame: object) -> None:
    """Exit by an exception, so that an unfinished directory is removed."""
    sys.exit(128 + number)


@group.command("busybox")
@click.argument("directory", metavar="DIR")
def busybox(directory: str) -> None:
    """Create a small root file system in DIR from the host's static busybox.

    It contains busybox with a link for each applet, a few files in /etc with the users root, daemon, nobody and user
    (1000), and the usual directories. DIR must be missing or empty; a DIR that this command made is left unchanged.
    """
    from minicontainer import rootfs

    rootfs.busybox(directory)


@group.command("tar", short_help="Unpack a tar archive; no member can leave DIR.")
@click.argument("file", metavar="FILE")
@click.argument("directory", metavar="DIR")
@click.option(
    "--max-size", default="16g", show_default=True, help="Maximum size of all files, holes included: 512m, 2g."
)
@click.option("--max-members", default="1000000", show_default=True, help="Maximum number of entries.")
@click.option("--keep-suid", is_flag=True, help="Unpack set-id bits, file capabilities and devices too; see above.")
def tar(file: str, directory: str, max_size: str, max_members: str, keep_suid: bool) -> None:
    """Unpack the tar archive FILE (- for stdin) into DIR; no member can leave DIR.

    FILE may be compressed with gzip, bzip2 or xz. A missing DIR is created only if the whole archive can be unpacked;
    in an existing DIR, members replace files of the same name.

    A leading / is dropped from names, and names with .. are refused. Symbolic links are unpacked unchanged, and never
    followed out of DIR. As root, owners and modes are those of the archive, without set-id bits of files, file
    capabilities and devices: a container does not use them, and any user of this host could. --keep-suid unpacks them
    too, if DIR is below a directory that other users cannot enter. As an ordinary user, you own all files. Whatever is
    left out is listed on stderr.
    """
    from minicontainer import rootfs, spec

    limit, members = spec.size("max-size", max_size), spec.whole("max-members", max_members, 1, 2**63 - 1)
    report = rootfs.tar(_stdin() if file == "-" else file, directory, limit=limit, members=members, keep_suid=keep_suid)
    for note in report.notes[:MAX_NOTES]:
        click.echo(f"minicontainer: {note}", err=True)
    if len(report.notes) > MAX_NOTES:
        click.echo(f"minicontainer: and {len(report.notes) - MAX_NOTES} more like these", err=True)


def _stdin() -> Any:
    if sys.stdin is None:
        raise click.UsageError("FILE is -, but stdin is closed")
    if os.isatty(sys.stdin.fileno()):
        raise click.UsageError("FILE is -, but stdin is a terminal")
    return sys.stdin.buffer
