"""The network of an ordinary user's container: a user-space network stack, slirp4netns(1) or pasta(1).

The parent-side plan starts the program with the child's pid while the child waits. A supervisor
(csrc/helpers/usernet.c) runs it until the child ends, and asks slirp4netns to forward ports. The container is alone on
its network and can reach the outside, but no server that listens on the host's loopback only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from ipaddress import ip_address

from minicontainer.container.child import Child
from minicontainer.container.network.fixed import INTERFACE, PASTA
from minicontainer.container.network.veth import Endpoint
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.native import LIBEXEC
from minicontainer.spec import Port, Spec

HELPER = f"{LIBEXEC}/usernet"
TUN = "/dev/net/tun"
CONFIGURE = ("--configure", "--config-net")  # slirp4netns's and pasta's option to give the interface its addresses


def endpoint_of(spec: Spec) -> Endpoint:
    """The endpoint of a spec that names the network ``bridge``. UnsupportedError for options that need a bridge, and
    where neither program is installed."""
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
    return Endpoint(spec.attached, program=_program(spec))


def _program(spec: Spec) -> tuple[str, ...]:
    pasta, slirp = shutil.which("pasta"), shutil.which("slirp4netns")
    # slirp4netns forwards IPv4 only
    if slirp and not (pasta and any(":" in port.address for port in spec.ports)):
        for port in spec.ports:
            if ":" in port.address:
                raise UnsupportedError("ports", port, "slirp4netns forwards by IPv4 alone", "install passt")
        return (HELPER, slirp, INTERFACE, CONFIGURE[0], *map(_request, spec.ports))
    if pasta:
        return (HELPER, pasta, "--", *_options(spec))
    reason = "as an ordinary user, a network is made by slirp4netns or pasta, and neither is here"
    raise UnsupportedError("network", "bridge", reason, "install slirp4netns (or passt), or run as root")


def _options(spec: Spec) -> list[str]:
    """pasta's options: they forward the ports of the spec, and no others."""
    options = ["--quiet", CONFIGURE[1], "--ns-ifname", INTERFACE, "--no-map-gw", "-T", "none", "-U", "none"]
    for option, protocol in (("-t", "tcp"), ("-u", "udp")):
        of_protocol = [port for port in spec.ports if port.protocol == protocol]
        ports = [f"{port.address + '/' * bool(port.address)}{port.host}:{port.number}" for port in of_protocol]
        options += [option, ",".join(ports) or "none"]
    return options


def for_guest(endpoint: Endpoint, ports: Sequence[Port]) -> Endpoint:
    """The endpoint whose program leaves the interface without addresses, which are the guest's. UnsupportedError for a
    port of an IPv6 address."""
    for port in ports:
        if ":" in port.address:
            raise UnsupportedError("ports", port, "an ordinary user's guest has IPv4 alone", "an address of IPv4")
    words = [word for word in endpoint.program if word not in CONFIGURE]
    return endpoint._replace(program=(*words, *(PASTA if "--" in words else ())))


def refusal(child: Child, spec: Spec) -> Error:
    """The error where slirp4netns or pasta has failed, from its output."""
    output = os.pread(child.helper_output, 4096, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    for port in spec.ports:
        if "add_hostfwd" in output and output.startswith(_request(port)):
            reason = "cannot be had: another program has it, or it is below net.ipv4.ip_unprivileged_port_start"
            return SpecError("ports", port, reason, "another port of the host")
    return UnsupportedError("network", spec.network, output or "ended without a word")


def _request(port: Port) -> str:
    """The request of slirp4netns(1) API that forwards a port."""
    import json

    on_host = {"host_addr": port.address or "0.0.0.0", "host_port": port.host}
    arguments = {"proto": port.protocol, **on_host, "guest_port": port.number}
    return json.dumps({"execute": "add_hostfwd", "arguments": arguments})
