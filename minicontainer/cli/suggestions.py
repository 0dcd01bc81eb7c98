"""Answers to unknown commands: what to use instead of other engines' commands, and the nearest names of typos."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from minicontainer.errors import quote

UNPACK = "there are no images and no registry: minicontainer rootfs tar FILE DIR unpacks a root file system"
PACK = "there are no images to make: minicontainer export CONTAINER -o FILE packs a root file system"
LIST = "there are no images: a root file system is a directory, which ls lists"
SERVICES = "there is no orchestration: a shell script of run -d, or systemd with a unit for each"
DIRECT = "use the commands directly: minicontainer ps, stop, rm, logs ..."

ALTERNATIVES = {
    **dict.fromkeys(("pull", "load", "import", "search"), UNPACK),
    **dict.fromkeys(("build", "buildx", "builder", "buildah", "bake"), f"nothing is built here; {UNPACK}"),
    **dict.fromkeys(("commit", "save", "push", "tag", "manifest", "trust", "sign"), PACK),
    **dict.fromkeys(("image", "images", "history"), LIST),
    "rmi": "there are no images: rm -r removes the directory of a root file system",
    **dict.fromkeys(("login", "logout"), "there is no registry to log in to"),
    **dict.fromkeys(
        ("compose", "swarm", "service", "stack", "node", "secret", "config", "kube", "play", "generate", "quadlet"),
        SERVICES,
    ),
    "pod": "there are no pods: run --network container:C --ipc pid:N joins a container's namespaces",
    "container": DIRECT,
    **dict.fromkeys(("ls", "list"), "minicontainer ps lists containers"),
    "system": "use minicontainer info, events, prune or doctor",
    "df": "minicontainer ps -a -s shows the sizes of containers",
    **dict.fromkeys(("context", "machine", "plugin"), "there is no daemon, and nothing to connect to or to extend"),
    **dict.fromkeys(("checkpoint", "restore"), "processes cannot be saved: minicontainer pause freezes them"),
    "init": "minicontainer rootfs busybox DIR makes a first root file system",
    "cleanup": "minicontainer doctor --clean removes what was left behind",
    "healthcheck": "check the exit code of minicontainer exec CONTAINER COMMAND",
    **dict.fromkeys(("mount", "unmount", "umount"), "ROOTFS is a directory on the host; minicontainer cp copies files"),
    "unshare": "minicontainer run ROOTFS, or unshare(1)",
    "delete": "minicontainer rm removes containers",
    "remove": "minicontainer rm removes containers",
    "state": "minicontainer inspect shows the state of a container",
    "spec": "minicontainer run --dry-run shows the plan for its options",
}


def suggestion(word: str, commands: Sequence[str], path: str) -> str:
    """One line for an unknown command ``word``. ``path``: the command before it."""
    name, top = quote(word), " " not in path
    if top and word in ALTERNATIVES:
        return f"{name}: is no command of minicontainer: {ALTERNATIVES[word]}"
    near = difflib.get_close_matches(word, commands, n=2, cutoff=0.6)
    if near:
        return f"{name}: is no command: did you mean {' or '.join(f'{path} {found}' for found in near)}?"
    return f"{name}: is no command ({path} {'help' if top else '--help'} lists them)"
