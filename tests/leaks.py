"""A test may leave nothing behind: what there is before and after it is compared. A pytest plugin.

Theory of operation. ``snapshot()`` lists what this process and its containers hold, each thing as a line that names
it; what is in the second and not in the first has leaked. Removal is often asynchronous (network interfaces, exiting
processes), so the second is taken again for a while (SETTLE) before the test is failed.

What minicontainer keeps on purpose is no leak: the control group that all containers live in (HOME), and one open
descriptor of it and of the mount it is on; the files of ids, and one open descriptor of them (the range for the next
container); the program that says which devices it may use; the program that is executed first; sockets
of netfilter, and the lock of the networks.
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
    """Fails any test of tests/native and tests/rig that leaks something."""
    if request.node.path.parent.name not in WATCHED:
        yield
        return
    before = snapshot()
    yield
    if leaked := leaked_since(before):
        pytest.fail("leaked: " + "; ".join(leaked), pytrace=False)


def leaked_since(before: Counter[str], settle: float = SETTLE) -> list[str]:
    """What is there now and was not before, and does not go away by itself."""
    deadline, pause = time.monotonic() + settle, 0.002
    while leaked := snapshot() - before:
        if time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    return sorted(leaked.elements())


def snapshot() -> Counter[str]:
    """One line for each thing held."""
    return Counter(line for list_them in LISTS for line in list_them())


def descriptors() -> Iterator[str]:
    kept = {
        IDS,
        "anon_inode:bpf-prog",
        "/memfd:minicontainer-init (deleted)",
        "/memfd:minicontainer-enter (deleted)",
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
    """It, and all below it: however deep somebody is just nesting them (os.walk recurses before Python 3.12)."""
    left = [str(top)]
    while left:
        yield (found := left.pop())
        with suppress(OSError):  # it is gone by now, or its path is longer than a path may be
            left += [entry.path for entry in os.scandir(found) if entry.is_dir(follow_symlinks=False)]


def homes() -> tuple[str, ...]:
    """Control groups that stay: those in which containers and monitors are, and who lived in their base."""
    return (f"minicontainer{runtime.suffix()}", "minicontainer.caller", "monitors")


def groups() -> tuple[str, ...]:
    """Patterns of the names of our own control groups; the rig has nobody else's."""
    return (homes()[0], f"test-*{os.getpid()}", *(["minicontainer*"] if os.environ.get("RIG") == "1" else []))


def network() -> Iterator[str]:
    for _, name in socket.if_nameindex():
        if not _is_anothers(name):
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


def _is_anothers(interface: str) -> bool:
    """Whether it is a bridge of another state directory, or is on one."""
    master = Path(f"/sys/class/net/{interface}/master")
    bridges = {*bridge.interfaces(others=True)} - {*bridge.interfaces()}
    return interface in bridges or (master.is_symlink() and master.readlink().name in bridges)


def _read(path: str) -> str:
    """ "" where it has gone meanwhile."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return ""


LISTS: tuple[Callable[[], Iterator[str]], ...] = (descriptors, children, mounts, cgroups, network, state)
