"""The container whose network another container joins (``--network container:NAME``): its process and its files of
/etc.

Theory of operation. The peer controls its own /etc: a link there could lead to any file that the host's root can read,
the kernel's file systems included. So no file of the peer is opened. Its hosts and resolv.conf are made again from its
spec, or read from the network's hosts file (network/hosts.py).
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

CHAIN_MAX = 16  # containers, each of which joins the network of the next


def process(text: str) -> int:
    """The pid of process 1 of the container with this name or id. SpecError where none runs, or several match."""
    matches = names.find(text)
    if len(matches) > 1:
        reason = f"could be any of {len(matches)} containers"
        raise SpecError("network", f"container:{text}", reason, "give more of its id")
    if not matches:
        raise SpecError("network", f"container:{text}", "there is no such container", "minicontainer ps")
    directory = names.detached(matches[0])
    try:
        pid, start = runtime.parse_object(runtime.read(f"{directory}/state"))["process"]
        if stat(pid).start == start:
            return int(pid)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise SpecError("network", f"container:{text}", "does not run", f"minicontainer start {text}")


def etc_files(text: str) -> dict[str, str | None]:
    """The contents of /etc/hosts and /etc/resolv.conf of the container whose name or id is ``text``; if that container
    joins the network of a third one, of that. Empty where the container is gone."""
    for _ in range(CHAIN_MAX):
        directory = names.detached(next(iter(names.find(text)), text))
        try:
            spec = from_data(runtime.parse_object(runtime.read(f"{directory}/config.json"))["spec"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            break
        if not spec.network.startswith("container:"):
            return _etc_files(spec, directory)
        text = spec.network.removeprefix("container:")
    return {}


def _etc_files(spec: Spec, directory: str) -> dict[str, str | None]:
    files = etc.contents(spec, compiler.hostname(spec, os.path.basename(directory)[:12]))
    if "hosts" in files and files["hosts"] is None:  # the network's hosts file
        try:
            files["hosts"] = members.names_at(os.readlink(f"{directory}/lease"))
        except OSError:
            del files["hosts"]  # the container has left its network
    return {name: content for name, content in files.items() if name != "hostname"}
