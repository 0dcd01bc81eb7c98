/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * worker.h: threads of devices, and the eventfds by which they are woken.
 */
#ifndef MC_VIRTIO_WORKER_H
#define MC_VIRTIO_WORKER_H

#include <pthread.h>

/* pthread_create, with all signals blocked that are for the program: it handles them in its own threads. SIGTTIN and
 * SIGTTOU are left: a device that uses the terminal from the background stops the program, as is usual. Returns 0, or
 * -errno. */
int mc_worker_start(pthread_t *thread, void *(*body)(void *), void *argument);

/* What every thread that is started from now on calls first; NULL: nothing. The caller starts threads one after the
 * other. */
void mc_worker_begin_with(void (*begin)(void *context, int number), void *context, int number);

/* An eventfd of the kind that the functions below want, or -errno. */
int mc_event_new(void);

/* Makes an eventfd readable; -1: there is none. */
void mc_event_signal(int fd);

/* Makes it unreadable. */
void mc_event_clear(int fd);

#endif
