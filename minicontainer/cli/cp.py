"""``minicontainer cp``: copy files between a container and the host."""

from __future__ import annotations

import click

from minicontainer.cli.command import Command
from minicontainer.cli.names import ContainerPath, find
from minicontainer.errors import Error, SpecError


@click.command("cp", cls=Command)
@click.option("-a", "--archive", is_flag=True, help="Keep owners (numeric ids) and set-id bits.")
@click.option("-L", "--follow-link", is_flag=True, help="If SRC is a symbolic link, copy its target.")
@click.argument("source", type=ContainerPath(), metavar="[CONTAINER:]SRC")
@click.argument("target", type=ContainerPath(), metavar="[CONTAINER:]DEST")
def command(archive: bool, follow_link: bool, source: str, target: str) -> int:
    """Copy files between a container and the host.

    A directory is copied into DEST if DEST exists, else as DEST; SRC/. copies the contents of SRC. Symbolic links are
    resolved inside the container, and never lead out of it.
    """
    from minicontainer.cli import report

    (container, from_), (other, to) = _split(source), _split(target)
    if "-" in (source, target):
        raise SpecError("cp", "-", "is no file, and no archive is streamed", "exec CONTAINER tar -c PATH, or -x")
    if container and other:
        raise SpecError("cp", source, "between containers", "copy to the host first")
    if not container and not other:
        raise SpecError("cp", source, "neither SRC nor DEST is CONTAINER:PATH")
    options = {"follow_link": follow_link, "archive": archive}
    copy = find(container).copy_out if container else find(other).copy_in
    skipped = copy(from_, to, **options)
    for line in skipped:
        report(Error(line))
    return 1 if skipped else 0


def _split(text: str) -> tuple[str, str]:
    """Container and path; the container is "" for a path on the host. As in docker, a path may begin with / or ."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or "/" in container:
        return "", text
    return container, path or "/"
