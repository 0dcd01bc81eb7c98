"""Fails tests that leave something behind: compares the state before and after each. A pytest plugin.

Theory of operation. ``snapshot()`` lists the resources of this process and its containers, one line each; a line only
in the second snapshot is a leak. Removal is often asynchronous (network interfaces, exiting processes), so the second
snapshot is repeated for a while (SETTLE) before the test fails.

Resources that minicontainer caches on purpose are no leaks: the parent cgroup of all containers, and one descriptor of
it and of its mount; the files of id ranges, and one descriptor of them (the range for the next container); the device
program; the memfds of the helpers; netfilter sockets, and the lock file of networks.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import pytest
from abilities import USER_ID, cgroup2_mounts

from minicontainer import runtime
from minicontainer.network import bridge

SETTLE = 10.0
WATCHED = ("native", "rig")
MADE_ONCE = ("/run/netns", "/var/lib/containers/storage/overlay")  # mount points, by ip-netns(8) and podman(1)
IDS = "/run/minicontainer/id-ranges/"
KEPT = ("mark", "events*", "owners/??", "networks/.lock")


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails each test of tests/native and tests/rig that leaks a resource."""
    if request.node.path.parent.name not in WATCHED:
        yield
        return
    before = snapshot()
    yield
    if leaked := leaked_since(before):
        pytest.fail("leaked: " + "; ".join(leaked), pytrace=False)


def leaked_since(before: Counter[str], settle: float = SETTLE) -> list[str]:
    """The resources that were not there before and are not released within ``settle`` seconds."""
    deadline, pause = time.monotonic() + settle, 0.002
    while leaked := snapshot() - before:
        if time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    return sorted(leaked.elements())


def snapshot() -> Counter[str]:
    """One line for each resource."""
    return Counter(line for list_them in LISTS for line in list_them())


def descriptors() -> Iterator[str]:
    kept = {
        IDS,
        "anon_inode:bpf-prog",
        "/memfd:minicontainer-init (deleted)",
        "/memfd:minicontainer-enter (deleted)",
        "/memfd:minicontainer-ready (deleted)",
        "/memfd:minicontainer-vmexec (deleted)",
        "/memfd:minicontainer-vmm (deleted)",
        *(str(mount / home) for mount in cgroup2_mounts() for home in ("", *homes())),
    }
    endings = sys.modules.get("minicontainer.network.release")
    sockets = {fd for _, fd in endings._sockets} if endings is not None else set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # of the listing itself
            continue
        target = IDS if target.startswith(IDS) else target
        if int(number) in sockets:
            continue
        if target in kept:
            kept.remove(target)
        else:
            yield f"descriptor {number} ({target})"


def children() -> Iterator[str]:
    for thread in os.listdir("/proc/self/task"):
        for pid in _read(f"/proc/self/task/{thread}/children").split():
            name, _, rest = _read(f"/proc/{pid}/stat").partition("(")[2].rpartition(")")
            yield f"{'zombie' if rest.split()[:1] == ['Z'] else 'child'} {pid} ({name})"


def mounts() -> Iterator[str]:
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if fields[4] not in MADE_ONCE:
            yield f"mount {fields[4]} ({fields[fields.index('-') + 1]}, id {fields[0]})"


def cgroups() -> Iterator[str]:
    for mount in cgroup2_mounts():
        for directory in directories(mount):
            names = Path(directory).relative_to(mount).parts
            ours = any(fnmatch(name, pattern) for name in names for pattern in groups())
            if ours and names[-1] not in homes():
                yield f"cgroup {directory}"


def directories(top: Path) -> Iterator[str]:
    """The directory and all below it, of any depth (os.walk recurses before Python 3.12)."""
    left = [str(top)]
    while left:
        yield (found := left.pop())
        with suppress(OSError):  # it has been removed, or its path is too long
            left += [entry.path for entry in os.scandir(found) if entry.is_dir(follow_symlinks=False)]


def homes() -> tuple[str, ...]:
    """Names of cgroups that stay: the parents of containers and monitors, and of processes moved out of the base."""
    return (f"minicontainer{runtime.suffix()}", "minicontainer.caller", "monitors")


def groups() -> tuple[str, ...]:
    """Name patterns of this run's cgroups; in the rig all are."""
    return (homes()[0], f"test-*{os.getpid()}", *(["minicontainer*"] if os.environ.get("RIG") == "1" else []))


def network() -> Iterator[str]:
    for _, name in socket.if_nameindex():
        if not _is_foreign(name):
            yield f"interface {name}"
    for directory in ("/run/netns", "/var/run/netns"):
        if os.path.isdir(directory) and not os.path.islink(os.path.dirname(directory)):
            yield from (f"network namespace {directory}/{name}" for name in os.listdir(directory))


def state() -> Iterator[str]:
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{USER_ID}"
    users = (f"{own}/minicontainer", f"/tmp/minicontainer-{USER_ID}/minicontainer")
    for place in dict.fromkeys((runtime.directory(), *users)):
        for directory, _, files in os.walk(place):
            found = (f"{directory}/{name}" for name in files)
            yield from (f"state file {path}" for path in found if not _is_kept(path.removeprefix(f"{place}/")))


def _is_kept(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in KEPT)


def _is_foreign(interface: str) -> bool:
    """Whether it is a bridge of another state directory, or a port of one."""
    master = Path(f"/sys/class/net/{interface}/master")
    bridges = {*bridge.interfaces(others=True)} - {*bridge.interfaces()}
    return interface in bridges or (master.is_symlink() and master.readlink().name in bridges)


def _read(path: str) -> str:
    """The file's content; "" if it has been removed meanwhile."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return ""


LISTS: tuple[Callable[[], Iterator[str]], ...] = (descriptors, children, mounts, cgroups, network, state)
