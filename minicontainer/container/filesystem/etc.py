"""The container's /etc/hosts, /etc/hostname and /etc/resolv.conf: files of its own over those of ROOTFS, for who has a
network; what the files of a network's other containers say of it is not here (network/hosts.py)."""

from __future__ import annotations

from typing import NamedTuple

from minicontainer import plan as p
from minicontainer.container.filesystem.mounting import CLONE, DEV, mount_on
from minicontainer.container.filesystem.view import View
from minicontainer.errors import SpecError
from minicontainer.linux import namespaces
from minicontainer.network.hosts import LOCALHOST, text
from minicontainer.plan import Builder, Slot
from minicontainer.spec import Spec
from minicontainer.spec.network import HOST_GATEWAY

STUB = "/run/systemd/resolve/resolv.conf"  # what systemd-resolved asks, where it is asked itself at 127.0.0.53
MOST = 1 << 20  # bytes of such a file


class EtcFile(NamedTuple):
    """One of them; None as ``content`` is the network's hosts file."""

    name: str
    content: str | None

    @property
    def path(self) -> str:
        """Its place, from which links of ROOTFS may lead on."""
        return f"/etc/{self.name}"


def files(spec: Spec, hostname: str) -> tuple[EtcFile, ...]:
    """Those that a container of ``spec`` gets."""
    of_peer: dict[str, str | None] | None = spec.__dict__.get("_peer_etc")  # of the container whose network it joins
    texts = contents(spec, hostname) if of_peer is None else of_peer
    etc_files = tuple(EtcFile(name, content) for name, content in texts.items())
    if not etc_files or not spec.mounts:
        return etc_files
    with View(spec) as view:
        return tuple(file for file in etc_files if not view.is_mounted_on(file.path))


def contents(spec: Spec, hostname: str) -> dict[str, str | None]:
    """By name; None: the network's hosts file."""
    found: dict[str, str | None] = {}
    if spec.network != "none" or spec.dns:
        found["resolv.conf"] = resolv_conf(spec)
    if spec.attached:
        found["hostname"] = f"{hostname}\n"
    if spec.attached and namespaces.is_root():
        found["hosts"] = None
    elif spec.attached or spec.add_hosts or spec.network == "host":
        found["hosts"] = _hosts(spec, hostname)
    return found


def _hosts(spec: Spec, hostname: str) -> str:
    """hosts(5), where no network's is shown: its own name, the host's lines where it is on the host's network, and
    what was asked for."""
    own = [] if spec.joined("uts") else [("127.0.1.1", hostname)]
    for name, where in spec.add_hosts.items():
        if where == HOST_GATEWAY and spec.network != "host":
            reason = "has no address here: the host is reached from networks of root's"
            raise SpecError("add_hosts", f"{name}:{where}", reason, "give an address")
        own.append(("127.0.0.1" if where == HOST_GATEWAY else where, name))
    return (_read("/etc/hosts") if spec.network == "host" else text(LOCALHOST)).rstrip("\n") + "\n" + text(own)


def resolv_conf(spec: Spec) -> str:
    """resolv.conf(5) of the host; with servers that were asked for, else without those that are on the host alone,
    which a network of its own does not reach."""
    lines = _read("/etc/resolv.conf").splitlines()
    if spec.attached and not _reachable(lines):
        lines = _read(STUB).splitlines() or lines
    kept = [line for line in lines if line.split()[:1] and line.split()[0] in ("search", "domain", "options")]
    if spec.dns:
        servers = [f"nameserver {server}" for server in spec.dns]
    else:
        servers = _reachable(lines) if spec.attached else [line for line in lines if line.startswith("nameserver")]
    return "".join(f"{line}\n" for line in [*servers, *kept])


def _reachable(lines: list[str]) -> list[str]:
    found = [line for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    return [line for line in found if not line.split()[1].startswith(("127.", "::1"))]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return f.read(MOST)
    except OSError:
        return ""


def attach(b: Builder, files: tuple[EtcFile, ...]) -> None:
    """Puts them in their places. One that is made here was a file of /dev for a moment."""
    b.phase = "/etc"
    for file in files:
        tree = Slot(file.name)
        if file.content is None:
            tree = b.input("hosts")
        else:
            _make(b, file.name, file.content, tree)
        mount_on(b, tree, file.path, f"etc-{file.name}", is_file=True)
        if file.content is not None:
            b.add(p.call("unlinkat", DEV, file.name, 0))


def _make(b: Builder, name: str, content: str, tree: Slot) -> None:
    fd = Slot(f"new-{name}")
    b.add(p.openat(name, "O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC", fd, at=DEV, mode=0o644))
    if content:
        b.add(p.write(fd, content))
    b.add(p.close(fd), p.open_tree(name, CLONE, tree, at=DEV))
