"""What networks need: for root nftables and bridges, for ordinary users slirp4netns or pasta."""

from __future__ import annotations

import os
import shutil

from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.linux.userns import is_root
from minicontainer.network.bridge import read_sysctl

BRIDGED = "bridge/bridge-nf-call-iptables"


def probes() -> list[Probe]:
    """The probes for the caller."""
    own = [Probe("nftables", nftables), Probe("bridge", bridge)] if is_root() else [Probe("in user space", user)]
    return [*own, Probe("bridge-nf-call-iptables", bridged)]


def nftables() -> Verdict:
    """Whether libnftables is installed and permitted."""
    from minicontainer.linux import nftables
    from minicontainer.network import firewall

    found = nftables.run("list tables").get("nftables", [])
    others = [item["table"]["name"] for item in found if "table" in item and item["table"]["name"] != firewall.table()]
    return ok(f"besides {len(others)} tables of other programs" if others else "")


def bridge() -> Verdict:
    """Create a bridge and a veth pair, in a network namespace of a thread."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_bridge).result()


def _bridge() -> Verdict:
    from pyroute2 import IPRoute, NetlinkError

    from minicontainer.linux.namespaces import unshare

    unshare("CLONE_NEWNET")
    with IPRoute() as ip:
        for kind, more in (("bridge", {}), ("veth", {"peer": "mc1"})):
            try:
                ip.link("add", ifname=f"mc{kind}"[:12], kind=kind, **more)
            except NetlinkError as e:
                return no(f"{kind}: {os.strerror(e.code)}", f"modprobe {kind}")
    return ok()


def user() -> Verdict:
    """Whether slirp4netns or pasta is installed, and their device usable."""
    found = [name for name in ("slirp4netns", "pasta") if shutil.which(name)]
    if not found:
        return no("neither slirp4netns nor pasta is installed", "install slirp4netns or passt")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return no("/dev/net/tun cannot be opened", "as root: modprobe tun")
    return ok(f"by {found[0]}")


def bridged() -> Verdict:
    """Whether packets between containers pass the host's firewall (br_netfilter)."""
    if read_sysctl(BRIDGED) != "1":
        return ok("packets within a bridge do not pass the firewall")
    detail = "packets within a bridge pass the firewall: a container cannot reach its own published port"
    return note(detail, f"sysctl net.{BRIDGED.replace('/', '.')}=0, unless docker or Kubernetes needs it")
