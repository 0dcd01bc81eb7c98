"""The network of an ordinary user's container: a program in user space that speaks for it, slirp4netns(1) or pasta(1).

Both are given the child's pid while it waits (the parent-side plan), and stay until it ends, under a supervisor of ours
(csrc/helpers/usernet.c), which also asks slirp4netns to forward ports. The container then has a network of its own,
with nobody on it, and a way out; what listens on the host's loopback alone is shut to it.
"""

from __future__ import annotations

import os
import shutil
from ipaddress import ip_address

from minicontainer.container.child import Child
from minicontainer.container.network.veth import Wire
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.native import LIBEXEC
from minicontainer.spec import Port, Spec

HELPER = f"{LIBEXEC}/usernet"
TUN = "/dev/net/tun"
ADDRESS, DNS = "10.0.2.100", "10.0.2.3"  # of slirp4netns --configure
INTERFACE = "eth0"


def wire_of(spec: Spec) -> Wire:
    """The wire of a spec that names the network ``bridge``. UnsupportedError for what only root's networks can, and
    where neither program is there."""
    if spec.attached != "bridge":
        raise UnsupportedError(
            "network", spec.attached, "bridges are root's", "--network bridge, by slirp4netns or pasta"
        )
    for name, value in (("ip", spec.ip), ("mac_address", spec.mac_address)):
        if value:
            raise UnsupportedError(name, value, "an ordinary user's network has its own", "leave it out")
    for port in spec.ports:
        if port.protocol == "udp" and port.address and ip_address(port.address).is_loopback:
            reason = "nothing answers the host's loopback by UDP: it is shut to the container"
            raise UnsupportedError("ports", port, reason, "leave the address out")
        if not port.host:
            reason = "has no port of the host"
            raise UnsupportedError("ports", port.number, reason, f"-p 8080:{port.number}, as an ordinary user")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise UnsupportedError("network", "bridge", f"needs {TUN}, which cannot be opened", "as root: modprobe tun")
    return Wire(spec.attached, program=_program(spec))


def _program(spec: Spec) -> tuple[str, ...]:
    pasta, slirp = shutil.which("pasta"), shutil.which("slirp4netns")
    if slirp and not (pasta and any(":" in port.address for port in spec.ports)):  # which forwards by IPv4 alone
        for port in spec.ports:
            if ":" in port.address:
                raise UnsupportedError("ports", port, "slirp4netns forwards by IPv4 alone", "install passt")
        return (HELPER, slirp, INTERFACE, *map(_request, spec.ports))
    if pasta:
        return (HELPER, pasta, "--", *_options(spec))
    reason = "as an ordinary user, a network is made by slirp4netns or pasta, and neither is here"
    raise UnsupportedError("network", "bridge", reason, "install slirp4netns (or passt), or run as root")


def _options(spec: Spec) -> list[str]:
    """pasta's: forwards what was asked for, and nothing of itself."""
    words = ["--quiet", "--config-net", "--ns-ifname", INTERFACE, "--no-map-gw", "-T", "none", "-U", "none"]
    for option, protocol in (("-t", "tcp"), ("-u", "udp")):
        wanted = [port for port in spec.ports if port.protocol == protocol]
        ports = [f"{port.address + '/' * bool(port.address)}{port.host}:{port.number}" for port in wanted]
        words += [option, ",".join(ports) or "none"]
    return words


def refusal(child: Child, spec: Spec) -> Error:
    """What the program had to say that did not connect ``child``."""
    told = os.pread(child.said, 4096, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    for port in spec.ports:
        if "add_hostfwd" in told and told.startswith(_request(port)):
            reason = "cannot be had: another program has it, or it is below net.ipv4.ip_unprivileged_port_start"
            return SpecError("ports", port, reason, "another port of the host")
    return UnsupportedError("network", spec.network, told or "ended without a word")


def _request(port: Port) -> str:
    import json

    where = {"host_addr": port.address or "0.0.0.0", "host_port": port.host}
    told = {"proto": port.protocol, **where, "guest_port": port.number}
    return json.dumps({"execute": "add_hostfwd", "arguments": told})
