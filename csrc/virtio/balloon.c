/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * balloon.c: a memory balloon device (virtio 1.3, 5.5) that never asks for a page, with free page reporting.
 *
 * Theory of operation. Its target (num_pages) is 0 for ever, so a driver has nothing to put into the balloon; what one
 * puts there all the same stays its own. The buffers of the reporting queue are pages that the guest does not use:
 * their whole pages on the host are discarded, and the buffer is given back. All of that is done with the device's
 * lock held, so no thread discards a page of a ring that was stopped (mc_virtio_type.quiesce). Only accesses of the
 * guest to this device's registers wait for it meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "virtio/balloon.h"
#include "virtio/worker.h"

/* 5.5.2: queues for features that were not negotiated have no index, and VIRTIO_BALLOON_F_STATS_VQ and
 * VIRTIO_BALLOON_F_FREE_PAGE_HINT, whose queues would be before the last, are not offered. */
enum queue { INFLATE, DEFLATE, REPORTING, QUEUES };

struct mc_balloon {
	struct mc_virtio virtio;
	int has_thread;
	pthread_t thread;
	int stopping;           /* atomic */
	struct mc_chain chain;  /* the thread's own */
};

/* 5.5.4: what follows is there with further features only. */
static const struct {
	uint32_t num_pages, actual;
} CONFIG;

/* Linux reports at most 32 ranges at once, and wants a queue that has room for them (PAGE_REPORTING_CAPACITY). */
static const struct mc_virtio_type TYPE = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.nqueues = QUEUES,
	.sizes = { 16, 16, 32 },
	.features = 1u << VIRTIO_BALLOON_F_REPORTING,
	.config_size = sizeof(CONFIG),
};

/* ---- its thread */

/* Discards the whole pages of a part. One that cannot be discarded (it is locked in memory) stays as it is. */
static void discard(const struct iovec *part)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)part->iov_base;
	const uintptr_t first = (from + page - 1) & ~(page - 1), end = (from + part->iov_len) & ~(page - 1);

	if (first < end)
		madvise((void *)first, end - first, MADV_DONTNEED);
}

static void take_report(struct mc_balloon *b, struct mc_ring *ring)
{
	const struct mc_chain *c = &b->chain;

	if (c->nread) {
		mc_virtio_break(&b->virtio, ring, "a reported buffer is not for the device to write");
		return;
	}
	for (uint32_t i = 0; i < c->nwrite; i++)
		discard(&c->parts[i]);
	mc_virtio_give(&b->virtio, ring, c, 0);
}

static void serve(struct mc_balloon *b)
{
	for (uint32_t queue = 0; queue < QUEUES; queue++) {
		struct mc_ring *ring = &b->virtio.rings[queue];

		while (mc_virtio_take(&b->virtio, ring, &b->chain)) {
			if (queue == REPORTING)
				take_report(b, ring);
			else
				mc_virtio_give(&b->virtio, ring, &b->chain, 0);
		}
	}
}

static void wait(struct mc_balloon *b)
{
	struct pollfd polled[QUEUES];

	for (int i = 0; i < QUEUES; i++)
		polled[i] = (struct pollfd){ .fd = b->virtio.kicks[i], .events = POLLIN };
	poll(polled, QUEUES, -1);
	for (int i = 0; i < QUEUES; i++)
		mc_event_clear(b->virtio.kicks[i]);
}

static void *run(void *argument)
{
	struct mc_balloon *b = argument;

	while (!__atomic_load_n(&b->stopping, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&b->virtio.lock);
		serve(b);
		pthread_mutex_unlock(&b->virtio.lock);
		wait(b);
	}
	return NULL;
}

/* ---- its life */

struct mc_balloon *mc_balloon_new(const struct mc_memory *memory)
{
	struct mc_balloon *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return NULL;
	r = mc_virtio_init(&b->virtio, &TYPE, memory, &CONFIG);
	if (r < 0) {
		free(b);
		errno = -r;
		return NULL;
	}
	return b;
}

struct mc_virtio *mc_balloon_virtio(struct mc_balloon *b)
{
	return &b->virtio;
}

int mc_balloon_start(struct mc_balloon *b)
{
	int r = mc_worker_start(&b->thread, run, b);

	b->has_thread = r == 0;
	return r;
}

void mc_balloon_stop(struct mc_balloon *b)
{
	if (!b->has_thread)
		return;
	__atomic_store_n(&b->stopping, 1, __ATOMIC_RELAXED);
	mc_event_signal(b->virtio.kicks[REPORTING]);
	pthread_join(b->thread, NULL);
	b->has_thread = 0;
}

void mc_balloon_free(struct mc_balloon *b)
{
	if (!b)
		return;
	mc_balloon_stop(b);
	mc_virtio_end(&b->virtio);
	free(b);
}
