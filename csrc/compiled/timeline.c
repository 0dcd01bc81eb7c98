/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/timeline.c: the timeline of `--explain`, in the form of `minicontainer run --explain`
 * (minicontainer/plan/timeline.py).
 */
#include <errno.h>
#include <string.h>

#include "compiled/memory.h"
#include "compiled/texts.h"
#include "plan/walk.h"

#define PHASES 64
#define LIST_MAX 8 /* items of a list that are printed */

struct event {
	const char *side, *phase, *call;
	uint64_t start, end;
	int64_t result;
	const struct mc_plan *exec; /* whose last step it is; NULL: another call */
};

static char line[8192];
static long written; /* 0, or -errno of the first line that could not be */

void note(struct runner *r, const char *phase, const char *call, uint64_t start_ns, int64_t result)
{
	if (r->is_explained && r->nnotes < NOTES)
		r->notes[r->nnotes++] = (struct note){ phase, call, start_ns, mc_now(), result };
}

void note_record(struct runner *r, const char *phase, const char *call, const struct mc_record *record)
{
	if (r->is_explained && r->nnotes < NOTES && record->start_ns)
		r->notes[r->nnotes++] =
			(struct note){ phase, call, record->start_ns, record->end_ns, record->result };
}

/* ---- text */

static struct text begin(void)
{
	return (struct text){ line, line + sizeof(line) - 1 };
}

static void end(struct text *t)
{
	*t->at++ = '\n';
	if (written == 0)
		written = write_all(2, line, (size_t)(t->at - line));
}

/* Microseconds with one digit, right-aligned. */
static void put_microseconds(struct text *t, uint64_t ns, size_t width)
{
	char number[32];
	struct text n = { number, number + sizeof(number) };
	const uint64_t tenths = (ns + 50) / 100;

	put_number(&n, (int64_t)(tenths / 10));
	put(&n, ".");
	put_number(&n, (int64_t)(tenths % 10));
	for (size_t size = (size_t)(n.at - number); size < width; size++)
		put(t, " ");
	put_bytes(t, number, (size_t)(n.at - number));
}

/* ---- the events */

static size_t add_walk(const struct runner *r, struct event *events, const struct mc_run *run, uint32_t texts,
		       const char *side)
{
	size_t n = 0;

	for (uint32_t i = 0; i < run->plan->nsteps; i++) {
		const struct mc_record *record = run->records + i;
		const struct mc_step *step = step_at(run->plan, i);
		const int is_exec = step->op == MC_EXEC || step->op == MC_EXEC_FD;

		if (!record->start_ns)
			continue;
		events[n++] = (struct event){ side,
					      step_text(r->c, texts, i, TEXT_PHASE),
					      step_text(r->c, texts, i, TEXT_CALL),
					      record->start_ns,
					      record->end_ns || !is_exec ? record->end_ns : r->spawn->end_ns,
					      record->result,
					      is_exec ? run->plan : NULL };
	}
	return n;
}

/* By their starts; what began at the same time and lasted longer comes first. */
static void sort(struct event *events, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		const struct event e = events[i];
		size_t j = i;

		for (; j > 0 && (events[j - 1].start > e.start ||
				 (events[j - 1].start == e.start && events[j - 1].end < e.end)); j--)
			events[j] = events[j - 1];
		events[j] = e;
	}
}

/* ---- the exec, whose arguments are those of this run */

static void put_string(struct text *t, const char *text)
{
	put(t, "\"");
	for (; *text; text++) {
		const unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			put(t, "\\");
		if (c == '\n')
			put(t, "\\n");
		else if (c < ' ' || c >= 0x7f)
			put(t, "\\x"), put_hex(t, c, 2);
		else
			put_bytes(t, text, 1);
	}
	put(t, "\"");
}

static void put_list(struct text *t, const char *list, uint64_t count)
{
	put(t, "[");
	for (uint64_t i = 0; i < count && i < LIST_MAX; i++, list = after(list)) {
		put(t, i ? ", " : "");
		put_string(t, list);
	}
	if (count > LIST_MAX) {
		put(t, ", ... ");
		put_number(t, (int64_t)(count - LIST_MAX));
		put(t, " more");
	}
	put(t, "]");
}

static void put_exec(struct text *t, const struct runner *r, const struct mc_plan *plan)
{
	const struct mc_step *exec = step_at(plan, plan->nsteps - 1);

	if (exec->op == MC_EXEC) {
		put(t, "execve(");
		put_list(t, r->paths, r->npaths);
	} else {
		put(t, "execveat(");
		put_number(t, (int64_t)exec->arg[0]);
	}
	put(t, ", ");
	put_list(t, (const char *)plan + exec->arg[1], exec->arg[2]);
	put(t, ", ");
	put_list(t, (const char *)plan + exec->arg[3], exec->arg[4]);
	put(t, ")");
}

/* ---- the table */

static void print_event(const struct runner *r, const struct event *e, uint64_t first)
{
	struct text t = begin();

	put_microseconds(&t, e->start - first, 8);
	put(&t, " ");
	if (e->end)
		put_microseconds(&t, e->end > e->start ? e->end - e->start : 0, 7);
	else
		put(&t, "      ?");
	put(&t, "  ");
	put(&t, e->side);
	put(&t, strlen(e->side) < 6 ? "   " : "  ");
	if (e->exec)
		put_exec(&t, r, e->exec);
	else
		put_call(&t, e->call, r->place.id);
	if (e->end) {
		put(&t, " = ");
		put_number(&t, e->result >= 0 ? e->result : -1);
		put(&t, e->result < 0 ? " " : "");
		put(&t, e->result < 0 && error_name(e->result) ? error_name(e->result) : "");
	}
	end(&t);
}

/* clone3 is not summed: its time includes the child's steps. */
static void print_sums(const struct event *events, size_t count)
{
	const struct event *first[PHASES];
	size_t phases = 0;

	for (size_t i = 0; i < count && phases < PHASES; i++) {
		size_t j = 0;

		while (j < phases && !(same(first[j]->side, events[i].side) && same(first[j]->phase, events[i].phase)))
			j++;
		if (j == phases)
			first[phases++] = events + i;
	}
	for (size_t j = 0; j < phases; j++) {
		struct text t = begin();
		uint64_t sum = 0;

		for (size_t i = 0; i < count; i++)
			if (same(first[j]->side, events[i].side) && same(first[j]->phase, events[i].phase) &&
			    events[i].end > events[i].start && !same(events[i].phase, "clone"))
				sum += events[i].end - events[i].start;
		put_microseconds(&t, sum, 8);
		put(&t, "  ");
		put(&t, first[j]->side);
		put(&t, strlen(first[j]->side) < 6 ? "   " : "  ");
		put(&t, first[j]->phase);
		end(&t);
	}
}

static void print_line(const char *text)
{
	struct text t = begin();

	put(&t, text);
	end(&t);
}

int timeline_print(struct runner *r)
{
	const struct mc_run *child = r->spawn ? &r->spawn->run : NULL, *parent = r->parent ? &r->parent->run : NULL;
	struct mc_run guest = { 0 };
	struct event *events;
	size_t count = 0, steps;

	if (!child)
		return 0;
	if (r->machine)
		guest_walk(r, &guest);
	steps = child->plan->nsteps + (parent ? parent->plan->nsteps : 0) + (guest.plan ? guest.plan->nsteps : 0);
	events = take_memory((NOTES + steps) * sizeof(*events));
	if (!events)
		return 0;
	for (int i = 0; i < r->nnotes; i++) {
		const struct note *n = r->notes + i;

		events[count++] = (struct event){ "parent",   n->phase,  n->call, n->start_ns,
						  n->end_ns, n->result, NULL };
	}
	if (parent)
		count += add_walk(r, events + count, parent, r->c->parent.texts, "parent");
	count += add_walk(r, events + count, child, r->variant->texts, "child");
	if (guest.plan)
		count += add_walk(r, events + count, &guest, r->guest->texts, "guest");
	sort(events, count);
	print_line("   at us    took  side    primitive");
	for (size_t i = 0; i < count; i++)
		print_event(r, events + i, events[0].start);
	print_line("");
	print_line("     sum  side    phase");
	print_sums(events, count);
	if (written == 0)
		return 0;
	return written == -EPIPE ? CLOSED_PIPE : complain_errno("stderr", NULL, written, NULL);
}
