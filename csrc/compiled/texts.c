/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/texts.c: see texts.h. Few runs print any, so they are found by counting.
 */
#include "compiled/texts.h"

const char *step_text(const struct mc_compiled *c, uint32_t texts, uint32_t step, int which)
{
	uint64_t left = (uint64_t)step * TEXTS + (uint64_t)which;
	uint32_t offset = texts;

	for (; texts && left > 0 && offset < c->size; offset++)
		left -= *(const char *)at(c, offset) == 0;
	return texts && offset < c->size ? at(c, offset) : "";
}

void put_call(struct text *t, const char *call, const char *id)
{
	for (; *call; call++)
		if (*call == 1)
			put(t, id);
		else
			put_bytes(t, call, 1);
}
