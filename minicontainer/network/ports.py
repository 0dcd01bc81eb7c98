"""Ports of the host that are published: each is held by a socket that is bound and hears nothing, so that no program of
the host can have it too, and none that has it is robbed."""

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


def hold(ports: Sequence[Port], fds: list[int], *, ipv6: bool) -> tuple[Port, ...]:
    """Binds each, a free one where none was asked for; ``fds`` gets the sockets. What they are then: of any address,
    one of IPv4 and one of IPv6, where the network has it (``ipv6``) and the host. SpecError: another has it."""
    return tuple(held for port in ports for held in _hold(port, fds, ipv6))


def _hold(port: Port, fds: list[int], ipv6: bool) -> Iterator[Port]:
    if port.address:
        if ":" in port.address and not ipv6:
            raise SpecError("ports", port, "the network has no IPv6", "a network without --no-ipv6, or an IPv4 address")
        yield _keep(port, _bound(port), fds)
        return
    four, six = (replace(port, address=address) for address in (ANY, ANY6))
    if not ipv6 or not _can_be_had(six):
        yield _keep(four, _bound(four), fds)
        return
    with ExitStack() as missed:
        while True:
            s = missed.enter_context(_bound(four))
            try:
                other = _bound(replace(six, host=s.getsockname()[1]))
            except SpecError:
                if port.host:
                    raise
                continue  # somebody has that of IPv6: another one, while this one is kept from being tried again
            yield _keep(four, s, fds)
            yield _keep(six, other, fds)
            return


def _can_be_had(port: Port) -> bool:
    """Whether this host binds an address at all."""
    try:
        _bound(replace(port, host=0)).close()
    except (SpecError, StepError):
        return False
    return True


def _keep(port: Port, s: socket.socket, fds: list[int]) -> Port:
    number: int = s.getsockname()[1]
    fds.append(s.detach())
    return replace(port, host=number)


def _bound(port: Port) -> socket.socket:
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    try:
        s = socket.socket(family, KINDS[port.protocol] | socket.SOCK_CLOEXEC)
    except OSError as e:
        raise _refusal(port, e) from None
    try:
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((port.address, port.host))
    except OSError as e:
        s.close()
        raise _refusal(port, e) from None
    return s


def _refusal(port: Port, error: OSError) -> Exception:
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
