/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/signals.c: the processes of the guest: the end of the program and of orphans, and signals to them.
 *
 * Theory of operation. All signals are blocked in init. A signalfd(2) tells of SIGCHLD; init, as process 1, is the
 * parent of every orphan, so it reaps whatever has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "guest/guest.h"

int signals_open(struct guest *g)
{
	const uint64_t all = ~0ull, accepted = 1ull << (SIGCHLD - 1);

	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), 0, 8);
	g->signals = (int)mc_sys4(SYS_signalfd4, MC_FD(-1), MC_PTR(&accepted), 8, SFD_CLOEXEC | SFD_NONBLOCK);
	return g->signals < 0 ? (int)report(g, "signalfd", "SIGCHLD", g->signals) : 0;
}

static uint64_t microseconds(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void record_end(struct guest *g, int status, const struct rusage *usage)
{
	g->has_ended = 1;
	g->exited.oom_kills = (uint32_t)(oom_kills(g->vmstat) - g->oom_kills);
	g->exited.status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
	g->exited.rusage[0] = microseconds(usage->ru_utime);
	g->exited.rusage[1] = microseconds(usage->ru_stime);
	g->exited.rusage[2] = (uint64_t)usage->ru_maxrss;
}

void signals_reap(struct guest *g)
{
	struct signalfd_siginfo info;
	struct rusage usage;
	int status = 0;
	long pid;

	mc_sys3(SYS_read, MC_FD(g->signals), MC_PTR(&info), sizeof(info)); /* one pending SIGCHLD stands for several */
	while ((pid = mc_sys4(SYS_wait4, MC_FD(-1), MC_PTR(&status), WNOHANG | __WALL, MC_PTR(&usage))) > 0)
		if (pid == g->spawn->pid)
			record_end(g, status, &usage);
	g->is_alone = pid == -ECHILD;
}

/* ESRCH: the program has ended. */
void signals_forward(struct guest *g, int number)
{
	mc_sys4(SYS_pidfd_send_signal, MC_FD(g->spawn->pidfd), (uint64_t)number, 0, 0);
}

/* Every process but this one; process 1 alone may do it. */
void signals_kill_all(void)
{
	if (mc_sys0(SYS_getpid) == 1)
		mc_sys2(SYS_kill, MC_FD(-1), SIGKILL);
}
