"""The files of networks, and their locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from minicontainer import runtime
from minicontainer.errors import Error, SpecError, StepError
from minicontainer.failpoint import failpoint
from minicontainer.linux import attributes
from minicontainer.network.record import CorruptNetworkError, Network
from minicontainer.spec.values import is_name


class NoNetworkError(SpecError, LookupError):
    """There is no such network."""


def directory() -> str:
    """``networks`` in the state directory."""
    return f"{runtime.directory()}/networks"


def path(name: str, *parts: str) -> str:
    """The path of a file of the network ``name``."""
    return "/".join((directory(), name, *parts))


@contextmanager
def locked(*, exclusive: bool) -> Iterator[None]:
    """Holds the lock on all networks."""
    runtime.make_directory(directory())
    with _lock(f"{directory()}/.lock", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
        yield


@contextmanager
def host_locked() -> Iterator[str]:
    """Holds the lock on settings that the networks of all state directories share, per network namespace; yields the
    path of a file for the original value of net.ipv4.ip_forward."""
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
def lease_lock(name: str) -> Iterator[int]:
    """Holds the lock on the leases of a network; yields a descriptor of its directory."""
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
    """All networks, also incomplete ones."""
    try:
        return sorted(name for name in os.listdir(directory()) if is_name(name) and os.path.isdir(path(name)))
    except FileNotFoundError:
        return []


def read(name: str) -> Network:
    """Reads a network. NoNetworkError; CorruptNetworkError."""
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


def readable() -> list[Network]:
    """All networks that can be read."""
    networks = []
    for name in names():
        try:
            networks.append(read(name))
        except (NoNetworkError, CorruptNetworkError):
            continue
    return networks


def write(network: Network) -> None:
    """Writes config.json, by rename(2); from then on the network exists."""
    for part in ("leases", "hosts"):
        runtime.make_directory(path(network.name, part))
    part = path(network.name, ".config")
    runtime.write(part, network.to_json(), 0o644)
    failpoint("network written")
    os.rename(part, path(network.name, "config.json"))


def remove(name: str) -> None:
    """Removes a network's directory: config.json first, which ends its existence. Error, without any change, if a
    file cannot be removed."""
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
    """Removes the leases and hosts files of a network."""
    for part in ("leases", "hosts"):
        attributes.remove_tree(path(name, part))


def _no_network(name: str) -> NoNetworkError:
    return NoNetworkError("network", name, "there is no such network", f"minicontainer network create {name}")
