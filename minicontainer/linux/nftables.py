"""nftables (nft(8)) by libnftables, which is opened when a command has to be run."""

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
    """cffi's view of the library, and the library. UnsupportedError where this host has none."""
    from minicontainer._libnftables import ffi

    try:
        return ffi, ffi.dlopen(SONAME)
    except OSError as e:
        raise UnsupportedError("network", None, f"needs nftables, whose library is not here: {e}", REMEDY) from None


def run(commands: str) -> dict[str, Any]:
    """One transaction of nft(8)'s commands: all are done, or none. What they list, as libnftables-json(5) has it.
    NftablesError with the library's own words."""
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
        said = ffi.string(library.nft_ctx_get_error_buffer(context)).decode("utf-8", "replace")
        if failed:
            raise NftablesError(f"nftables: {_first_line(said)}")
        listed = ffi.string(library.nft_ctx_get_output_buffer(context)).decode("utf-8", "replace")
    finally:
        library.nft_ctx_free(context)
    if not listed:
        return {}
    import json

    found: dict[str, Any] = json.loads(listed)
    return found


def _check_permitted() -> None:
    """The library would say on stderr that this process may not: so it is asked for something harmless before."""
    told = nfnetlink.message(lib.NFNL_SUBSYS_NFTABLES << 8 | lib.NFT_MSG_GETGEN, lib.NLM_F_ACK, 0, 0)
    with socket.socket(lib.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, lib.NETLINK_NETFILTER) as s:
        s.send(told)
        kind, number = struct.unpack_from("=4xH10xi", s.recv(4096))
    if kind == lib.NLMSG_ERROR and number < 0:
        reason = f"nftables refuses: {os.strerror(-number).lower()}"
        raise UnsupportedError("network", None, reason, "run it as root")


def _first_line(said: str) -> str:
    """Of "NAME:1:2-3: Error: reason", the reason."""
    line = said.strip().partition("\n")[0]
    return line.rpartition("Error: ")[2] or "refused without a word"
