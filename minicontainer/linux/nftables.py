"""nftables (nft(8)) through libnftables, which is opened at first use."""

from __future__ import annotations

import os
import socket
import struct
from functools import cache
from typing import Any

from minicontainer.errors import Error, UnsupportedError
from minicontainer.linux import nfnetlink
from minicontainer.native import lib

SONAME = "libnftables.so.1"
REMEDY = "install libnftables1 (or nftables)"


class NftablesError(Error):
    """nftables refused a command."""


@cache
def _library() -> tuple[Any, Any]:
    """The cffi ffi object and the opened library. UnsupportedError if it is not installed."""
    from minicontainer._libnftables import ffi

    try:
        return ffi, ffi.dlopen(SONAME)
    except OSError as e:
        raise UnsupportedError("network", None, f"needs libnftables, which cannot be opened: {e}", REMEDY) from None


def run(commands: str) -> dict[str, Any]:
    """Run commands of nft(8) in one transaction: all or none. Returns their listing (libnftables-json(5)).
    NftablesError has the library's message."""
    ffi, library = _library()
    _check_permitted()
    context = library.nft_ctx_new(0)
    if context == ffi.NULL:
        raise MemoryError("nft_ctx_new")
    try:
        library.nft_ctx_output_set_flags(context, library.NFT_CTX_OUTPUT_JSON)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        message = ffi.string(library.nft_ctx_get_error_buffer(context)).decode("utf-8", "replace")
        if failed:
            raise NftablesError(f"nftables: {_first_line(message)}")
        listing = ffi.string(library.nft_ctx_get_output_buffer(context)).decode("utf-8", "replace")
    finally:
        library.nft_ctx_free(context)
    if not listing:
        return {}
    import json

    data: dict[str, Any] = json.loads(listing)
    return data


def _check_permitted() -> None:
    """Send a harmless request first: the library itself would report missing rights on stderr."""
    request = nfnetlink.message(lib.NFNL_SUBSYS_NFTABLES << 8 | lib.NFT_MSG_GETGEN, lib.NLM_F_ACK, 0, 0)
    with socket.socket(lib.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, lib.NETLINK_NETFILTER) as s:
        s.send(request)
        kind, number = struct.unpack_from("=4xH10xi", s.recv(4096))
    if kind == lib.NLMSG_ERROR and number < 0:
        reason = f"nftables refuses: {os.strerror(-number).lower()}"
        raise UnsupportedError("network", None, reason, "run it as root")


def _first_line(message: str) -> str:
    """The reason in "NAME:1:2-3: Error: reason"."""
    line = message.strip().partition("\n")[0]
    return line.rpartition("Error: ")[2] or "refused without a reason"
