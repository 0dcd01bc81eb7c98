/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/ended.c: what a machine says after its end, in the words of the library (minicontainer/container/machine/
 * start.py and run.py). What the monitor has written is checked as any other's data.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "compiled/texts.h"
#include "plan/walk.h"
#include "vmm/machine.h"

#define LINES 12 /* of the console that are shown */
#define PANIC "Kernel panic"

/* ---- the console of the guest's kernel */

static uint32_t console_size(const struct mc_vmm_run *m)
{
	return m->console_size < sizeof(m->console) ? m->console_size : (uint32_t)sizeof(m->console);
}

static int is_printed(char c)
{
	return c == '\n' || (c >= ' ' && c <= '~');
}

/* Its last lines, which nobody but the guest is responsible for. */
static void show_console(const struct mc_vmm_run *m)
{
	char shown[3 * sizeof(m->console) + 4];
	struct text t = { shown, shown + sizeof(shown) };
	const uint32_t size = console_size(m);
	uint32_t from = size;

	for (int lines = 0; from > 0; from--)
		if (m->console[from - 1] == '\n' && from < size && ++lines == LINES)
			break;
	for (uint32_t i = from; i < size; i++) {
		const char c = m->console[i];

		if (c == '\r')
			continue;
		if (i == from || m->console[i - 1] == '\n')
			put(&t, "  ");
		put_bytes(&t, is_printed(c) ? &c : "?", 1);
	}
	if (size && m->console[size - 1] != '\n')
		put(&t, "\n");
	write_all(2, shown, (size_t)(t.at - shown));
}

/* The kernel's line about its panic, without the time, into `line`; whether there is one. */
static int find_panic(const struct mc_vmm_run *m, char *line, size_t room)
{
	const uint32_t size = console_size(m), length = sizeof(PANIC) - 1;
	struct text t = { line, line + room - 1 };
	uint32_t i = 0;

	while (i + length <= size && !begins(m->console + i, PANIC, length))
		i++;
	if (i + length > size)
		return 0;
	for (; i < size && m->console[i] != '\n'; i++)
		if (m->console[i] != '\r')
			put_bytes(&t, is_printed(m->console[i]) ? m->console + i : "?", 1);
	*t.at = 0;
	return 1;
}

static int complain_of(const struct mc_vmm_run *m, const char *what, const char *reason)
{
	complain(what, NULL, reason, NULL);
	show_console(m);
	return FAILED;
}

/* ---- the end of a machine whose program has not ended */

static const char *end_name(const struct mc_vmm_run *m)
{
	switch ((enum mc_vmm_end)m->end) {
	case MC_VMM_RUNS:
		return NULL;
	case MC_VMM_RESET:
		return "reset";
	case MC_VMM_POWEROFF:
		return "poweroff";
	case MC_VMM_TRIPLE_FAULT:
		return "triple-fault";
	case MC_VMM_KVM_ERROR:
		break;
	}
	return "kvm-error";
}

/* A thread of the monitor has called what its role may not: the kernel has ended it (csrc/vmm/confine.c). */
static int is_forbidden(const struct runner *r)
{
	return !r->machine->exited && r->spawn->status == -SIGSYS;
}

int ended_status(const struct runner *r)
{
	if (r->machine->exited)
		return r->machine->exit.status;
	return is_forbidden(r) ? FAILED : r->spawn->status;
}

int ended_out_of_memory(const struct runner *r)
{
	return r->guest && r->machine->exited && r->machine->exit.oom_kills;
}

static void ended_with(const struct mc_vmm_run *m, const char *before, const char *end)
{
	char reason[512], panic[256];
	struct text t = { reason, reason + sizeof(reason) - 1 };

	put(&t, before);
	put(&t, " (");
	put(&t, find_panic(m, panic, sizeof(panic)) ? panic : end);
	put(&t, ")");
	*t.at = 0;
	complain_of(m, "machine", reason);
}

void ended_explain(const struct runner *r)
{
	const struct mc_vmm_run *m = r->machine;

	if (is_forbidden(r))
		complain_of(m, "machine", "its monitor was ended at a system call that it may not make");
	else if (!m->exited && end_name(m))
		ended_with(m, "the guest has ended before its program", end_name(m));
}

/* ---- a machine in which the program does not run */

static void copy(char *to, const char *from)
{
	memcpy(to, from, MC_VMM_TEXT);
	to[MC_VMM_TEXT - 1] = 0;
}

/* Without a word of its init. */
static int explain_silent(const struct mc_vmm_run *m)
{
	char what[MC_VMM_TEXT], reason[2 * MC_VMM_TEXT], panic[64];
	struct text t = { reason, reason + sizeof(reason) - 1 };
	const char *end = end_name(m);

	copy(what, m->what);
	if (m->end == MC_VMM_KVM_ERROR) {
		put(&t, "its processor was stopped (");
		put(&t, what);
		put(&t, "): a Linux kernel needs KVM on a processor with virtualisation (minicontainer doctor)");
	} else if (m->error) {
		put_capital(&t, error_text(m->error));
		*t.at = 0;
		if (begins(what, "KVM_", 4))
			return complain(what, NULL, reason, NULL);
		return complain_of(m, *what ? what : "machine", error_text(m->error));
	} else {
		put(&t, "the guest has ended before its program ran (");
		put(&t, find_panic(m, panic, sizeof(panic)) ? "panic" : end ? end : "its monitor has ended");
		put(&t, ")");
	}
	*t.at = 0;
	return complain_of(m, "machine", reason);
}

static int explain_ended_step(const struct runner *r, const struct mc_guest_failed *f)
{
	char reason[1024];
	struct text t = { reason, reason + sizeof(reason) - 1 };

	put(&t, "the guest's ");
	put_call(&t, step_text(r->c, r->guest->texts, (uint32_t)f->step, TEXT_CALL), r->place.id);
	put(&t, " has ended with status ");
	put_number(&t, f->status);
	*t.at = 0;
	return complain_of(r->machine, "machine", reason);
}

static int explain_init(const struct mc_vmm_run *m, int error)
{
	char text[MC_VMM_TEXT], reason[2 * MC_VMM_TEXT];
	struct text t = { reason, reason + sizeof(reason) - 1 };

	copy(text, m->text);
	put(&t, text);
	put(&t, ": ");
	put(&t, error_text(error));
	*t.at = 0;
	return complain_of(m, "machine", reason);
}

int ended_before(struct runner *r)
{
	const struct mc_vmm_run *m = r->machine;
	const struct mc_plan *plan = guest_plan(r);
	const struct mc_guest_failed f = m->failure;
	const int is_step = f.step >= 0 && (uint32_t)f.step < plan->nsteps;

	if (!m->failed)
		return explain_silent(m);
	if (f.kind == MC_GUEST_EXEC_FAILED ||
	    (f.kind == MC_GUEST_STEP_FAILED && is_step && step_at(plan, (uint32_t)f.step)->op == MC_EXEC))
		return explain_program(r, f.error, &f.program);
	if (f.kind == MC_GUEST_STEP_FAILED && is_step)
		return explain_step(r, r->guest->texts, (uint32_t)f.step, -f.error);
	if (f.kind == MC_GUEST_CLONE_FAILED)
		return complain_errno("clone3 in the guest", NULL, f.error, NULL);
	if (f.kind == MC_GUEST_STEP_ENDED && is_step)
		return explain_ended_step(r, &f);
	return explain_init(m, f.error);
}
