"""The named volumes of a spec (minicontainer/volumes.py): bind mounts of their directories, marked as in use while the
container runs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import replace

    from minicontainer.spec import Spec
else:
    from minicontainer.records import replace


def as_binds(spec: Spec, *, create: bool) -> Spec:
    """The spec with each volume as a bind mount of its directory. The result is cached in the spec, and with it the
    compiled plan. With ``create``, volumes that do not exist are created."""
    from minicontainer import volumes

    paths = {name: volumes.create(name).path if create else volumes.path_of(name) for name in spec.volumes}
    key, cached = tuple(paths.values()), spec.__dict__.get("_bound")
    if cached is None or cached[0] != key:
        mounts = (
            replace(mount, type="bind", source=paths[mount.source or ""]) if mount.type == "volume" else mount
            for mount in spec.mounts
        )
        cached = key, replace(spec, mounts=tuple(mounts))
        object.__setattr__(spec, "_bound", cached)
    bound: Spec = cached[1]
    return bound


def hold(names: tuple[str, ...], identifier: str) -> list[int]:
    """Marks the volumes of a container as in use; returns locked descriptors (volumes.use)."""
    from minicontainer import volumes

    fds: list[int] = []
    try:
        for name in names:
            fds.append(volumes.use(name, identifier))
    except BaseException:
        release_all(fds)
        raise
    return fds


def release_all(fds: list[int]) -> None:
    """Releases the volumes of ``hold``'s descriptors."""
    while fds:
        from minicontainer import volumes

        volumes.release(fds.pop())
