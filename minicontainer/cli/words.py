"""Words of other engines' command lines that we do not have, and what to do instead; and slips of the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from minicontainer.errors import quote

UNPACK = "there are no images and no registry: have a root file system unpacked: minicontainer rootfs tar FILE DIR"
PACK = "there are no images to make: minicontainer export CONTAINER -o FILE packs a root file system"
LISTED = "there are no images: a root file system is a directory, and ls lists those"
SERVICES = "there is no orchestration: a shell script of run -d, or systemd with a unit for each"
WITHOUT = "its commands stand alone here: minicontainer ps, stop, rm, logs ..."

INSTEAD = {
    **dict.fromkeys(("pull", "load", "import", "search"), UNPACK),
    **dict.fromkeys(("build", "buildx", "builder", "buildah", "bake"), f"nothing is built here; {UNPACK}"),
    **dict.fromkeys(("commit", "save", "push", "tag", "manifest", "trust", "sign"), PACK),
    **dict.fromkeys(("image", "images", "history"), LISTED),
    "rmi": "there are no images: rm -r removes the directory of a root file system",
    **dict.fromkeys(("login", "logout"), "there is no registry to log in to"),
    **dict.fromkeys(
        ("compose", "swarm", "service", "stack", "node", "secret", "config", "kube", "play", "generate", "quadlet"),
        SERVICES,
    ),
    "pod": "there are no pods: run --network container:C --ipc pid:N joins a container's namespaces",
    "container": WITHOUT,
    **dict.fromkeys(("ls", "list"), "minicontainer ps lists containers"),
    "system": "minicontainer info, events, prune and doctor are what it has",
    "df": "minicontainer ps -a -s shows the sizes of containers",
    **dict.fromkeys(("context", "machine", "plugin"), "there is no daemon, and nothing to connect to or to extend"),
    **dict.fromkeys(("checkpoint", "restore"), "nothing is kept of processes that end: minicontainer pause stops them"),
    "init": "minicontainer rootfs busybox DIR makes a root file system to begin with",
    "cleanup": "minicontainer doctor --clean removes what was left behind",
    "healthcheck": "minicontainer exec CONTAINER COMMAND has an exit code to go by",
    **dict.fromkeys(
        ("mount", "unmount", "umount"), "ROOTFS is a directory of the host's; minicontainer cp goes inside"
    ),
    "unshare": "minicontainer run ROOTFS, or unshare(1)",
    "delete": "minicontainer rm removes containers",
    "remove": "minicontainer rm removes containers",
    "state": "minicontainer inspect tells the state of a container",
    "spec": "minicontainer run --dry-run shows what is made of its options",
}


def instead(word: str, commands: Sequence[str], path: str) -> str:
    """Why there is no such command, in one line. ``path``: the words before it."""
    name, top = quote(word), " " not in path
    if top and word in INSTEAD:
        return f"{name}: is no command of ours: {INSTEAD[word]}"
    near = difflib.get_close_matches(word, commands, n=2, cutoff=0.6)
    if near:
        return f"{name}: is no command: did you mean {' or '.join(f'{path} {found}' for found in near)}?"
    return f"{name}: is no command ({path} {'help' if top else '--help'} lists them)"
