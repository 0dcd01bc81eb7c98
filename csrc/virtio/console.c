/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * console.c: a console device with four ports (virtio 1.3, 5.3).
 *
 * Theory of operation. One thread handles control messages (multiport.c); each direction of a port that has a
 * descriptor has one more (port.c). All wait for the eventfds of their queues, by which they are also woken when a
 * port opens or closes, after a reset, and to stop.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "virtio/port.h"
#include "virtio/worker.h"

static const char *const NAMES[MC_PORTS] = { "control", "stdin", "stdout", "stderr" };
static const struct virtio_console_config CONFIG = { .max_nr_ports = MC_PORTS };

static void reset(struct mc_virtio *v);

/* Linux fills each receive queue with pages, also those that are never used, and copies each write to a page or more:
 * so queues are as short as their purpose allows. */
static const struct mc_virtio_type TYPE = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.nqueues = 2 * (MC_PORTS + 1),
	.sizes = { 16, 16, 16, 16, 32, 2, 2, 32, 2, 32 },
	.features = 1u << VIRTIO_CONSOLE_F_MULTIPORT,
	.config_size = sizeof(CONFIG),
	.reset = reset,
};

/* The guest knows of no port. One that it was closing is closed without what was not written. */
static void reset(struct mc_virtio *v)
{
	struct mc_console *c = (struct mc_console *)v;

	for (int i = 0; i < MC_PORTS; i++) {
		struct mc_port *p = &c->ports[i];

		p->added = p->ready = p->open = 0;
		p->messages = 0;
		mc_event_signal(p->in.kick);
		mc_event_signal(p->out.kick);
	}
	pthread_cond_broadcast(&c->progress);
}

/* ---- its life */

static void init_flow(struct mc_console *c, struct mc_flow *f, int queue)
{
	f->ring = &c->virtio.rings[queue];
	f->kick = c->virtio.kicks[queue];
}

static void init_ports(struct mc_console *c, const int fds[MC_PORTS])
{
	for (int i = 0; i < MC_PORTS; i++) {
		struct mc_port *p = &c->ports[i];

		p->console = c;
		p->name = NAMES[i];
		p->fd = fds[i];
		p->connected = fds[i] >= 0;
		init_flow(c, &p->in, MC_PORT_QUEUE(i));
		init_flow(c, &p->out, MC_PORT_QUEUE(i) + 1);
	}
}

struct mc_console *mc_console_new(const struct mc_memory *memory, const int fds[MC_PORTS])
{
	struct mc_console *c = calloc(1, sizeof(*c));
	pthread_condattr_t monotonic;
	int r;

	if (!c)
		return NULL;
	r = mc_virtio_init(&c->virtio, &TYPE, memory, &CONFIG);
	if (r < 0) {
		free(c);
		errno = -r;
		return NULL;
	}
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&c->progress, &monotonic);
	pthread_condattr_destroy(&monotonic);
	init_ports(c, fds);
	return c;
}

struct mc_virtio *mc_console_virtio(struct mc_console *c)
{
	return &c->virtio;
}

void mc_console_free(struct mc_console *c)
{
	if (!c)
		return;
	mc_console_stop(c);
	for (int i = 0; i < MC_PORTS; i++)
		if (c->ports[i].fd >= 0)
			close(c->ports[i].fd);
	pthread_cond_destroy(&c->progress);
	mc_virtio_end(&c->virtio);
	free(c);
}

/* ---- its threads */

/* Waits for notifications of the queues that this thread serves. */
static void wait(struct mc_console *c)
{
	struct pollfd polled[2 + MC_PORTS] = {
		{ .fd = c->virtio.kicks[MC_CONTROL_IN], .events = POLLIN },
		{ .fd = c->virtio.kicks[MC_CONTROL_OUT], .events = POLLIN },
	};

	for (int i = 0; i < MC_PORTS; i++) {
		const struct mc_flow *out = &c->ports[i].out;

		polled[2 + i] = (struct pollfd){ .fd = out->has_thread ? -1 : out->kick, .events = POLLIN };
	}
	poll(polled, 2 + MC_PORTS, -1);
	for (int i = 0; i < 2 + MC_PORTS; i++)
		if (polled[i].fd >= 0)
			mc_event_clear(polled[i].fd);
}

static void *run(void *argument)
{
	struct mc_console *c = argument;

	pthread_mutex_lock(&c->virtio.lock);
	while (!__atomic_load_n(&c->stopping, __ATOMIC_RELAXED)) {
		mc_multiport_receive(c);
		mc_multiport_send(c);
		for (int i = 0; i < MC_PORTS; i++)
			if (!c->ports[i].out.has_thread)
				mc_port_discard(&c->ports[i]);
		pthread_mutex_unlock(&c->virtio.lock);
		wait(c);
		pthread_mutex_lock(&c->virtio.lock);
	}
	pthread_mutex_unlock(&c->virtio.lock);
	return NULL;
}

int mc_console_start(struct mc_console *c)
{
	int r = 0;

	for (int i = 0; i < MC_PORTS && r == 0; i++)
		r = mc_port_start(&c->ports[i]);
	if (r == 0) {
		r = mc_worker_start(&c->thread, run, c);
		c->has_thread = r == 0;
	}
	if (r < 0)
		mc_console_stop(c);
	return r;
}

void mc_console_stop(struct mc_console *c)
{
	__atomic_store_n(&c->stopping, 1, __ATOMIC_RELAXED);
	if (c->has_thread) {
		mc_event_signal(c->virtio.kicks[MC_CONTROL_OUT]);
		pthread_join(c->thread, NULL);
		c->has_thread = 0;
	}
	for (int i = 0; i < MC_PORTS; i++)
		mc_port_join(&c->ports[i]);
	pthread_mutex_lock(&c->virtio.lock);
	pthread_cond_broadcast(&c->progress);
	pthread_mutex_unlock(&c->virtio.lock);
}

/* ---- for the caller */

static struct timespec in_ms(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += ms % 1000 * 1000000l;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

static int is_behind(const struct mc_console *c)
{
	return mc_port_is_behind(&c->ports[MC_PORT_STDOUT]) || mc_port_is_behind(&c->ports[MC_PORT_STDERR]);
}

int mc_console_drain(struct mc_console *c, int timeout_ms)
{
	const struct timespec until = in_ms(timeout_ms > 0 ? timeout_ms : 0);
	int error = 0;

	mc_event_signal(c->ports[MC_PORT_STDOUT].out.kick); /* the guest may have been stopped before it did so */
	mc_event_signal(c->ports[MC_PORT_STDERR].out.kick);
	pthread_mutex_lock(&c->virtio.lock);
	while (error == 0 && is_behind(c)) {
		if (__atomic_load_n(&c->stopping, __ATOMIC_RELAXED))
			error = ECANCELED;
		else if (timeout_ms < 0)
			error = pthread_cond_wait(&c->progress, &c->virtio.lock);
		else
			error = pthread_cond_timedwait(&c->progress, &c->virtio.lock, &until);
	}
	pthread_mutex_unlock(&c->virtio.lock);
	return -error;
}

int mc_console_error(struct mc_console *c, enum mc_port_number port)
{
	int error;

	pthread_mutex_lock(&c->virtio.lock);
	error = c->ports[port].error;
	pthread_mutex_unlock(&c->virtio.lock);
	return error;
}
