"""What words of a spec stand for here and now: another container's network, the directories of volumes."""

from __future__ import annotations

from minicontainer.spec import Spec


def resolved(spec: Spec, *, make: bool = True) -> Spec:
    """With the namespaces that ``network=container:NAME`` stands for now, and volumes as binds of their directories.
    ``make``: those that are missing are made."""
    if spec.network.startswith("container:"):
        from minicontainer.container.network import joining

        spec = joining.resolved(spec)
    if spec.volumes:
        from minicontainer.container.filesystem import volumes

        spec = volumes.as_binds(spec, make=make)
    return spec
