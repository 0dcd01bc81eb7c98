/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * server.c: threads that answer the chains of a device's queues.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "virtio/server.h"
#include "virtio/worker.h"

void mc_server_quiesce(struct mc_virtio *v)
{
	struct mc_server *s = (struct mc_server *)v;

	while (s->busy)
		pthread_cond_wait(&s->idle, &v->lock);
}

/* ---- threads */

/* Answers the thread's chain, without the lock. */
static void answer(struct mc_server_thread *t)
{
	struct mc_server *s = t->server;
	const char *why;
	uint32_t written = 0;

	if (mc_ring_waiting(t->ring))
		mc_event_signal(t->kick);
	s->busy++;
	pthread_mutex_unlock(&s->virtio.lock);
	why = s->answer(s, &t->chain, &written);
	pthread_mutex_lock(&s->virtio.lock);
	if (why && t->chain.epoch == t->ring->epoch)
		mc_virtio_break(&s->virtio, t->ring, why);
	else if (!why)
		mc_virtio_give(&s->virtio, t->ring, &t->chain, written);
	s->busy--;
	if (s->busy == 0)
		pthread_cond_broadcast(&s->idle);
}

static void wait(struct mc_server_thread *t)
{
	struct epoll_event event;

	pthread_mutex_unlock(&t->server->virtio.lock);
	epoll_wait(t->epoll, &event, 1, -1);
	mc_event_clear(t->kick);
	pthread_mutex_lock(&t->server->virtio.lock);
}

static void *run(void *argument)
{
	struct mc_server_thread *t = argument;
	struct mc_virtio *v = &t->server->virtio;

	pthread_mutex_lock(&v->lock);
	while (!__atomic_load_n(&t->server->stopping, __ATOMIC_RELAXED)) {
		if (mc_virtio_take(v, t->ring, &t->chain))
			answer(t);
		else
			wait(t);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

/* ---- its life */

/* EPOLLEXCLUSIVE: a notification wakes one thread of those that wait (epoll_ctl(2)). */
static int init_thread(struct mc_server *s, uint32_t queue)
{
	struct epoll_event kick = { .events = EPOLLIN | EPOLLEXCLUSIVE }, stop = { .events = EPOLLIN };
	struct mc_server_thread *t = &s->threads[s->nthreads];

	t->server = s;
	t->ring = &s->virtio.rings[queue];
	t->kick = s->virtio.kicks[queue];
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (t->epoll < 0)
		return -errno;
	s->nthreads++;
	if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, t->kick, &kick) < 0 ||
	    epoll_ctl(t->epoll, EPOLL_CTL_ADD, s->stop, &stop) < 0)
		return -errno;
	return 0;
}

int mc_server_init(struct mc_server *s, const struct mc_virtio_type *type, const struct mc_memory *memory,
		   const void *config, const uint32_t *threads, mc_server_answer *answers)
{
	int r = mc_virtio_init(&s->virtio, type, memory, config);

	if (r < 0)
		return r;
	s->answer = answers;
	pthread_cond_init(&s->idle, NULL);
	s->stop = mc_event_new();
	if (s->stop < 0)
		r = s->stop;
	for (uint32_t queue = 0; queue < type->nqueues; queue++)
		for (uint32_t i = 0; i < threads[queue] && r == 0; i++)
			r = init_thread(s, queue);
	if (r < 0)
		mc_server_end(s);
	return r;
}

int mc_server_start(struct mc_server *s)
{
	int r = 0;

	for (uint32_t i = 0; i < s->nthreads && r == 0; i++) {
		r = mc_worker_start(&s->threads[i].thread, run, &s->threads[i]);
		s->threads[i].has_thread = r == 0;
	}
	if (r < 0)
		mc_server_stop(s);
	return r;
}

void mc_server_stop(struct mc_server *s)
{
	__atomic_store_n(&s->stopping, 1, __ATOMIC_RELAXED);
	mc_event_signal(s->stop);
	for (uint32_t i = 0; i < s->nthreads; i++) {
		if (s->threads[i].has_thread)
			pthread_join(s->threads[i].thread, NULL);
		s->threads[i].has_thread = 0;
	}
}

void mc_server_end(struct mc_server *s)
{
	mc_server_stop(s);
	for (uint32_t i = 0; i < s->nthreads; i++)
		close(s->threads[i].epoll);
	if (s->stop >= 0)
		close(s->stop);
	pthread_cond_destroy(&s->idle);
	mc_virtio_end(&s->virtio);
}
