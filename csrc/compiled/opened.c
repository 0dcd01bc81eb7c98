/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/opened.c: see opened.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "compiled/opened.h"

#ifndef F_ADD_SEALS
#include <linux/fcntl.h>
#endif

void opened_close(struct opened *o)
{
	while (o->count > 0)
		mc_sys1(SYS_close, MC_FD(o->fds[--o->count]));
}

int opened_keep(struct opened *o, long fd, uint64_t least, int is_ours)
{
	long moved = fd < 0 ? fd : mc_sys3(SYS_fcntl, (uint64_t)fd, F_DUPFD_CLOEXEC, least);

	if (fd >= 0 && is_ours)
		mc_sys1(SYS_close, (uint64_t)fd);
	if (moved >= 0)
		o->fds[o->count++] = (int)moved;
	return (int)moved;
}

/* As minicontainer/linux/files.py seals. */
int opened_sealed(struct opened *o, const char *name, const struct mc_compiled *c, struct mc_span bytes)
{
	const uint64_t seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	long fd = mc_sys2(SYS_memfd_create, MC_PTR(name), MFD_CLOEXEC | MFD_ALLOW_SEALING), n = fd;

	if (fd >= 0)
		n = mc_sys3(SYS_write, (uint64_t)fd, MC_PTR(at(c, bytes.at)), bytes.count);
	if (n == (long)bytes.count)
		n = mc_sys3(SYS_fcntl, (uint64_t)fd, F_ADD_SEALS, seals);
	else if (n >= 0)
		n = -ENOSPC;
	if (n < 0 && fd >= 0)
		mc_sys1(SYS_close, (uint64_t)fd);
	return n < 0 ? (int)n : opened_keep(o, fd, ABOVE_PLAN, 1);
}
