/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * worker.c: threads of devices, and the eventfds by which they are woken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "virtio/worker.h"

/* What a thread does first, and then. */
struct start {
	void (*begin)(void *context, int number);
	void *context;
	int number;
	void *(*body)(void *);
	void *argument;
};

static struct start next;

void mc_worker_begin_with(void (*begin)(void *context, int number), void *context, int number)
{
	next = (struct start){ .begin = begin, .context = context, .number = number };
}

static void *run(void *argument)
{
	struct start *start = argument;
	void (*begin)(void *context, int number) = start->begin;
	void *(*body)(void *) = start->body;
	void *context = start->context, *of_body = start->argument;
	int number = start->number;

	free(start); /* may map memory, which a thread that has begun may not be allowed to do */
	if (begin)
		begin(context, number);
	return body(of_body);
}

int mc_worker_start(pthread_t *thread, void *(*body)(void *), void *argument)
{
	struct start *start = malloc(sizeof(*start));
	sigset_t blocked, before;
	int error;

	if (!start)
		return -ENOMEM;
	*start = next;
	start->body = body;
	start->argument = argument;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGTTIN);
	sigdelset(&blocked, SIGTTOU);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(thread, NULL, run, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
		free(start);
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
