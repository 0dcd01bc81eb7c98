/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/memory.c: whether the kernel has killed processes since it had no memory left (/proc/vmstat).
 */
#include <stddef.h>

#include "guest/guest.h"

#define KEY "\noom_kill " /* Linux 4.13; not the first line */

/* The file is longer than a page, of which a read gets one at most. */
uint64_t oom_kills(int vmstat)
{
	const size_t length = sizeof(KEY) - 1;
	uint64_t offset = 0, number = 0;
	size_t same = 0;
	char data[1024];
	long n;

	while (vmstat >= 0 && (n = mc_sys4(SYS_pread64, MC_FD(vmstat), MC_PTR(data), sizeof(data), offset)) > 0) {
		for (long i = 0; i < n; i++) {
			if (same < length)
				same = data[i] == KEY[same] ? same + 1 : data[i] == KEY[0];
			else if (data[i] >= '0' && data[i] <= '9')
				number = number * 10 + (uint64_t)(data[i] - '0');
			else
				return number;
		}
		offset += (uint64_t)n;
	}
	return number;
}
