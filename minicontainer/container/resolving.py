"""What words of a spec stand for here and now: another container's network, the directories of volumes."""

from __future__ import annotations

from dataclasses import replace

from minicontainer.spec import Spec


def resolved(spec: Spec, *, make: bool = True) -> Spec:
    """With the namespaces that ``network=container:NAME`` stands for now, and volumes as binds of their directories.
    ``make``: those that are missing are made."""
    if spec.network.startswith("container:"):
        from minicontainer.container import joining

        spec = joining.resolved(spec)
    return _with_volumes(spec, make) if spec.volumes else spec


def _with_volumes(spec: Spec, make: bool) -> Spec:
    """Made once of a spec: so what is compiled for it is kept."""
    from minicontainer import volumes

    paths = {name: volumes.create(name).path if make else volumes.path_of(name) for name in spec.volumes}
    key, found = tuple(paths.values()), spec.__dict__.get("_bound")
    if found is None or found[0] != key:
        mounts = (
            replace(mount, type="bind", source=paths[mount.source or ""]) if mount.type == "volume" else mount
            for mount in spec.mounts
        )
        found = key, replace(spec, mounts=tuple(mounts))
        object.__setattr__(spec, "_bound", found)
    bound: Spec = found[1]
    return bound


def hold(names: tuple[str, ...], identifier: str) -> list[int]:
    """Takes the volumes of a container into use: descriptors that are locked (volumes.use)."""
    if not names:
        return []
    from minicontainer import volumes

    held: list[int] = []
    try:
        for name in names:
            held.append(volumes.use(name, identifier))
    except BaseException:
        let_go(held)
        raise
    return held


def let_go(held: list[int]) -> None:
    """Gives back what ``hold`` gave."""
    while held:
        from minicontainer import volumes

        volumes.release(held.pop())
