"""Resolves the names in a spec: another container's network to its namespaces, volumes to their directories."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.spec import Spec


def resolve(spec: Spec, *, create: bool = True) -> Spec:
    """The spec with ``network=container:NAME`` replaced by that container's namespaces, and each volume by a bind mount
    of its directory. With ``create``, volumes that do not exist are created."""
    if spec.network.startswith("container:"):
        from minicontainer.container.network import attach

        spec = attach.resolve(spec)
    if spec.volumes:
        from minicontainer.container.filesystem import volumes

        spec = volumes.as_binds(spec, create=create)
    return spec
