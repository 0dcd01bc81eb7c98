"""The socket of a machine in its container's directory, by which clients of the host reach ports of the guest.

The monitor of the machine serves it (csrc/virtio/vsock.h): ``CONNECT PORT``, ``OK HOSTPORT``, then bytes.
"""

from __future__ import annotations

import os
import socket

from minicontainer.errors import Error

NAME = "vsock"
WAITING = 64  # clients that are not accepted yet
TIMEOUT = 60.0  # seconds for an answer of the guest


def listen(directory: int) -> int:
    """A listening socket in a container's directory, which only its owner can use; the caller closes it."""
    try:
        os.unlink(NAME, dir_fd=directory)
    except FileNotFoundError:
        pass
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        os.fchmod(listener.fileno(), 0o600)  # of the file, when it is made
        listener.bind(_path(directory))
        listener.listen(WAITING)
        return listener.detach()


def connect(directory: int, port: int) -> socket.socket:
    """A connection to a port of the guest, with TIMEOUT. Error: nobody listens there."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(TIMEOUT)
        client.connect(_path(directory))
        client.sendall(b"CONNECT %d\n" % port)
        if not _line(client).startswith(b"OK "):
            raise Error(f"vsock: nobody listens at port {port} of the guest")
    except BaseException:
        client.close()
        raise
    return client


def _line(client: socket.socket) -> bytes:
    """The answer, and no byte behind it: those are the guest's. b"": there is none."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            byte = client.recv(1)
        except ConnectionResetError:
            byte = b""
        if not byte:
            return b""
        line += byte
    return line


def _path(directory: int) -> str:
    """Fits into sun_path (unix(7)), whatever the path's length."""
    return f"/proc/self/fd/{directory}/{NAME}"
