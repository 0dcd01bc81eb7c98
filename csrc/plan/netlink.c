/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * netlink.c: the netlink(7) steps of plans, and the step that comments out a line of hosts files. A message is part
 * of the plan; numbers that are known only when the plan runs (a pid, an address) are written to a copy of the message.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "plan/syscalls.h"
#include "plan/walk.h"

static long send_message(int sock, const void *message, uint64_t length)
{
	long r;

	do
		r = mc_sys(SYS_sendto, MC_FD(sock), MC_PTR(message), length, 0, 0, 0);
	while (r == -EINTR);
	return r;
}

static long receive_ack(int sock, uint32_t sequence)
{
	struct {
		struct nlmsghdr head;
		int32_t error;
		char request[1024]; /* the kernel repeats it */
	} ack;

	for (;;) {
		long n = mc_sys(SYS_recvfrom, MC_FD(sock), MC_PTR(&ack), sizeof(ack), 0, 0, 0);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		if (n < (long)(sizeof(ack.head) + sizeof(ack.error)))
			return -EPROTO;
		if (ack.head.nlmsg_type == NLMSG_ERROR && ack.head.nlmsg_seq == sequence)
			return ack.error;
	}
}

/* All messages of one datagram have the same sequence number, and one of them has NLM_F_ACK. */
long mc_netlink(int sock, const char *message, uint64_t length, const int32_t numbers[2], uint64_t offsets)
{
	char copy[MC_MESSAGE];
	struct nlmsghdr head;
	long r;

	if (offsets) {
		memcpy(copy, message, length);
		message = copy;
	}
	for (int i = 0; i < 4; i++) {
		uint16_t offset = (uint16_t)(offsets >> (16 * i));

		if (offset)
			memcpy(copy + offset, &numbers[i > 0], sizeof(numbers[0]));
	}
	r = send_message(sock, message, length);
	if (r < 0)
		return r;
	memcpy(&head, message, sizeof(head));
	return receive_ack(sock, head.nlmsg_seq);
}

/* ---- tracked connections */

/* Sends a delete request without NLM_F_ACK. The kernel replies nevertheless after an error (the connection has ended
 * meanwhile), with this sequence number. */
static void delete_flow(int sock, struct nlmsghdr *flow, uint32_t sequence)
{
	flow->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
	flow->nlmsg_flags = NLM_F_REQUEST;
	flow->nlmsg_seq = sequence;
	flow->nlmsg_pid = 0;
	send_message(sock, flow, flow->nlmsg_len);
}

/* Deletes the connections in one part of a dump. 1: more parts follow. */
static long delete_dumped(int sock, char *dump, long length, uint32_t sequence)
{
	for (long at = 0; at + NLMSG_HDRLEN <= length;) {
		struct nlmsghdr *head = (struct nlmsghdr *)(dump + at);

		if (head->nlmsg_len < NLMSG_HDRLEN || head->nlmsg_len > length - at)
			return -EPROTO;
		at += NLMSG_ALIGN(head->nlmsg_len);
		if (head->nlmsg_seq != sequence)
			continue;
		if (head->nlmsg_type == NLMSG_DONE)
			return 0;
		if (head->nlmsg_type == NLMSG_ERROR)
			return ((const struct nlmsgerr *)NLMSG_DATA(head))->error;
		delete_flow(sock, head, sequence + 1);
	}
	return 1;
}

static long delete_each(int sock, const char *message, uint64_t length)
{
	_Alignas(struct nlmsghdr) char dump[8192]; /* the longest part of a dump (NLMSG_GOODSIZE) */
	struct nlmsghdr *head = (struct nlmsghdr *)dump;
	uint32_t sequence;
	long n, r = 1;

	if (length > sizeof(dump))
		return -EMSGSIZE;
	memcpy(dump, message, length);
	sequence = head->nlmsg_seq;
	head->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	n = send_message(sock, dump, length);
	while (r > 0 && n >= 0) {
		do
			n = mc_sys(SYS_recvfrom, MC_FD(sock), MC_PTR(dump), sizeof(dump), 0, 0, 0);
		while (n == -EINTR);
		r = n < 0 ? n : delete_dumped(sock, dump, n, sequence);
	}
	return n < 0 ? n : r;
}

/* Linux 6.9 deletes by a filter (commit eff3c558bb7e). An older kernel dumps by the same filter (5.8); each entry of
 * the dump is then sent back as a delete request. A dump reads every bucket of the table, which takes longer. */
long mc_end_flows(int sock, const char *message, uint64_t length)
{
	const int32_t none[2] = { 0 };
	long r = mc_netlink(sock, message, length, none, 0);

	return r == -EINVAL ? delete_each(sock, message, length) : r;
}

long mc_if_index(const char *name)
{
	struct ifreq request = { 0 };
	long sock = mc_sys3(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = sock;

	for (int i = 0; i < IFNAMSIZ - 1 && name[i]; i++)
		request.ifr_name[i] = name[i];
	if (sock >= 0) {
		r = mc_sys3(SYS_ioctl, sock, SIOCGIFINDEX, MC_PTR(&request));
		mc_sys1(SYS_close, sock);
	}
	return r < 0 ? r : request.ifr_ifindex;
}

/* ---- hosts files */

static void comment_out_in(int directory, const char *name, uint64_t offset)
{
	long fd = mc_sys4(SYS_openat, MC_FD(directory), MC_PTR(name),
			  O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return; /* the file was removed with its container */
	mc_sys4(SYS_pwrite64, fd, MC_PTR("#"), 1, offset);
	mc_sys1(SYS_close, fd);
}

/* Comments out the line at `offset` in each file of a directory: the lines of all hosts files have the same offsets
 * (network/hosts.py). */
long mc_comment_out(int directory, uint64_t offset)
{
	_Alignas(struct dirent64) char entries[2048];
	long n, r = mc_sys3(SYS_lseek, MC_FD(directory), 0, SEEK_SET);

	if (r < 0)
		return r;
	while ((n = mc_sys3(SYS_getdents64, MC_FD(directory), MC_PTR(entries), sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (entry->d_name[0] != '.')
				comment_out_in(directory, entry->d_name, offset);
			at += entry->d_reclen;
		}
	return n;
}
