/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * packet.c: the step of plans that opens a packet(7) socket for the frames of an interface.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include "plan/syscalls.h"
#include "plan/walk.h"

#define ROOM (4 << 20) /* bytes for frames on their way, of which the kernel gives at most net.core.[rw]mem_max */

/* Of what arrives at the interface: that for its address, and for all; not what a bridge floods to every port. */
static const struct sock_filter FOR_IT[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, PACKET_OTHERHOST, 0, 1), /* and PACKET_OUTGOING */
	BPF_STMT(BPF_RET | BPF_K, 0),
	BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
};

static long set(long sock, int level, int option, const void *value, uint64_t size)
{
	return mc_sys5(SYS_setsockopt, (uint64_t)sock, (uint64_t)level, (uint64_t)option, MC_PTR(value), size);
}

static long prepare(long sock, const char *interface)
{
	const struct sock_fprog filter = { sizeof(FOR_IT) / sizeof(FOR_IT[0]), (struct sock_filter *)FOR_IT };
	const int on = 1, room = ROOM;
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	long r = mc_if_index(interface);

	address.sll_ifindex = (int)r;
	if (r >= 0)
		r = set(sock, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on));
	if (r >= 0)
		r = set(sock, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
	if (r >= 0)
		r = set(sock, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (r >= 0)
		r = set(sock, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	return r < 0 ? r : mc_sys3(SYS_bind, (uint64_t)sock, MC_PTR(&address), sizeof(address));
}

/* Without a protocol the socket receives nothing before bind(2), thus nothing that has not passed the filter. */
long mc_packet_socket(const char *interface)
{
	long sock = mc_sys3(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), r = sock;

	if (sock >= 0)
		r = prepare(sock, interface);
	if (sock >= 0 && r < 0)
		mc_sys1(SYS_close, (uint64_t)sock);
	return r < 0 ? r : sock;
}
