"""Other runtimes, where they are installed and can run here: the comparable container of each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from minicontainer.compare.contenders import Command
from minicontainer.errors import Error


def peers(rootfs: str, program: str) -> tuple[list[Command], dict[str, str]]:
    """(those that can run, name -> why not): each is tried once."""
    able, unable = [], {}
    for name, make in PEERS.items():
        if shutil.which(name) is None:
            unable[name] = "not installed"
            continue
        try:
            command = make(rootfs, program)
        except (Error, OSError, subprocess.SubprocessError) as e:
            unable[name] = f"cannot be set up: {e}"
            continue
        try:
            command.once()
        except (Error, OSError) as e:
            command.close()
            unable[name] = f"cannot run here: {e}"
            continue
        able.append(command)
    return able, unable


def bwrap(rootfs: str, program: str) -> Command:
    """bubblewrap with every namespace but user."""
    words = "bwrap --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try".split()
    words += ["--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", program]
    return Command("bwrap", lambda _: words)


def unshare(rootfs: str, program: str) -> Command:
    """util-linux's unshare, and chroot."""
    words = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork"]
    return Command("unshare", lambda _: [*words, "chroot", rootfs, program])


def oci(runtime: str) -> Callable[[str, str], Command]:
    """runc and crun: a bundle of their own default spec, without a terminal."""

    def make(rootfs: str, program: str) -> Command:
        bundle = tempfile.mkdtemp(prefix=f"minicontainer-{runtime}-")
        subprocess.run([runtime, "spec"], cwd=bundle, check=True, capture_output=True)
        path = os.path.join(bundle, "config.json")
        with open(path, encoding="utf-8") as f:
            config = json.load(f)
        config["process"] |= {"terminal": False, "args": [program]}
        config["root"] = {"path": rootfs, "readonly": False}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        name = f"minicontainer-compare-{os.getpid()}"
        argv = [runtime, "run", "--bundle", bundle]
        return Command(runtime, lambda n: [*argv, f"{name}-{n}"], lambda: shutil.rmtree(bundle))

    return make


def podman(rootfs: str, program: str) -> Command:
    """podman on the same directory, without a network."""
    words = ["podman", "run", "--rm", "--network", "none", "--rootfs", rootfs, program]
    return Command("podman", lambda _: words)


def docker(rootfs: str, program: str) -> Command:
    """docker, with the directory imported as an image."""
    image = f"minicontainer-compare-{os.getpid()}"
    with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", image], stdin=tar.stdout, check=True, capture_output=True)
    words = ["docker", "run", "--rm", "--network", "none", image, program]

    def remove() -> None:
        subprocess.run(["docker", "rmi", "--force", image], check=False, capture_output=True)

    return Command("docker", lambda _: words, remove)


PEERS: dict[str, Callable[[str, str], Command]] = {
    "bwrap": bwrap,
    "unshare": unshare,
    "crun": oci("crun"),
    "runc": oci("runc"),
    "podman": podman,
    "docker": docker,
}
