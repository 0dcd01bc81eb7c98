/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fs.c: a file system device (virtio 1.3, 5.11).
 *
 * Theory of operation. A thread takes a chain of its queue under the device's lock, has it answered without the lock,
 * and gives it back. The queue of high priority has a thread of its own, so it never waits for requests (5.11.6.2.1).
 * The request queue has several, so that requests do not wait for a slow one; they may be answered in any order
 * (5.11.6.1). A notification wakes one of them; it wakes another one if there is more to do.
 *
 * Threads write to buffers of the guest without the lock: a reset waits until all have done that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "virtio/fs.h"
#include "virtio/worker.h"

#define HIPRIO 0
#define REQUESTS 1
#define THREADS 5 /* the first is that of HIPRIO */

struct worker {
	struct mc_virtio_fs *device;
	struct mc_ring *ring;
	int kick;
	int epoll;              /* of `kick` and the device's `stop` */
	int has_thread;
	pthread_t thread;
	struct mc_chain chain;
};

struct mc_virtio_fs {
	struct mc_virtio virtio;
	struct virtio_fs_config config;
	struct mc_fs *fs;
	int stop;               /* eventfd: readable from mc_virtio_fs_stop on */
	int stopping;           /* atomic */
	uint32_t busy;          /* requests that are being answered */
	pthread_cond_t idle;    /* there are none */
	struct worker workers[THREADS];
};

static void quiesce(struct mc_virtio *v);

static const struct mc_virtio_type TYPE = {
	.name = "fs",
	.id = VIRTIO_ID_FS,
	.nqueues = 2,
	.sizes = { 64, MC_RING_SIZE },
	.config_size = sizeof(struct virtio_fs_config),
	.quiesce = quiesce,
};

static void quiesce(struct mc_virtio *v)
{
	struct mc_virtio_fs *d = (struct mc_virtio_fs *)v;

	while (d->busy)
		pthread_cond_wait(&d->idle, &v->lock);
}

/* ---- threads */

/* Answers the worker's chain, without the lock. */
static void answer(struct worker *w)
{
	struct mc_virtio_fs *d = w->device;
	const struct mc_chain *c = &w->chain;
	size_t size;

	if (mc_ring_waiting(w->ring))
		mc_event_signal(w->kick);
	d->busy++;
	pthread_mutex_unlock(&d->virtio.lock);
	size = mc_fs_handle(d->fs, c->parts, c->nread, c->parts + c->nread, c->nwrite);
	pthread_mutex_lock(&d->virtio.lock);
	mc_virtio_give(&d->virtio, w->ring, c, (uint32_t)size);
	d->busy--;
	if (d->busy == 0)
		pthread_cond_broadcast(&d->idle);
}

static void wait(struct worker *w)
{
	struct epoll_event event;

	pthread_mutex_unlock(&w->device->virtio.lock);
	epoll_wait(w->epoll, &event, 1, -1);
	mc_event_clear(w->kick);
	pthread_mutex_lock(&w->device->virtio.lock);
}

static void *run(void *argument)
{
	struct worker *w = argument;
	struct mc_virtio *v = &w->device->virtio;

	pthread_mutex_lock(&v->lock);
	while (!__atomic_load_n(&w->device->stopping, __ATOMIC_RELAXED)) {
		if (mc_virtio_take(v, w->ring, &w->chain))
			answer(w);
		else
			wait(w);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

/* ---- its life */

/* EPOLLEXCLUSIVE: a notification wakes one thread of those that wait (epoll_ctl(2)). */
static int init_worker(struct mc_virtio_fs *d, struct worker *w, uint32_t queue)
{
	struct epoll_event kick = { .events = EPOLLIN | EPOLLEXCLUSIVE }, stop = { .events = EPOLLIN };

	w->device = d;
	w->ring = &d->virtio.rings[queue];
	w->kick = d->virtio.kicks[queue];
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->kick, &kick) < 0 ||
	    epoll_ctl(w->epoll, EPOLL_CTL_ADD, d->stop, &stop) < 0)
		return -errno;
	return 0;
}

static int init_workers(struct mc_virtio_fs *d)
{
	int r = 0;

	d->stop = mc_event_new();
	for (int i = 0; i < THREADS; i++)
		d->workers[i].epoll = -1;
	if (d->stop < 0)
		return d->stop;
	for (int i = 0; i < THREADS && r == 0; i++)
		r = init_worker(d, &d->workers[i], i == 0 ? HIPRIO : REQUESTS);
	return r;
}

struct mc_virtio_fs *mc_virtio_fs_new(const struct mc_memory *memory, struct mc_fs *fs, const char *tag)
{
	const size_t length = strlen(tag);
	struct mc_virtio_fs *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return NULL;
	r = length == 0 || length > sizeof(d->config.tag) ? -EINVAL : 0;
	if (r == 0)
		r = mc_virtio_init(&d->virtio, &TYPE, memory, &d->config);
	if (r < 0) {
		free(d);
		errno = -r;
		return NULL;
	}
	d->fs = fs;
	memcpy(d->config.tag, tag, length); /* padded with NULs (5.11.4) */
	d->config.num_request_queues = 1;
	pthread_cond_init(&d->idle, NULL);
	r = init_workers(d);
	if (r < 0) {
		mc_virtio_fs_free(d);
		errno = -r;
		return NULL;
	}
	return d;
}

struct mc_virtio *mc_virtio_fs_virtio(struct mc_virtio_fs *d)
{
	return &d->virtio;
}

int mc_virtio_fs_start(struct mc_virtio_fs *d)
{
	int r = 0;

	for (int i = 0; i < THREADS && r == 0; i++) {
		r = mc_worker_start(&d->workers[i].thread, run, &d->workers[i]);
		d->workers[i].has_thread = r == 0;
	}
	if (r < 0)
		mc_virtio_fs_stop(d);
	return r;
}

void mc_virtio_fs_stop(struct mc_virtio_fs *d)
{
	__atomic_store_n(&d->stopping, 1, __ATOMIC_RELAXED);
	mc_event_signal(d->stop);
	for (int i = 0; i < THREADS; i++) {
		if (d->workers[i].has_thread)
			pthread_join(d->workers[i].thread, NULL);
		d->workers[i].has_thread = 0;
	}
}

void mc_virtio_fs_free(struct mc_virtio_fs *d)
{
	if (!d)
		return;
	mc_virtio_fs_stop(d);
	for (int i = 0; i < THREADS; i++)
		if (d->workers[i].epoll >= 0)
			close(d->workers[i].epoll);
	if (d->stop >= 0)
		close(d->stop);
	pthread_cond_destroy(&d->idle);
	mc_virtio_end(&d->virtio);
	free(d);
}
