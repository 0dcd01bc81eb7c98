"""``minicontainer run -d`` and ``create``: a container that is left to its monitor, or made for later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from minicontainer.cli.foreground import show_timeline
from minicontainer.cli.options import claimed, pairs
from minicontainer.detached.container import Container
from minicontainer.errors import SpecError
from minicontainer.spec import Spec


def background(spec: Spec, words: dict[str, Any], timeout: float | None, explain: str | None) -> int:
    """Starts it, and prints its id; with ``explain`` what was done for that (a file, or "": stderr)."""
    if words["meta"]:
        raise SpecError("meta", words["meta"], "is for a container that is waited for", "minicontainer inspect")
    container = make(spec, words, timeout, Container.start)
    if explain is not None:
        assert container.timeline is not None
        show_timeline(container.timeline, explain)
    return 0


def make(spec: Spec, words: dict[str, Any], timeout: float | None, how: Callable[..., Container]) -> Container:
    """Makes it by ``how``, Container.start or .create, and prints its id, also into the file of --cidfile."""
    if words["restart"] != "no" and words["rm"]:
        raise SpecError("restart", words["restart"], "cannot be with --rm")
    with claimed(words["cidfile"]) as tell:
        container = how(
            spec,
            labels=pairs("label", words["label"]),
            restart=words["restart"],
            log=pairs("log-opt", words["log_opt"]),
            interactive=words["interactive"],
            remove=words["rm"],
            timeout=timeout or 0,
        )
        try:
            tell(container.id)
            click.echo(container.id)
        except BrokenPipeError:
            raise  # nobody wants to know
        except OSError:
            container.remove(force=True)  # nobody would know of it
            raise
    return container
