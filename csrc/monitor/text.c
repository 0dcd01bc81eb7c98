/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/text.c: text without libc.
 */
#include <string.h>
#include <time.h>

#include "monitor/text.h"

void put_bytes(struct text *t, const char *data, size_t size)
{
	if (size <= (size_t)(t->end - t->at)) {
		memcpy(t->at, data, size);
		t->at += size;
	}
}

void put(struct text *t, const char *text)
{
	put_bytes(t, text, strlen(text));
}

static void put_digits(struct text *t, uint64_t number, int least)
{
	char digits[20], *at = digits + sizeof(digits);

	for (; number || least > 0; number /= 10, least--)
		*--at = (char)('0' + number % 10);
	put_bytes(t, at, (size_t)(digits + sizeof(digits) - at));
}

void put_number(struct text *t, int64_t number)
{
	if (number < 0)
		put(t, "-");
	put_digits(t, number < 0 ? -(uint64_t)number : (uint64_t)number, 1);
}

void put_hex(struct text *t, uint64_t number, int digits)
{
	char hex[16];

	for (int i = digits - 1; i >= 0; i--, number >>= 4)
		hex[i] = "0123456789abcdef"[number & 15];
	put_bytes(t, hex, (size_t)digits);
}

/* Days since 1970 as a date of the Gregorian calendar. Years begin in March here, so a leap day is the last day. */
static void put_date(struct text *t, uint64_t days)
{
	uint64_t era, day, year, month;

	days += 719468; /* from 1 March of year 0 */
	era = days / 146097, day = days % 146097;
	year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	day -= 365 * year + year / 4 - year / 100;
	month = (5 * day + 2) / 153;
	day -= (153 * month + 2) / 5;
	put_digits(t, era * 400 + year + (month >= 10), 4);
	put(t, "-");
	put_digits(t, month < 10 ? month + 3 : month - 9, 2);
	put(t, "-");
	put_digits(t, day + 1, 2);
}

void put_time(struct text *t, int64_t realtime_ns)
{
	uint64_t ns = realtime_ns > 0 ? (uint64_t)realtime_ns : 0, seconds = ns / 1000000000u;

	put_date(t, seconds / 86400);
	for (uint64_t unit = 3600, i = 0; i < 3; i++, unit /= 60) {
		put(t, &"T\0:\0:"[2 * i]);
		put_digits(t, seconds % 86400 % (unit * (i ? 60 : 24)) / unit, 2);
	}
	put(t, ".");
	put_digits(t, ns % 1000000000u, 9);
	put(t, "Z");
}

int64_t realtime(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}
