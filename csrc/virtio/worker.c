/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * worker.c: threads of devices, and the eventfds by which they are woken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "virtio/worker.h"

int mc_worker_start(pthread_t *thread, void *(*body)(void *), void *argument)
{
	sigset_t blocked, before;
	int error;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGTTIN);
	sigdelset(&blocked, SIGTTOU);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(thread, NULL, body, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

int mc_event_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

/* The only error of a sound eventfd is EAGAIN: its counter is full, so it is readable. */
void mc_event_signal(int fd)
{
	if (fd >= 0)
		eventfd_write(fd, 1);
}

/* EAGAIN: it was not readable. */
void mc_event_clear(int fd)
{
	eventfd_t count;

	eventfd_read(fd, &count);
}
