/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/descriptors.c: how many descriptors are left.
 */
#define _GNU_SOURCE
#include <fcntl.h>

#include "monitor/monitor.h"

int fds_available(int count)
{
	int fds[MC_SPARE_FDS + 1], n = 0;

	while (n < count && n <= MC_SPARE_FDS && (fds[n] = (int)mc_sys3(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 0)) >= 0)
		n++;
	for (int i = 0; i < n; i++)
		close_fd(&fds[i]);
	return n == count;
}
