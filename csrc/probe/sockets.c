/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * sockets.c: socket families, interfaces, sockets of the host.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static enum verdict refused_family(int family, int type)
{
	long result = CALL(SYS_socket, (uint64_t)family, (uint64_t)type);

	if (result == -EAFNOSUPPORT)
		return skip("this kernel has none");
	return refused(result);
}

static enum verdict try_alg(const char *argument)
{
	(void)argument;
	return refused_family(AF_ALG, SOCK_SEQPACKET);
}

static enum verdict try_vsock(const char *argument)
{
	(void)argument;
	return refused_family(AF_VSOCK, SOCK_STREAM);
}

/* With CAP_NET_RAW a process reads all packets of its network, and forges addresses. */
static enum verdict try_packet(const char *argument)
{
	(void)argument;
	return refused_family(AF_PACKET, SOCK_RAW);
}

static enum verdict try_raw(const char *argument)
{
	(void)argument;
	return refused(CALL(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static enum verdict only_loopback(const char *argument)
{
	struct if_nameindex *all = if_nameindex();
	enum verdict verdict = PASS;

	(void)argument;
	if (!all)
		return pass("%s", strerrorname_np(errno));
	for (struct if_nameindex *each = all; each->if_index && verdict == PASS; each++)
		if (strcmp(each->if_name, "lo"))
			verdict = fail("has %s", each->if_name);
	if_freenameindex(all);
	return verdict == PASS ? pass("only lo") : verdict;
}

static enum verdict abstract_socket_of_host(const char *argument)
{
	const char *name = parameter("abstract");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)argument;
	if (!name)
		return skip("no socket of the host was given");
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "%s", name);
	if (connect(fd, (struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))))
		return pass("%s", strerrorname_np(errno));
	return fail("connected to the host's");
}

const struct check socket_checks[] = {
	{"calls", "socket-AF_ALG", try_alg, NULL},
	{"calls", "socket-AF_VSOCK", try_vsock, NULL},
	{"network", "AF_PACKET", try_packet, NULL},
	{"network", "raw-socket", try_raw, NULL},
	{"network", "loopback-alone", only_loopback, NULL},
	{"network", "abstract-socket", abstract_socket_of_host, NULL},
	{NULL, NULL, NULL, NULL},
};
