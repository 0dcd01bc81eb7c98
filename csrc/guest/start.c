/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/start.c: tells the host that the guest is ready, and receives what it is to run (struct mc_guest_start). What
 * the host sends is checked so far that init itself reads and writes no other memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>

#include "guest/guest.h"
#include "plan/native.h"

uint64_t boottime(void)
{
	struct timespec t = { 0 };

	mc_sys2(SYS_clock_gettime, CLOCK_BOOTTIME, MC_PTR(&t));
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const struct mc_plan *plan_of(const struct mc_guest_start *s)
{
	return (const struct mc_plan *)((const char *)s + s->plan);
}

/* `size` bytes from an offset, which is aligned. */
static int is_inside(const struct mc_guest_start *s, uint32_t offset, uint64_t size, uint32_t alignment)
{
	return offset >= sizeof(*s) && offset <= s->size && size <= s->size - offset && offset % alignment == 0;
}

static int plan_is_sound(const struct mc_guest_start *s)
{
	const struct mc_plan *plan = plan_of(s);

	return is_inside(s, s->plan, sizeof(*plan), 8) && is_inside(s, s->plan, plan->size, 8) &&
	       mc_plan_check(plan, plan->size) == 0;
}

static int slots_are_sound(const struct mc_guest_start *s)
{
	const int32_t slots[] = { s->input, s->output, s->error, s->socket, s->init, s->report, s->filter };
	const uint32_t count = plan_of(s)->nslots;

	for (uint32_t i = 0; i < sizeof(slots) / sizeof(*slots); i++)
		if (slots[i] < -1 || slots[i] >= (int64_t)count)
			return 0;
	return !s->initial_slots || is_inside(s, s->initial_slots, count * sizeof(int32_t), sizeof(int32_t));
}

static int ends_in_nul(const struct mc_guest_start *s, uint32_t offset)
{
	for (; offset < s->size; offset++)
		if (((const char *)s)[offset] == 0)
			return 1;
	return 0;
}

static const char *unsound(const struct mc_guest_start *s)
{
	if (s->magic != MC_GUEST_MAGIC || s->flags & ~MC_GUEST_TTY)
		return "another version";
	if (!plan_is_sound(s))
		return "plan";
	if (!slots_are_sound(s))
		return "slots";
	if (s->flags & MC_GUEST_TTY && s->socket < 0)
		return "terminal without a socket";
	if (s->filter >= 0 && !is_inside(s, s->filter_data, s->filter_size, 1))
		return "filter";
	if (s->tag && (!is_inside(s, s->tag, 1, 1) || !ends_in_nul(s, s->tag)))
		return "tag";
	if (s->image && (!s->tag || !is_inside(s, s->image, 1, 1) || !ends_in_nul(s, s->image)))
		return "image";
	return NULL;
}

long start_await(struct guest *g)
{
	const char *reason;
	long r = frames_receive_start(&g->control, &g->start);

	if (r < 0)
		return report(g, "control", "START", r);
	reason = unsound(g->start);
	return reason ? report(g, "START", reason, -EINVAL) : 0;
}

long start_receive(struct guest *g)
{
	const struct mc_guest_ready ready = { g->entry_ns, boottime() };
	const struct part part = { &ready, sizeof(ready) };
	long r = frames_send(&g->control, MC_GUEST_READY, &part, 1);

	return r < 0 ? report(g, "control", "READY", r) : start_await(g);
}
