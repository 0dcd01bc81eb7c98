"""``minicontainer run -d`` and ``create``: containers with a monitor, started now or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minicontainer.cli.foreground import show_timeline
from minicontainer.cli.options import cidfile, pairs
from minicontainer.cli.outputs import show
from minicontainer.detached.container import Container
from minicontainer.errors import SpecError
from minicontainer.spec import Spec


def background(spec: Spec, options: dict[str, Any], timeout: float | None, explain: str | None) -> int:
    """Start a detached container and print its id; with ``explain`` also its timeline (a file, or "": stderr)."""
    if options["meta"]:
        raise SpecError("meta", options["meta"], "is for a container that is waited for", "minicontainer inspect")
    container = make(spec, options, timeout, Container.start)
    if explain is not None:
        assert container.timeline is not None
        show_timeline(container.timeline, explain)
    return 0


def make(spec: Spec, options: dict[str, Any], timeout: float | None, how: Callable[..., Container]) -> Container:
    """Make a container by ``how`` (Container.start or .create); print its id, also into the file of --cidfile."""
    if options["restart"] != "no" and options["rm"]:
        raise SpecError("restart", options["restart"], "cannot be combined with --rm")
    with cidfile(options["cidfile"]) as write_id:
        container = how(
            spec,
            labels=pairs("label", options["label"]),
            restart=options["restart"],
            log=pairs("log-opt", options["log_opt"]),
            interactive=options["interactive"],
            remove=options["rm"],
            timeout=timeout or 0,
        )
        try:
            write_id(container.id)
            show(container.id)
        except BrokenPipeError:
            raise  # the reader has closed stdout: the container stays
        except OSError:
            container.remove(force=True)  # the caller does not get its id
            raise
    return container
