"""Netfilter messages (netlink(7), linux/netfilter/nfnetlink.h) as bytes: changes of nftables maps, and deletion of
tracked connections. This module sends nothing.

All messages of one datagram have the sequence number SEQUENCE; one of them requests an acknowledgement.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from minicontainer.native import lib

SEQUENCE = 1
HEAD = struct.Struct("=IHHII")  # struct nlmsghdr
GENERIC = struct.Struct("=BBH")  # struct nfgenmsg; the last field is big-endian
NESTED = 0x8000  # NLA_F_NESTED


def attribute(kind: int, data: bytes) -> bytes:
    """struct nlattr, and its padding."""
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that contains attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def message(kind: int, flags: int, family: int, resource: int, *parts: bytes) -> bytes:
    """A message of a netfilter subsystem."""
    body = GENERIC.pack(family, lib.NFNETLINK_V0, socket_order(resource)) + b"".join(parts)
    return HEAD.pack(HEAD.size + len(body), kind, flags | lib.NLM_F_REQUEST, SEQUENCE, 0) + body


def socket_order(number: int) -> int:
    """16 bits in network byte order."""
    return int(struct.unpack("=H", struct.pack("!H", number))[0])


def elements(table: str, map_: str, pairs: list[tuple[bytes, bytes]], *, remove: bool = False) -> bytes:
    """A transaction that adds elements to a map in a table of the family inet, or removes them: all or none (EEXIST,
    ENOENT). Each element is a key and a value, whose fields are padded to four bytes (``concatenation``)."""
    listed = []
    for key, value in pairs:
        parts = [nested(lib.NFTA_SET_ELEM_KEY, attribute(lib.NFTA_DATA_VALUE, key))]
        if not remove:
            parts.append(nested(lib.NFTA_SET_ELEM_DATA, attribute(lib.NFTA_DATA_VALUE, value)))
        listed.append(nested(lib.NFTA_LIST_ELEM, *parts))
    flags = lib.NLM_F_ACK | (0 if remove else lib.NLM_F_CREATE | lib.NLM_F_EXCL)
    kind = lib.NFNL_SUBSYS_NFTABLES << 8 | (lib.NFT_MSG_DELSETELEM if remove else lib.NFT_MSG_NEWSETELEM)
    change = message(
        kind,
        flags,
        lib.NFPROTO_INET,
        0,
        attribute(lib.NFTA_SET_ELEM_LIST_TABLE, table.encode() + b"\0"),
        attribute(lib.NFTA_SET_ELEM_LIST_SET, map_.encode() + b"\0"),
        nested(lib.NFTA_SET_ELEM_LIST_ELEMENTS, *listed),
    )
    begin, end = (
        message(kind, 0, 0, lib.NFNL_SUBSYS_NFTABLES) for kind in (lib.NFNL_MSG_BATCH_BEGIN, lib.NFNL_MSG_BATCH_END)
    )
    return begin + change + end


def concatenation(*fields: bytes) -> bytes:
    """A key or value of several fields."""
    return b"".join(field + b"\0" * (-len(field) % 4) for field in fields)


# CTA_FILTER_F_* of net/netfilter/nf_conntrack_netlink.c: the fields of a tuple that a filter compares. Never an IPv6
# address: ctnetlink_filter_match_tuple() misreads the result of ipv6_addr_cmp(), so (at least in Linux 5.8 to 6.18) the
# filter matches every connection except those with that address (findings/ctnetlink-ipv6-filter.sh).
BY_SOURCE, BY_TARGET, BY_PROTOCOL, BY_TARGET_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5


def end_answers(source: IPv4Address) -> bytes:
    """A message that deletes every tracked connection whose replies come from ``source``."""
    return _end_flows(4, lib.CTA_TUPLE_REPLY, BY_SOURCE, _ip(lib.CTA_IP_V4_SRC, source))


def end_flows(
    version: int, protocol: int, port: int, target: IPv4Address | None = None, *, status: int = 0, mask: int
) -> bytes:
    """A message that deletes the tracked connections of an IP ``version`` and a ``protocol`` whose original destination
    is ``port`` (and ``target``), and whose status bits (IPS_SRC_NAT, IPS_DST_NAT) in ``mask`` equal ``status``."""
    of_protocol = attribute(lib.CTA_PROTO_NUM, bytes([protocol]))
    to_port = attribute(lib.CTA_PROTO_DST_PORT, struct.pack("!H", port))
    flags, parts = BY_PROTOCOL | BY_TARGET_PORT, [nested(lib.CTA_TUPLE_PROTO, of_protocol, to_port)]
    if target is not None:
        flags |= BY_TARGET
        parts.insert(0, _ip(lib.CTA_IP_V4_DST, target))
    bits = ((lib.CTA_STATUS, status), (lib.CTA_STATUS_MASK, mask))
    more = b"".join(attribute(kind, struct.pack("!I", value)) for kind, value in bits)
    return _end_flows(version, lib.CTA_TUPLE_ORIG, flags, *parts, more=more)


def _ip(kind: int, address: IPv4Address) -> bytes:
    return nested(lib.CTA_TUPLE_IP, attribute(kind, address.packed))


def _end_flows(version: int, tuple_: int, flags: int, *parts: bytes, more: bytes = b"") -> bytes:
    compared = (flags, 0) if tuple_ == lib.CTA_TUPLE_ORIG else (0, flags)
    filters = zip((lib.CTA_FILTER_ORIG_FLAGS, lib.CTA_FILTER_REPLY_FLAGS), compared, strict=True)
    return message(
        lib.NFNL_SUBSYS_CTNETLINK << 8 | lib.IPCTNL_MSG_CT_DELETE,
        lib.NLM_F_ACK,
        lib.AF_INET if version == 4 else lib.AF_INET6,
        0,
        nested(tuple_, *parts),
        nested(lib.CTA_FILTER, *(attribute(kind, struct.pack("=I", value)) for kind, value in filters)),
        more,
    )
