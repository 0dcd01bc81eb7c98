/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * now.c: the clock of records.
 */
#include <time.h>

#include "plan/native.h"

uint64_t mc_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t); /* the vDSO: no system call, no errno */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
