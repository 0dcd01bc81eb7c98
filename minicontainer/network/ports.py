"""Ports of the host that are published: each is held by a socket that is bound and hears nothing, so that no program of
the host can have it too, and none that has it is robbed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import replace

from minicontainer.errors import SpecError, StepError
from minicontainer.spec import Port

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def hold(ports: Sequence[Port], fds: list[int]) -> tuple[Port, ...]:
    """Binds each, a free one where none was asked for; ``fds`` gets the sockets. SpecError: another has it."""
    return tuple(replace(port, host=_hold(port, fds)) for port in ports)


def _hold(port: Port, fds: list[int]) -> int:
    with socket.socket(socket.AF_INET, KINDS[port.protocol] | socket.SOCK_CLOEXEC) as s:
        try:
            s.bind((port.address or "0.0.0.0", port.host))
        except OSError as e:
            raise _refusal(port, e) from None
        number: int = s.getsockname()[1]
        fds.append(s.detach())
        return number


def _refusal(port: Port, error: OSError) -> Exception:
    where = f"{port.address or '0.0.0.0'}:{port.host}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        from minicontainer.network import members

        owner = members.publisher(port)
        reason = f"is taken by {owner}" if owner else "is taken by another program of this host"
        return SpecError("publish", where, reason, "another port, or none: a free one")
    if error.errno == errno.EADDRNOTAVAIL:
        return SpecError("publish", where, "is no address of this host")
    if error.errno == errno.EMFILE:
        return StepError(errno.EMFILE, f"bind({where})", hint="each published port takes a descriptor: ulimit -n")
    return StepError(error.errno or errno.EIO, f"bind({where!r})", hint=os.strerror(error.errno or 0))
