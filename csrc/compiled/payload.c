/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/payload.c: finds the payload in the file, and checks once that everything that is read of it lies inside.
 * Strings end inside, since the payload ends with a NUL; lists of strings are counted here or where they are read.
 */
#include <errno.h>

#include "compiled/compiled.h"
#include "vmm/machine.h"

#define LANES 4 /* sums that a processor computes at the same time */

/* Maps a sum and a word to a new sum, each of them one to one: so a change within eight bytes never goes unnoticed, and
 * any other change with a probability of 2^-64. */
static uint64_t add_word(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * MC_CHECKSUM_FACTOR;
	return sum ^ sum >> 32;
}

uint64_t checksum(const void *data, size_t size)
{
	const uint64_t *word = data;
	const size_t count = size / sizeof(*word);
	uint64_t lanes[LANES] = { 0, 1, 2, 3 }, sum = size;
	size_t i = 0;

	for (; i + LANES <= count; i += LANES)
		for (int lane = 0; lane < LANES; lane++)
			lanes[lane] = add_word(lanes[lane], word[i + (size_t)lane]);
	for (int lane = 0; lane < LANES; lane++)
		sum = add_word(sum, lanes[lane]);
	for (; i < count; i++)
		sum = add_word(sum, word[i]);
	return sum;
}

const struct mc_compiled *payload_find(const void *file, size_t size)
{
	const struct mc_trailer *trailer;
	const struct mc_compiled *c;

	if (size < sizeof(*trailer) + sizeof(*c) || size % sizeof(uint64_t))
		return NULL;
	trailer = (const void *)((const char *)file + size - sizeof(*trailer));
	if (trailer->magic != MC_COMPILED_MAGIC || trailer->version != MC_COMPILED_VERSION ||
	    trailer->checksum != checksum(file, size - sizeof(trailer->checksum)))
		return NULL;
	if (trailer->size < sizeof(*c) || trailer->size > size - sizeof(*trailer) || trailer->size % sizeof(uint64_t))
		return NULL;
	c = (const void *)((const char *)trailer - trailer->size);
	return c->size == trailer->size && ((const char *)trailer)[-1] == 0 ? c : NULL;
}

static int is_inside(const struct mc_compiled *c, struct mc_span span, size_t each, size_t align)
{
	return span.at % align == 0 && span.at <= c->size && (uint64_t)span.count * each <= c->size - span.at;
}

static int list_is_inside(const struct mc_compiled *c, struct mc_span list)
{
	uint64_t offset = list.at, count = list.count;

	for (; count > 0 && offset < c->size; offset++)
		if (((const char *)c)[offset] == 0)
			count--;
	return count == 0;
}

static int plan_is_inside(const struct mc_compiled *c, struct mc_span span)
{
	const struct mc_plan *plan = at(c, span.at);

	return span.count >= sizeof(*plan) && is_inside(c, span, 1, 8) && plan->size == span.count &&
	       plan->nsteps >= 1 && plan->nsteps <= (span.count - sizeof(*plan)) / sizeof(struct mc_step) &&
	       plan->nslots <= INT16_MAX && plan->nstrings <= span.count;
}

static int are_slots(const struct mc_plan *plan, const int32_t *slots, int count)
{
	for (int i = 0; i < count; i++)
		if (slots[i] < -1 || slots[i] >= (int32_t)plan->nslots)
			return 0;
	return 1;
}

static int pairs_are_slots(const struct mc_compiled *c, const struct mc_variant *v)
{
	const struct mc_plan *child = at(c, v->plan.at), *parent = at(c, c->parent.plan.at);
	const int32_t *pairs = at(c, v->shared.at);

	for (uint32_t i = 0; i + 1 < v->shared.count; i += 2)
		if (pairs[i] < 0 || pairs[i] >= (int32_t)parent->nslots || pairs[i + 1] < 0 ||
		    pairs[i + 1] >= (int32_t)child->nslots)
			return 0;
	return v->ready >= 0 && v->go >= 0 && v->answer >= 0;
}

/* Whether the places of the id lie in `within`, behind its `head` bytes. */
static int ids_are_inside(const struct mc_compiled *c, struct mc_span ids, struct mc_span within, size_t head)
{
	const uint32_t *offsets = at(c, ids.at);

	if (!is_inside(c, ids, sizeof(*offsets), 4))
		return 0;
	for (uint32_t i = 0; i < ids.count; i++)
		if ((uint64_t)offsets[i] + MC_ID_DIGITS > within.count || offsets[i] < head)
			return 0;
	return 1;
}

static int variant_is_sound(const struct mc_compiled *c, const struct mc_variant *v)
{
	const struct mc_plan *plan = at(c, v->plan.at);
	const struct mc_namespace *n = at(c, v->namespaces.at);
	const int32_t slots[] = { v->input, v->output, v->error, v->socket, v->report,
				  v->init,  v->filter, v->ready, v->go,	    v->answer };

	if (!plan_is_inside(c, v->plan) || !is_inside(c, v->shared, 4, 4) ||
	    !is_inside(c, v->namespaces, sizeof(*n), 4) || v->texts >= c->size)
		return 0;
	for (uint32_t i = 0; i < v->namespaces.count; i++)
		if (n[i].slot < 0 || !are_slots(plan, &n[i].slot, 1) || n[i].path >= c->size || n[i].what >= c->size)
			return 0;
	return are_slots(plan, slots, 10) && v->input >= 0 && v->output >= 0 && v->error >= 0 &&
	       ids_are_inside(c, v->ids, v->plan, sizeof(*plan)) && (uint64_t)v->window + 8 <= v->plan.count &&
	       (!c->parent.plan.count || pairs_are_slots(c, v));
}

static int parent_is_sound(const struct mc_compiled *c)
{
	const struct mc_parent_part *p = &c->parent;
	const struct mc_plan *plan = at(c, p->plan.at);
	const int32_t slots[] = { p->uid, p->gid, p->count, p->helper_output };

	return plan_is_inside(c, p->plan) && mc_plan_check(plan, p->plan.count) == 0 && plan->nslots >= 2 &&
	       p->ninputs <= plan->nslots && are_slots(plan, slots, 4) && p->texts < c->size;
}

/* The plan in what the guest's init gets is checked again when it is complete (arguments_put). */
static int guest_is_sound(const struct mc_compiled *c, const struct mc_guest_part *g, const struct mc_variant *v)
{
	const struct mc_guest_start *start = at(c, g->start.at);
	const struct mc_plan *plan = at(c, v->plan.at);
	struct mc_span inner;

	if (!v->plan.count)
		return 1;
	if (!is_inside(c, g->start, 1, 8) || g->start.count < sizeof(*start) || start->plan < sizeof(*start) ||
	    start->plan >= g->start.count || g->texts >= c->size)
		return 0;
	inner = (struct mc_span){ g->start.at + start->plan, g->start.count - start->plan };
	for (int i = 0; i < MC_MACHINE_FILES; i++)
		if (g->files[i] < 0)
			return 0;
	return plan_is_inside(c, inner) && ids_are_inside(c, g->ids, g->start, sizeof(*start)) &&
	       are_slots(plan, &g->kvm, 5 + MC_MACHINE_FILES) && g->kvm >= 0 && g->machine >= 0 && g->run >= 0 &&
	       g->report >= 0 && g->program >= 0 && v->report < 0 && !v->namespaces.count;
}

static int machine_is_sound(const struct mc_compiled *c)
{
	const struct mc_machine_part *m = &c->machine;
	const struct mc_machine_file *file = at(c, m->files.at);

	if (!is_inside(c, m->data, 1, 8) || !is_inside(c, m->program, 1, 1) ||
	    !is_inside(c, m->files, sizeof(*file), 8) || m->files.count > MC_MACHINE_FILES)
		return 0;
	for (uint32_t i = 0; i < m->files.count; i++)
		if (file[i].what >= c->size || file[i].path >= c->size)
			return 0;
	return guest_is_sound(c, &m->plain, &c->plain) && guest_is_sound(c, &m->terminal, &c->terminal);
}

static int tables_are_sound(const struct mc_compiled *c)
{
	const struct mc_check *check = at(c, c->checks.at);
	const struct mc_line *line = at(c, c->lines.at);

	if (!is_inside(c, c->checks, sizeof(*check), 8) || !is_inside(c, c->lines, sizeof(*line), 4) ||
	    c->lines.count > MC_SETTINGS_MAX || !is_inside(c, c->excluded, 4, 4) || c->excluded.count % 2)
		return 0;
	for (uint32_t i = 0; i < c->checks.count; i++)
		if (check[i].kind >= MC_CHECKS || check[i].what >= c->size || check[i].path >= c->size)
			return 0;
	for (uint32_t i = 0; i < c->lines.count; i++)
		if (line[i].file >= c->size || line[i].data >= c->size || line[i].what >= c->size ||
		    line[i].value >= c->size || line[i].effective >= c->size || line[i].group > MC_SETTINGS_MAX)
			return 0;
	return 1;
}

static int strings_are_sound(const struct mc_compiled *c)
{
	const uint32_t offsets[] = { c->release, c->hardware,  c->nodename, c->state,	     c->base,
				     c->needed,	 c->accounted, c->pids,	    c->timeout_text, c->memory_text };

	for (unsigned i = 0; i < sizeof(offsets) / sizeof(*offsets); i++)
		if (offsets[i] >= c->size)
			return 0;
	return c->args.count && list_is_inside(c, c->args) && list_is_inside(c, c->env) &&
	       list_is_inside(c, c->stage) && c->kept <= c->args.count && c->mark[sizeof(c->mark) - 1] == 0 &&
	       c->ids <= MC_IDS_SHARED;
}

int payload_check(const struct mc_compiled *c)
{
	const int is_sound = tables_are_sound(c) && strings_are_sound(c) && is_inside(c, c->init, 1, 1) &&
			     is_inside(c, c->filter, 1, 1) && is_inside(c, c->devices, 1, 8) &&
			     (!c->parent.plan.count || parent_is_sound(c)) &&
			     (!c->plain.plan.count || variant_is_sound(c, &c->plain)) &&
			     (!c->terminal.plan.count || variant_is_sound(c, &c->terminal)) &&
			     (c->plain.plan.count || c->terminal.plan.count) &&
			     (!c->machine.data.count || machine_is_sound(c));

	return is_sound ? 0 : -EINVAL;
}
