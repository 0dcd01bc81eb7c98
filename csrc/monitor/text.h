/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/text.h: text without libc: appends to a buffer. Text that does not fit as a whole is left out.
 */
#ifndef MC_MONITOR_TEXT_H
#define MC_MONITOR_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
	char *at;
	const char *end;
};

void put(struct text *t, const char *text);
void put_bytes(struct text *t, const char *data, size_t size);
void put_number(struct text *t, int64_t number);
void put_hex(struct text *t, uint64_t number, int digits); /* the last `digits` of them, at most 16 */
void put_time(struct text *t, int64_t realtime_ns); /* 2026-11-23T16:51:08.123456789Z */
int64_t realtime(void);

#endif
