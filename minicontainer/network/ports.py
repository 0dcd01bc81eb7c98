"""Reserves published ports of the host, each by a bound socket that does not listen: so no other program can bind the
port, and a port that is in use is refused."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from minicontainer.errors import SpecError, StepError
from minicontainer.spec import Port

ANY, ANY6 = "0.0.0.0", "::"
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def bind(ports: Sequence[Port], fds: list[int], *, ipv6: bool) -> tuple[Port, ...]:
    """Binds each port, or a free one if the number is 0; the sockets are appended to ``fds``. Returns the bound ports:
    for any address, one of IPv4 and one of IPv6, if network (``ipv6``) and host have IPv6. SpecError: a port is
    taken."""
    return tuple(bound for port in ports for bound in _bind_port(port, fds, ipv6))


def _bind_port(port: Port, fds: list[int], ipv6: bool) -> Iterator[Port]:
    if port.address:
        if ":" in port.address and not ipv6:
            raise SpecError("ports", port, "the network has no IPv6", "a network without --no-ipv6, or an IPv4 address")
        yield _detach(port, _bind(port), fds)
        return
    four, six = (replace(port, address=address) for address in (ANY, ANY6))
    if not ipv6 or not _is_available(six):
        yield _detach(four, _bind(four), fds)
        return
    with ExitStack() as unused:
        while True:
            s = unused.enter_context(_bind(four))
            try:
                other = _bind(replace(six, host=s.getsockname()[1]))
            except SpecError:
                if port.host:
                    raise
                continue  # taken in IPv6: try another number, while this socket occupies the first
            yield _detach(four, s, fds)
            yield _detach(six, other, fds)
            return


def _is_available(port: Port) -> bool:
    """Whether this host can bind the address."""
    try:
        _bind(replace(port, host=0)).close()
    except (SpecError, StepError):
        return False
    return True


def _detach(port: Port, s: socket.socket, fds: list[int]) -> Port:
    number: int = s.getsockname()[1]
    fds.append(s.detach())
    return replace(port, host=number)


def _bind(port: Port) -> socket.socket:
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    try:
        s = socket.socket(family, KINDS[port.protocol] | socket.SOCK_CLOEXEC)
    except OSError as e:
        raise _bind_error(port, e) from None
    try:
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((port.address, port.host))
    except OSError as e:
        s.close()
        raise _bind_error(port, e) from None
    return s


def _bind_error(port: Port, error: OSError) -> Exception:
    where = f"{port.where}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        from minicontainer.network import members

        owner = members.publisher(port)
        reason = f"is taken by {owner}" if owner else "is taken by another program of this host"
        return SpecError("ports", where, reason, "another port, or none: a free one")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return SpecError("ports", where, "is no address of this host")
    if error.errno == errno.EMFILE:
        return StepError(errno.EMFILE, f"bind({where})", hint="each published port takes a descriptor: ulimit -n")
    return StepError(error.errno or errno.EIO, f"bind({where!r})", hint=os.strerror(error.errno or 0))
