"""Other runtimes, if they are installed and work here: a comparable container of each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minicontainer.compare.contenders import Command, last_line
from minicontainer.errors import Error
from minicontainer.linux import mount, unshare
from minicontainer.linux.cgroupfs import unified

CGROUPS = "/sys/fs/cgroup"


Words = Sequence[str]
Make = Callable[[str, Words, str], Command]  # from ROOTFS, the program and its arguments, a directory for files


def peer(name: str, rootfs: str, program: Words, scratch: str, make: Make | None = None) -> Command | str:
    """The runtime ``name``, after one successful run; or why it cannot be measured. ``scratch``: a directory for files;
    ``make``: a function that makes the command instead of the fastest variant."""
    if shutil.which(name) is None:
        return "not installed"
    try:
        command = (make or PEERS[name])(rootfs, program, scratch)
    except subprocess.CalledProcessError as e:
        return f"cannot be set up: {last_line(e.stderr) or e}"
    except OSError as e:
        return f"cannot be set up: {e}"
    try:
        command.once()
    except (Error, OSError) as e:
        command.close()
        return f"cannot run here: {e}"
    return command


class CgroupView(Command):
    """A command started by a thread in whose mount namespace only the cgroup2 hierarchy is at /sys/fs/cgroup."""

    def __init__(self, name: str, argv: Callable[[int], list[str]]) -> None:
        super().__init__(name, argv)
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    @staticmethod
    def _enter() -> None:
        source = unified().path
        unshare("CLONE_NEWNS")
        mount(None, "/", None, "MS_REC|MS_PRIVATE")
        mount(source, CGROUPS, None, "MS_BIND")

    def once(self) -> tuple[int, ...]:
        """As Contender."""
        return self._thread.submit(super().once).result()

    def output(self, prefix: Words, **options: Any) -> bytes:
        """As Command."""
        return self._thread.submit(super().output, prefix, **options).result()

    def close(self) -> None:
        """As Contender."""
        self._thread.shutdown()
        super().close()


# ---- the runtimes


def bwrap(rootfs: str, program: Words, _scratch: str) -> Command:
    """bubblewrap with every namespace but user."""
    words = "bwrap --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try".split()
    words += ["--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", *program]
    return Command("bwrap", lambda _: words)


def util_linux(rootfs: str, program: Words, _scratch: str) -> Command:
    """unshare(1) with every namespace but user, and chroot(1)."""
    words = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork"]
    return Command("unshare", lambda _: [*words, "chroot", rootfs, *program])


def runc(rootfs: str, program: Words, scratch: str, *, resources: bool = False) -> Command:
    """runc with its own default bundle."""
    return Command("runc", oci("runc", rootfs, program, scratch, resources=resources))


def crun(rootfs: str, program: Words, scratch: str, *, resources: bool = False) -> Command:
    """crun with its own default bundle; it refuses hybrid hosts whose cgroup2 has a controller."""
    kind = Command if unified().path == CGROUPS else CgroupView
    return kind("crun", oci("crun", rootfs, program, scratch, resources=resources))


def oci(
    runtime: str, rootfs: str, program: Words, scratch: str, *, resources: bool = False
) -> Callable[[int], list[str]]:
    """The command lines that run a bundle of the runtime's default spec, without a terminal. ``resources``: with the
    default resources of the spec, which are a device filter."""
    bundle = os.path.join(scratch, runtime)
    os.mkdir(bundle)
    subprocess.run([runtime, "spec"], cwd=bundle, check=True, capture_output=True)
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["process"] |= {"terminal": False, "args": [*program]}
    config["root"] = {"path": rootfs, "readonly": False}
    if not resources:
        config["linux"].pop("resources", None)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    name = f"minicontainer-compare-{os.getpid()}"
    return lambda n: [runtime, "run", "--bundle", bundle, f"{name}-{n}"]


def podman(rootfs: str, program: Words, _scratch: str) -> Command:
    """podman on the same directory, without a network."""
    words = ["podman", "run", "--rm", "--network", "none", "--rootfs", rootfs, *program]
    return Command("podman", lambda _: words)


def docker(rootfs: str, program: Words, _scratch: str) -> Command:
    """docker, with the directory imported as an image."""
    image = f"minicontainer-compare-{os.getpid()}"
    with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", image], stdin=tar.stdout, check=True, capture_output=True)
    words = ["docker", "run", "--rm", "--network", "none", image, *program]

    def remove() -> None:
        subprocess.run(["docker", "rmi", "--force", image], check=False, capture_output=True)

    return Command("docker", lambda _: words, remove)


PEERS: dict[str, Make] = {
    "bwrap": bwrap,
    "unshare": util_linux,
    "crun": crun,
    "runc": runc,
    "podman": podman,
    "docker": docker,
}
