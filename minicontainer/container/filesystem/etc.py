"""The container's /etc/hosts, /etc/hostname and /etc/resolv.conf: files mounted over those of ROOTFS where the
container has a network. The hosts file of a network is written by network/hosts.py."""

from __future__ import annotations

from minicontainer import plan as p
from minicontainer.container.filesystem.mounting import CLONE, DEV, mount_on
from minicontainer.errors import SpecError
from minicontainer.linux.userns import is_root
from minicontainer.plan import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.plan import Builder
    from minicontainer.spec import Spec
else:
    from minicontainer.records import NamedTuple

UPLINK = "/run/systemd/resolve/resolv.conf"  # the servers that systemd-resolved forwards to (its stub is 127.0.0.53)
BYTES_MAX = 1 << 20  # bytes that are read of a file of the host


class EtcFile(NamedTuple):
    """One file; with None as ``content``, the network's hosts file."""

    name: str
    content: str | None

    @property
    def path(self) -> str:
        """The path inside, which may be a link in ROOTFS."""
        return f"/etc/{self.name}"


def files(spec: Spec, hostname: str) -> tuple[EtcFile, ...]:
    """The files that a container of ``spec`` gets: none where the spec mounts something else on the path."""
    of_peer: dict[str, str | None] | None = spec.__dict__.get("_peer_etc")  # with --network container:NAME
    texts = contents(spec, hostname) if of_peer is None else of_peer
    etc_files = tuple(EtcFile(name, content) for name, content in texts.items())
    if not etc_files or not spec.mounts:
        return etc_files
    from minicontainer.container.filesystem.view import View

    with View(spec) as view:
        return tuple(file for file in etc_files if not view.is_mounted_on(file.path))


def contents(spec: Spec, hostname: str) -> dict[str, str | None]:
    """The files' contents by name; None: the network's hosts file."""
    texts: dict[str, str | None] = {}
    if spec.network != "none" or spec.dns:
        texts["resolv.conf"] = resolv_conf(spec)
    if spec.attached:
        texts["hostname"] = f"{hostname}\n"
    if spec.attached and is_root():
        texts["hosts"] = None
    elif spec.attached or spec.add_hosts or spec.network == "host":
        texts["hosts"] = _hosts(spec, hostname)
    return texts


def _hosts(spec: Spec, hostname: str) -> str:
    """hosts(5) of a container without the hosts file of a network: localhost (with the host's network, the host's
    lines), the container's host name, and ``spec.add_hosts``."""
    from minicontainer.network.hosts import LOCALHOST, text
    from minicontainer.spec.network import HOST_GATEWAY

    lines = [] if spec.joined("uts") else [("127.0.1.1", hostname)]
    for name, address in spec.add_hosts.items():
        if address == HOST_GATEWAY and spec.network != "host":
            reason = "has no address here: the host is reached from networks of root's"
            raise SpecError("add_hosts", f"{name}:{address}", reason, "give an address")
        lines.append(("127.0.0.1" if address == HOST_GATEWAY else address, name))
    return (_read("/etc/hosts") if spec.network == "host" else text(LOCALHOST)).rstrip("\n") + "\n" + text(lines)


def resolv_conf(spec: Spec) -> str:
    """resolv.conf(5) of the host, with the servers of ``spec.dns``. Without these, a container on a network gets no
    server on the host's loopback, which it cannot reach."""
    lines = _read("/etc/resolv.conf").splitlines()
    if spec.attached and not _reachable(lines):
        lines = _read(UPLINK).splitlines() or lines
    options = [line for line in lines if line.split()[:1] and line.split()[0] in ("search", "domain", "options")]
    if spec.dns:
        servers = [f"nameserver {server}" for server in spec.dns]
    else:
        servers = _reachable(lines) if spec.attached else [line for line in lines if line.startswith("nameserver")]
    return "".join(f"{line}\n" for line in [*servers, *options])


def _reachable(lines: list[str]) -> list[str]:
    """The nameserver lines whose address is not on the loopback."""
    servers = [line for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    return [line for line in servers if not line.split()[1].startswith(("127.", "::1"))]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return f.read(BYTES_MAX)
    except OSError:
        return ""


def attach(b: Builder, files: tuple[EtcFile, ...]) -> None:
    """Mounts the files. A file with content is created in /dev, opened as a detached mount, and unlinked again."""
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
