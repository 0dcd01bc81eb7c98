/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fuzz_payload.c: checks payloads of compiled containers from standard input, under the sanitizers: of what
 * payload_check accepts, nothing is read outside. Input: uint32 length, that many bytes, again and again. Output: how
 * many were accepted, and of how many a plan was made.
 *
 * The files are included here behind an mc_sys that makes no system call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define MC_SYSCALLS_H
#define MC_PTR(p) ((uint64_t)(uintptr_t)(p))
#define MC_FD(fd) ((uint64_t)(int64_t)(fd))
#define mc_sys(...) ((long)-ENOSYS)
#define mc_sys2(nr, a, b) ((void)(a), (void)(b), (long)-ENOSYS)

static volatile uint64_t sum; /* so that no read is left out */

/* write(2) of a message. */
static long mc_sys3(long nr, uint64_t a, uint64_t b, uint64_t c)
{
	(void)(nr + (long)a);
	for (uint64_t i = 0; i < c; i++)
		sum += ((const unsigned char *)(uintptr_t)b)[i];
	return (long)c;
}

#include "compiled/message.c"
#include "compiled/payload.c"
#include "compiled/quote.c"
#include "compiled/texts.c"
#undef ERRORS
#include "compiled/arguments.c"
#include "compiled/guest.c"
#include "monitor/text.c"
#include "plan/check.c"
#include "plan/lay.c"

static void *taken[8];
static int ntaken;

void *take_memory(size_t size)
{
	return taken[ntaken++] = calloc(1, size);
}

static void read_list(const char *list, uint64_t count)
{
	for (; count > 0; count--, list = after(list))
		sum += strlen(list);
}

static void read_tables(const struct mc_compiled *c)
{
	const struct mc_check *check = at(c, c->checks.at);
	const struct mc_line *line = at(c, c->lines.at);
	const uint32_t *excluded = at(c, c->excluded.at);
	const char *bytes[] = { at(c, c->init.at), at(c, c->filter.at), at(c, c->devices.at) };
	const uint32_t sizes[] = { c->init.count, c->filter.count, c->devices.count };

	for (uint32_t i = 0; i < c->checks.count; i++)
		sum += strlen(at(c, check[i].what)) + strlen(at(c, check[i].path)) + check[i].hash;
	for (uint32_t i = 0; i < c->lines.count; i++)
		sum += strlen(at(c, line[i].file)) + strlen(at(c, line[i].data)) + strlen(at(c, line[i].effective));
	for (uint32_t i = 0; i < c->excluded.count; i++)
		sum += excluded[i];
	for (int i = 0; i < 3; i++)
		for (uint32_t j = 0; j < sizes[i]; j++)
			sum += (unsigned char)bytes[i][j];
	sum += strlen(at(c, c->state)) + strlen(at(c, c->base)) + strlen(at(c, c->release)) + strlen(c->mark);
}

static int make_plan(const struct mc_compiled *c, const struct mc_variant *variant, char **arguments)
{
	char *environment[] = { "A=1", "PATH=/x::/y/", "", NULL };
	struct runner r = { .c = c, .variant = variant, .environment = environment, .arguments = arguments };
	const struct mc_step *exec;
	const struct mc_plan *plan;
	uint32_t texts = variant->texts;

	memcpy(r.place.id, "0123456789ab", 13);
	r.name = "fuzz";
	ntaken = 0;
	if (c->machine.data.count)
		r.guest = variant == &c->plain ? &c->machine.plain : &c->machine.terminal;
	if (arguments_plan(&r) || (r.guest && put_start(&r)))
		return 0;
	plan = r.guest ? guest_plan(&r) : r.spawn->run.plan;
	texts = r.guest ? r.guest->texts : texts;
	exec = step_at(plan, plan->nsteps - 1);
	read_list(r.paths, r.npaths);
	read_list((const char *)plan + exec->arg[1], exec->arg[2]);
	read_list((const char *)plan + exec->arg[3], exec->arg[4]);
	for (uint32_t i = 0; i < plan->nsteps; i++)
		for (int which = 0; which < TEXTS; which++)
			sum += strlen(step_text(c, texts, i, which));
	return 1;
}

static unsigned long use(const struct mc_compiled *c)
{
	const struct mc_variant *variants[] = { &c->plain, &c->terminal };
	char *given[] = { "given", "", NULL }, *none[] = { NULL };
	unsigned long made = 0;

	read_tables(c);
	for (int i = 0; i < 4; i++) {
		if (!variants[i / 2]->plan.count)
			continue;
		made += (unsigned long)make_plan(c, variants[i / 2], i % 2 ? given : none);
		while (ntaken > 0)
			free(taken[--ntaken]);
	}
	return made;
}

int main(void)
{
	uint32_t size;
	unsigned long accepted = 0, made = 0;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		char *data = aligned_alloc(8, (size + 7) & ~7u);

		if (size && fread(data, size, 1, stdin) != 1)
			return 2;
		payload_find(data, size);
		/* what payload_find() has found out, whose checksum no random change survives */
		if (size >= sizeof(struct mc_compiled) && size % 8 == 0) {
			((struct mc_compiled *)data)->size = size;
			data[size - 1] = 0;
			if (payload_check((const struct mc_compiled *)data) == 0) {
				accepted++;
				made += use((const struct mc_compiled *)data);
			}
		}
		free(data);
	}
	printf("%lu %lu\n", accepted, made);
	return 0;
}
