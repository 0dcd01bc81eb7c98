"""The container whose network another one joins (``--network container:NAME``): its process, and the names that it was
given.

Theory of operation. What is in its /etc is its own to change: a link there could lead to anything that the host's root
can read, into the kernel's file systems too. So none of its files is opened. What it was given is made again of its
spec, or read from where we keep it for its network (network/hosts.py).
"""

from __future__ import annotations

import os

from minicontainer import runtime
from minicontainer.container import compiler
from minicontainer.container.filesystem import etc
from minicontainer.container.registry import names
from minicontainer.errors import SpecError
from minicontainer.linux.process import stat
from minicontainer.network import members
from minicontainer.spec import Spec
from minicontainer.spec.data import from_data

MOST = 16  # containers, each on the network of the next


def process(text: str) -> int:
    """The pid of process 1 of the container that ``text`` stands for. SpecError where none runs, or it is ambiguous."""
    found = names.find(text)
    if len(found) > 1:
        reason = f"could be any of {len(found)} containers"
        raise SpecError("network", f"container:{text}", reason, "give more of its id")
    if not found:
        raise SpecError("network", f"container:{text}", "there is no such container", "minicontainer ps")
    directory = names.detached(found[0])
    try:
        pid, start = runtime.parsed(runtime.read(f"{directory}/state"))["process"]
        if stat(pid).start == start:
            return int(pid)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise SpecError("network", f"container:{text}", "does not run", f"minicontainer start {text}")


def given(text: str) -> dict[str, str | None]:
    """The contents of /etc/hosts and /etc/resolv.conf of the container that ``text`` stands for, or of the one whose
    network that has joined itself; of neither where that is gone."""
    for _ in range(MOST):
        directory = names.detached(next(iter(names.find(text)), text))
        try:
            spec = from_data(runtime.parsed(runtime.read(f"{directory}/config.json"))["spec"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            break
        if not spec.network.startswith("container:"):
            return _given(spec, directory)
        text = spec.network.removeprefix("container:")
    return {}


def _given(spec: Spec, directory: str) -> dict[str, str | None]:
    found = etc.contents(spec, compiler.hostname(spec, os.path.basename(directory)[:12]))
    if "hosts" in found and found["hosts"] is None:  # its network's
        try:
            found["hosts"] = members.names_at(os.readlink(f"{directory}/lease"))
        except OSError:
            del found["hosts"]  # it has left its network
    return {name: content for name, content in found.items() if name != "hostname"}
