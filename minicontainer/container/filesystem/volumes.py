"""The named volumes of a spec (minicontainer/volumes.py): mounted as binds of their directories, and in use as long as
the container lives."""

from __future__ import annotations

from dataclasses import replace

from minicontainer.spec import Spec


def as_binds(spec: Spec, *, create: bool) -> Spec:
    """The spec with each volume as a bind mount of its directory. The result is cached in the spec, and with it what is
    compiled for it. With ``create``, volumes that do not exist are created."""
    from minicontainer import volumes

    paths = {name: volumes.create(name).path if create else volumes.path_of(name) for name in spec.volumes}
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
    from minicontainer import volumes

    held: list[int] = []
    try:
        for name in names:
            held.append(volumes.use(name, identifier))
    except BaseException:
        release_all(held)
        raise
    return held


def release_all(held: list[int]) -> None:
    """Gives back what ``hold`` gave."""
    while held:
        from minicontainer import volumes

        volumes.release(held.pop())
