/* A monitor of a machine without one: it does what csrc/vmm does for its caller, as the word says that is its machine's
 * data. Linked with csrc/vmm/report.c, of which it thus tests what a restart clears, and confine.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/vmm.h"

static struct mc_vmm vmm;
static sigset_t all;

static void fail(int kind, int error)
{
	vmm.run->failed = 1;
	vmm.run->failure = (struct mc_guest_failed){ .kind = (uint32_t)kind, .error = error, .step = -1 };
	vmm.run->failure.program.path = -1;
	strcpy(vmm.run->text, "mount(virtiofs)");
	mc_vmm_exit(&vmm, 125);
}

static void start(void)
{
	vmm.run->started = 1;
	vmm.run->started_ns = vmm.run->guest.end_ns = 1;
	mc_vmm_report_start(vmm.run);
}

static int next_signal(void)
{
	int number = 0;

	sigwait(&all, &number);
	return number;
}

static void await_end(void)
{
	for (int number = next_signal(); number != SIGTERM; number = next_signal())
		printf("signal %d\n", number);
	printf("terminated\n");
	exit(143);
}

int main(void)
{
	char word[16] = "";
	struct mc_vmm_run *run;
	int is_again;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	run = vmm.run = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, MC_VMM_RUN_FD, 0);
	if (pread(MC_VMM_MACHINE_FD, word, sizeof(word) - 1, 0) < 0 || run->magic != MC_VMM_RUN_MAGIC)
		return 125;
	printf("%s: started %d, exited %d, records %u, of %u bytes\n", word, run->started, run->exited, run->nrecords,
	       run->start_size);
	is_again = run->exited;
	mc_vmm_reset(run);
	if (!strcmp(word, "missing"))
		fail(MC_GUEST_EXEC_FAILED, ENOENT);
	if (!strcmp(word, "unable"))
		fail(MC_GUEST_INIT_FAILED, ENODEV);
	if (!strcmp(word, "killed"))
		_exit(137);
	if (!strcmp(word, "hangs") || (!strcmp(word, "hangs later") && is_again))
		await_end();
	start();
	if (!strcmp(word, "forbidden") && mc_confine(MC_ROLE_MAIN) == 0)
		syscall(SYS_getppid);
	if (!strcmp(word, "out of memory") && !is_again) {
		run->exited = 1;
		run->exit = (struct mc_guest_exited){ .status = -SIGKILL, .oom_kills = 1 };
		return 128 + SIGKILL;
	}
	if (!strcmp(word, "ends") || !strcmp(word, "out of memory") || !strcmp(word, "hangs later")) {
		run->exited = 1;
		run->nrecords = 0;
		return 5;
	}
	await_end();
}
