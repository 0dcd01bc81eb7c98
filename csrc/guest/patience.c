/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/patience.c: waits for what the kernel makes in its own time (devices, names, file systems) and tells nobody of:
 * looks again and again, after pauses that grow from 1 to 64 milliseconds.
 */
#define _GNU_SOURCE
#include <time.h>

#include "guest/guest.h"
#include "plan/native.h"

#define LONGEST (64 * MS)

void patience_begin(struct patience *p, int64_t until)
{
	p->look_at = (int64_t)mc_now();
	p->until = until;
	p->pause = MS / 2;
}

int patience_next(struct patience *p)
{
	const int64_t now = (int64_t)mc_now();

	p->pause = p->pause < LONGEST ? p->pause * 2 : LONGEST;
	p->look_at = now + p->pause;
	return now < p->until;
}

int patience_sleep(struct patience *p)
{
	struct timespec t;

	if (!patience_next(p))
		return 0;
	t = (struct timespec){ p->pause / (1000 * MS), p->pause % (1000 * MS) };
	mc_sys5(SYS_ppoll, 0, 0, MC_PTR(&t), 0, 0);
	return 1;
}
