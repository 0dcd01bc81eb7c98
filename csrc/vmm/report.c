/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * report.c: what the caller learns of a machine: errors, the end of what the kernel has printed, and the end.
 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define FAILED 125

/* Only the caller's part of the memfd has values that count: a restart of the container uses it again. */
void mc_vmm_reset(struct mc_vmm_run *run)
{
	const size_t out = offsetof(struct mc_vmm_run, error);

	memset((char *)run + out, 0, sizeof(*run) - out);
	run->nrecords = (run->size - run->records) / sizeof(struct mc_record);
	memset((char *)run + run->records, 0, run->nrecords * sizeof(struct mc_record));
}

/* ---- the start */

/* -errno of a step of the guest's plan; a machine that could not walk it has no errno that concerns the program. */
static int start_error(const struct mc_vmm_run *run)
{
	const int is_step = run->failure.kind == MC_GUEST_STEP_FAILED || run->failure.kind == MC_GUEST_EXEC_FAILED;

	if (run->started)
		return 0;
	return run->failed && is_step && run->failure.error > 0 ? run->failure.error : ECANCELED;
}

void mc_vmm_report_start(const struct mc_vmm_run *run)
{
	const struct mc_vmm_report report = { start_error(run), run->failure.program };

	if (write(MC_VMM_REPORT_FD, &report, sizeof(report)) != sizeof(report))
		_exit(FAILED); /* who waits for it is gone */
	close(MC_VMM_REPORT_FD);
}

/* ---- the end */

/* Ends the monitor, and with it every thread. The kernel frees the machine. */
void mc_vmm_exit(const struct mc_vmm *vmm, int code)
{
	if (vmm->run && !vmm->run->started)
		mc_vmm_report_start(vmm->run);
	_exit(code);
}

void mc_vmm_fail(struct mc_vmm *vmm, int error, const char *what, ...)
{
	va_list arguments;

	if (vmm->run) {
		va_start(arguments, what);
		vsnprintf(vmm->run->what, sizeof(vmm->run->what), what, arguments);
		va_end(arguments);
		vmm->run->error = error;
	}
	mc_vmm_exit(vmm, FAILED);
}

/* Keeps the last bytes of the kernel's console, which say why a machine has ended. */
void mc_vmm_print(struct mc_vmm *vmm, const char *text, size_t size)
{
	struct mc_vmm_run *run = vmm->run;
	size_t kept;

	if (size > sizeof(run->console)) {
		text += size - sizeof(run->console);
		size = sizeof(run->console);
	}
	pthread_mutex_lock(&vmm->lock);
	kept = sizeof(run->console) - size < run->console_size ? sizeof(run->console) - size : run->console_size;
	memmove(run->console, run->console + run->console_size - kept, kept);
	memcpy(run->console + kept, text, size);
	run->console_size = (uint32_t)(kept + size);
	pthread_mutex_unlock(&vmm->lock);
}
