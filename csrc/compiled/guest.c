/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/guest.c: what the init of a machine's guest gets: its plan, with the program, its arguments and its
 * environment, in the memfd that the monitor and this program share (minicontainer/container/machine/run.py). What the
 * monitor has written there is not trusted; this program keeps a copy of what it has sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "compiled/compiled.h"
#include "compiled/memory.h"
#include "vmm/machine.h"

_Static_assert(MC_MACHINE_FILES == MC_VMM_FILES, "files of a machine");
_Static_assert(sizeof(struct mc_vmm_run) % 8 == 0, "what follows is aligned");

static int map_new(struct runner *r, uint64_t size)
{
	long fd = mc_sys2(SYS_memfd_create, MC_PTR("minicontainer-run"), MFD_CLOEXEC), map = fd, e;

	if (fd >= 0) {
		e = mc_sys2(SYS_ftruncate, (uint64_t)fd, size);
		map = e < 0 ? e : mc_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, MC_FD(fd), 0);
	}
	if (NO_MEMORY(map))
		return (int)map;
	r->machine_fd = (int)fd;
	r->machine = (struct mc_vmm_run *)map;
	return 0;
}

const struct mc_plan *guest_plan(const struct runner *r)
{
	return (const struct mc_plan *)((const char *)r->start + r->start->plan);
}

/* The offset of the records in what is shared. */
static uint32_t records_at(const struct runner *r)
{
	return (uint32_t)(sizeof(*r->machine) + r->start->size + 7) & ~7u;
}

static void share(struct runner *r, uint32_t size)
{
	struct mc_vmm_run *m = r->machine;

	memcpy(m + 1, r->start, r->start->size);
	m->magic = MC_VMM_RUN_MAGIC;
	m->size = size;
	m->start = sizeof(*m);
	m->start_size = r->start->size;
	m->records = records_at(r);
	m->nrecords = guest_plan(r)->nsteps;
}

static int put_start(struct runner *r)
{
	const struct mc_span given = r->guest->start;
	const uint64_t length = arguments_measure(r);
	struct mc_plan *plan;

	if (!length)
		return FAILED;
	if (given.count + length > MC_GUEST_LONGEST)
		return arguments_too_long(r, -E2BIG);
	r->start = take_memory(given.count + length);
	if (!r->start)
		return arguments_too_long(r, -ENOMEM);
	memcpy(r->start, at(r->c, given.at), given.count);
	arguments_put_id(r, r->guest->ids, r->start);
	plan = (struct mc_plan *)((char *)r->start + r->start->plan);
	if (arguments_put(r, plan))
		return FAILED;
	r->start->size = r->start->plan + plan->size;
	return 0;
}

int guest_prepare(struct runner *r)
{
	const int code = put_start(r);
	uint32_t size;
	int e;

	if (code)
		return code;
	size = records_at(r) + guest_plan(r)->nsteps * (uint32_t)sizeof(struct mc_record);
	e = map_new(r, size);
	if (e < 0)
		return complain_errno("memory of the machine", NULL, e, NULL);
	share(r, size);
	return 0;
}

/* As minicontainer/container/machine/run.py: as if the guest's message that the program runs had taken no time. */
void guest_walk(const struct runner *r, struct mc_run *run)
{
	const struct mc_vmm_run *m = r->machine;
	const uint64_t end = m->guest.end_ns, shift = m->started_ns - end;
	struct mc_record *records = (struct mc_record *)((char *)r->machine + records_at(r));

	if (!m->started)
		return;
	for (uint32_t i = 0; i < guest_plan(r)->nsteps; i++) {
		if (i >= m->nrecords)
			records[i].start_ns = 0;
		if (!records[i].start_ns)
			continue;
		records[i].start_ns += shift;
		records[i].end_ns = (records[i].end_ns ? records[i].end_ns : end) + shift;
	}
	*run = (struct mc_run){ .plan = guest_plan(r), .records = records };
}
