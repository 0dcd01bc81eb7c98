/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/signals.c: forwards signals to process 1, as `minicontainer run` does: SIGTERM as the stop signal, followed
 * by SIGKILL after the stop timeout; a second SIGINT kills. They are blocked and received by signalfd(2), so that none
 * is lost, also during the start. Signals that the caller ignores or blocks stay so (nohup(1)).
 *
 * Others must not end this process before it has cleaned up: a write to a closed pipe, or beyond RLIMIT_FSIZE, is an
 * error of write(2). SIGCHLD gets its default, or the kernel would discard the status of process 1 (wait(2)).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "compiled/compiled.h"

static const int forwarded[] = { SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGUSR1,
				 SIGUSR2, SIGALRM, SIGCONT, SIGTSTP, SIGWINCH };

static uint64_t bit(int number)
{
	return 1ull << (number - 1);
}

struct kernel_sigaction { /* of rt_sigaction(2); libc's differs */
	uint64_t handler, flags, restorer, mask;
};

static int is_ignored(int number)
{
	struct kernel_sigaction action = { 0 };

	mc_sys4(SYS_rt_sigaction, (uint64_t)number, 0, MC_PTR(&action), 8);
	return action.handler == 1; /* SIG_IGN */
}

static uint64_t accepted; /* the signals that are forwarded */

int signals_open(struct runner *r)
{
	const uint64_t of_writes = bit(SIGPIPE) | bit(SIGXFSZ);
	const struct kernel_sigaction dfl = { 0 }; /* SIG_DFL is 0 */
	uint64_t before = 0;

	mc_sys4(SYS_rt_sigaction, SIGCHLD, MC_PTR(&dfl), 0, 8);
	mc_sys4(SYS_rt_sigprocmask, SIG_BLOCK, MC_PTR(&of_writes), MC_PTR(&before), 8);
	for (unsigned i = 0; i < sizeof(forwarded) / sizeof(*forwarded); i++)
		if (!(before & bit(forwarded[i])) && !is_ignored(forwarded[i]))
			accepted |= bit(forwarded[i]);
	mc_sys4(SYS_rt_sigprocmask, SIG_BLOCK, MC_PTR(&accepted), 0, 8);
	r->signals = (int)mc_sys4(SYS_signalfd4, MC_FD(-1), MC_PTR(&accepted), 8, SFD_CLOEXEC | SFD_NONBLOCK);
	return r->signals < 0 ? complain_errno("signalfd", NULL, r->signals, NULL) : 0;
}

void signals_close(void)
{
	mc_sys4(SYS_rt_sigprocmask, SIG_UNBLOCK, MC_PTR(&accepted), 0, 8);
}

static void send(struct runner *r, int number)
{
	if (r->spawn->pidfd >= 0 && !r->spawn->reaped)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(r->spawn->pidfd), (uint64_t)number, 0, 0);
}

void kill_all(struct runner *r)
{
	if (!r->spawn->reaped)
		resources_kill(r);
	send(r, SIGKILL);
}

static void kill_later(struct runner *r)
{
	if (!r->kill_at)
		r->kill_at = (int64_t)mc_now() + (int64_t)r->c->stop_timeout_ns;
}

/* A kernel takes seconds to boot: who ends the program now does not wait for that. */
static void keep(struct runner *r, int number)
{
	if (r->is_urgent && !r->given_up)
		r->given_up = number;
	if (number != SIGWINCH)
		r->pending |= bit(number);
}

static void forward(struct runner *r, int number)
{
	r->is_urgent |= number == SIGTERM || number == SIGINT || number == SIGHUP || number == SIGQUIT;
	if (r->is_booting) {
		keep(r, number);
		return;
	}
	if (number == SIGWINCH) {
		terminal_resize(r);
		return;
	}
	if (number == SIGINT && ++r->interrupts > 1) {
		kill_all(r);
		return;
	}
	if (number == SIGCONT)
		terminal_resume(r);
	if (number == SIGTERM) {
		kill_later(r);
		number = r->c->stop_signal;
	}
	send(r, number);
}

void signals_receive(struct runner *r)
{
	struct signalfd_siginfo info;

	while (mc_sys3(SYS_read, MC_FD(r->signals), MC_PTR(&info), sizeof(info)) == sizeof(info))
		forward(r, (int)info.ssi_signo);
}

void signals_resume(struct runner *r)
{
	r->is_booting = 0;
	for (unsigned i = 0; i < sizeof(forwarded) / sizeof(*forwarded); i++)
		if (r->pending & bit(forwarded[i]))
			forward(r, forwarded[i]);
}

void signals_hang_up(struct runner *r)
{
	if (r->kill_at)
		return;
	kill_later(r);
	send(r, SIGHUP);
}
