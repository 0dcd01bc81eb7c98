#!/bin/sh
# ctnetlink's filter by an address of IPv6 is the wrong way round: it is met by every tracked connection but those with that
# address (net/netfilter/nf_conntrack_netlink.c, ctnetlink_filter_match_tuple(): "!ipv6_addr_cmp()"; since Linux 5.8, seen on
# 6.1 and 6.18). Who deletes connections by such a filter (Linux 6.9) ends those of all others. By IPv4 it is right.
#
# Needs root, a network namespace of its own (unshare), and nf_conntrack_netlink. Fails where the kernel does otherwise.
set -eu
exec unshare --net python3 - <<'PYTHON'
import ipaddress, platform, socket, struct

NEW, GET = 1 << 8 | 0, 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
REQUEST, ACK, CREATE, DUMP = 1, 4, 0x400, 0x300  # NLM_F_*
NESTED, UDP, ERROR, DONE = 0x8000, 17, 2, 3

def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)

def connection(kind, source, target):  # CTA_TUPLE_*: CTA_TUPLE_IP, CTA_TUPLE_PROTO
    first = 1 if source.version == 4 else 3  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
    ip = attribute(1 | NESTED, attribute(first, source.packed) + attribute(first + 1, target.packed))
    ports = b"".join(attribute(at, struct.pack("!H", 7)) for at in (2, 3))  # CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT
    return attribute(kind | NESTED, ip + attribute(2 | NESTED, attribute(1, bytes([UDP])) + ports))

def ask(kind, flags, version, body):
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
    s.send(struct.pack("=IHHIIBBH", 20 + len(body), kind, flags | REQUEST, 1, 0, family, 0, 0) + body)
    count = 0
    while True:
        data = s.recv(1 << 16)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == ERROR and struct.unpack_from("=i", data, 16)[0]:
                raise OSError(-struct.unpack_from("=i", data, 16)[0], "ctnetlink")
            if kind in (ERROR, DONE):
                return count
            count, data = count + 1, data[(length + 3) & ~3 :]

print("Linux", platform.release())
found = {}
for version, net in ((4, "192.0.2."), (6, "2001:db8::")):
    hosts = [ipaddress.ip_address(f"{net}{i}") for i in range(1, 6)]
    for host in hosts[1:]:
        body = connection(1, host, hosts[0]) + connection(2, hosts[0], host) + attribute(7, struct.pack("!I", 60))
        ask(NEW, ACK | CREATE, version, body)
    by_source = attribute(25 | NESTED, attribute(1, struct.pack("=I", 1)) + attribute(2, struct.pack("=I", 0)))  # CTA_FILTER
    found[version] = ask(GET, DUMP, version, connection(1, hosts[1], hosts[0]) + by_source)
    print(f"of 4 connections of IPv{version}, from 4 addresses, {found[version]} come from one of these, by the filter")
raise SystemExit(0 if found == {4: 1, 6: 3} else "this kernel does otherwise")
PYTHON
