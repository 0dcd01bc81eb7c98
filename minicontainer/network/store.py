"""The files of networks: where they are, and their locks."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from minicontainer import runtime
from minicontainer.errors import Error, SpecError, StepError
from minicontainer.failpoint import failpoint
from minicontainer.linux import attributes
from minicontainer.network.record import CorruptNetworkError, Network
from minicontainer.spec import NAME


class NoNetworkError(SpecError, LookupError):
    """There is no such network."""


def directory() -> str:
    """``networks`` in the runtime directory."""
    return f"{runtime.directory()}/networks"


def path(name: str, *parts: str) -> str:
    """A file of a network."""
    return "/".join((directory(), name, *parts))


@contextmanager
def locked(*, exclusive: bool) -> Iterator[None]:
    """The lock on all networks."""
    runtime.make_directory(directory())
    with _lock(f"{directory()}/.lock", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
        yield


@contextmanager
def host_locked() -> Iterator[str]:
    """The lock on what the networks of all state directories share, in one network namespace: the path of a file that
    says what that was before."""
    directory = f"{runtime.HOST}/networks"
    runtime.make_directory(directory)
    with _lock(f"{directory}/.host"):
        yield f"{directory}/forwarding-{os.stat('/proc/self/ns/net').st_ino}"


@contextmanager
def _lock(path: str, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


@contextmanager
def changing(name: str) -> Iterator[int]:
    """The lock on the leases of one: a descriptor of its directory."""
    try:
        fd = os.open(path(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _no_network(name) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def names() -> list[str]:
    """All that are there, whole or not."""
    try:
        return sorted(
            name for name in os.listdir(directory()) if re.fullmatch(NAME, name) and os.path.isdir(path(name))
        )
    except FileNotFoundError:
        return []


def read(name: str) -> Network:
    """NoNetworkError where there is none; CorruptNetworkError."""
    try:
        return Network.from_json(runtime.read(path(name, "config.json")))
    except FileNotFoundError:
        raise _no_network(name) from None
    except OSError as e:
        raise CorruptNetworkError(f"network {name}: config.json: {(e.strerror or str(e)).lower()}") from None
    except ValueError as e:
        raise CorruptNetworkError(f"network {name}: config.json: {e}") from None
    except CorruptNetworkError as e:
        raise CorruptNetworkError(f"network {name}: {e}") from None


def whole() -> list[Network]:
    """Those that can be read."""
    found = []
    for name in names():
        try:
            found.append(read(name))
        except (NoNetworkError, CorruptNetworkError):
            continue
    return found


def write(network: Network) -> None:
    """Makes its directory, or replaces its file: then it is there."""
    for part in ("leases", "hosts"):
        runtime.make_directory(path(network.name, part))
    part = path(network.name, ".config")
    runtime.write(part, network.to_json(), 0o644)
    failpoint("network written")
    os.rename(part, path(network.name, "config.json"))


def forget(name: str) -> None:
    """Removes its directory: config.json first, which decides whether the network exists. Error, and no change, where
    a file of it cannot be removed."""
    try:
        attributes.check_removable(path(name))
    except StepError as e:
        raise Error(f"network {name}: {e}") from None
    try:
        os.unlink(path(name, "config.json"))
    except FileNotFoundError:
        pass
    failpoint("network forgotten")
    attributes.remove_tree(path(name))


def clear(name: str) -> None:
    """Removes what its file does not say: leases and names."""
    for part in ("leases", "hosts"):
        attributes.remove_tree(path(name, part))


def _no_network(name: str) -> NoNetworkError:
    return NoNetworkError("network", name, "there is no such network", f"minicontainer network create {name}")
