/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * port.c: moves bytes between a port's queues and its descriptor.
 *
 * Theory of operation. A thread holds the device's lock except while it waits, reads or writes. Input is read into
 * the port's buffer and copied to the guest under the lock, so that nothing is written to a buffer of a ring that was
 * stopped meanwhile. Output is written from the guest's memory, without the lock: a chain whose ring is stopped
 * meanwhile is still written, with what the guest has there by then, but not given back (mc_ring_give).
 *
 * A descriptor is closed by the thread that uses it; the control socket, which two use, is shut down at once, and
 * closed at the end. Reads and writes of the host may block for ever: only there a thread can be cancelled, and it
 * holds no lock there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio/port.h"
#include "virtio/worker.h"

static int is_stopping(const struct mc_port *p)
{
	return __atomic_load_n(&p->console->stopping, __ATOMIC_RELAXED);
}

static void lock(struct mc_port *p)
{
	pthread_mutex_lock(&p->console->virtio.lock);
}

static void unlock(struct mc_port *p)
{
	pthread_mutex_unlock(&p->console->virtio.lock);
}

/* ---- chains */

static int has_chain(const struct mc_flow *f)
{
	return f->taken && f->chain.epoch == f->ring->epoch;
}

/* Whether the flow has a chain, or takes one. 5.3.6.1: all of its elements are of one kind. */
static int next(struct mc_port *p, struct mc_flow *f)
{
	struct mc_virtio *v = &p->console->virtio;

	if (has_chain(f))
		return 1;
	f->taken = mc_virtio_take(v, f->ring, &f->chain);
	if (f->taken && (f == &p->in ? f->chain.nread : f->chain.nwrite)) {
		mc_virtio_break(v, f->ring, f == &p->in ? "a buffer of a receive queue is not for the device to write" :
							  "a buffer of a transmit queue is not for the device to read");
		f->taken = 0;
	}
	return f->taken;
}

static void finish(struct mc_port *p, struct mc_flow *f, size_t written)
{
	f->taken = 0;
	mc_virtio_give(&p->console->virtio, f->ring, &f->chain, (uint32_t)written);
}

/* Waits for a notification of the queue, which also stands for any change of the port. The thread has nothing to do,
 * and says so to mc_console_drain. */
static void wait(struct mc_port *p, const struct mc_flow *f)
{
	struct pollfd polled = { .fd = f->kick, .events = POLLIN };

	pthread_cond_broadcast(&p->console->progress);
	unlock(p);
	poll(&polled, 1, -1);
	mc_event_clear(f->kick);
	lock(p);
}

int mc_port_is_behind(const struct mc_port *p)
{
	const struct mc_virtio *v = &p->console->virtio;

	return p->connected && (p->out.busy || (mc_virtio_is_running(v) && mc_ring_waiting(p->out.ring)));
}

/* Drops one chain. Yields, since a guest may send faster. */
static void discard_one(struct mc_port *p)
{
	finish(p, &p->out, 0);
	unlock(p);
	sched_yield();
	lock(p);
}

void mc_port_discard(struct mc_port *p)
{
	while (!is_stopping(p) && next(p, &p->out))
		discard_one(p);
}

/* ---- the end of a port */

/* The host's side is closed: by the host with an error or at its end, or since the guest has closed the port. */
static void disconnect(struct mc_port *p, int error)
{
	if (!p->connected)
		return;
	p->connected = p->closing = 0;
	p->error = error;
	if (p == &p->console->ports[MC_PORT_CONTROL]) {
		shutdown(p->fd, SHUT_RDWR); /* fails if the peer has done so: all the same */
	} else {
		close(p->fd);
		p->fd = -1;
	}
	if (p->ready)
		p->messages |= MC_PORT_OPEN;
	mc_multiport_send(p->console);
	mc_event_signal(p->in.kick);
	mc_event_signal(p->out.kick);
	pthread_cond_broadcast(&p->console->progress);
}

/* ---- output */

/* Waits until a non-blocking descriptor accepts more. */
static void wait_writable(int fd)
{
	struct pollfd polled = { .fd = fd, .events = POLLOUT };

	poll(&polled, 1, -1);
}

/* Writes all of a chain; the elements of this copy are changed. Returns 0, or an errno value. */
static int write_chain(int fd, struct mc_chain *c)
{
	struct iovec *part = c->parts, *end = c->parts + c->nread;

	while (part < end) {
		ssize_t n = writev(fd, part, (int)(end - part));

		if (n < 0 && errno == EAGAIN)
			wait_writable(fd);
		else if (n < 0 && errno != EINTR)
			return errno;
		for (; n > 0 && (size_t)n >= part->iov_len; part++)
			n -= (ssize_t)part->iov_len;
		if (n > 0) {
			part->iov_base = (char *)part->iov_base + n;
			part->iov_len -= (size_t)n;
		}
	}
	return 0;
}

/* Writes the flow's chain without the lock, and gives it back. */
static void write_out(struct mc_port *p)
{
	int error;

	p->out.busy = 1;
	unlock(p);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	error = write_chain(p->fd, &p->out.chain);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	lock(p);
	p->out.busy = 0;
	if (error)
		disconnect(p, error);
	finish(p, &p->out, 0);
}

static void *run_output(void *argument)
{
	struct mc_port *p = argument;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	lock(p);
	while (!is_stopping(p)) {
		if (next(p, &p->out)) {
			if (p->connected)
				write_out(p);
			else
				discard_one(p);
		} else if (p->closing) {
			disconnect(p, 0);
		} else {
			wait(p, &p->out);
		}
	}
	unlock(p);
	return NULL;
}

/* ---- input */

/* Waits for input or for a change of the port. Returns bytes read, 0 at the end of input, or -errno; -EAGAIN: none. */
static ssize_t read_host(const struct mc_port *p, char *data, size_t size)
{
	struct pollfd polled[] = { { .fd = p->fd, .events = POLLIN }, { .fd = p->in.kick, .events = POLLIN } };
	ssize_t n = -EAGAIN;

	if (poll(polled, 2, -1) <= 0)
		return n;
	if (polled[1].revents)
		mc_event_clear(p->in.kick);
	else if (polled[0].revents)
		n = read(p->fd, data, size);
	return n < 0 && n != -EAGAIN ? -errno : n;
}

/* Reads, without the lock, what the chain has room for. */
static void read_in(struct mc_port *p)
{
	const uint64_t room = p->in.chain.writable;
	ssize_t n;

	unlock(p);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	n = read_host(p, p->buffer, room < sizeof(p->buffer) ? room : sizeof(p->buffer));
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	lock(p);
	p->offset = 0;
	p->held = n > 0 ? (size_t)n : 0;
	if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR))
		disconnect(p, (int)-n);
}

static void deliver(struct mc_port *p)
{
	size_t n = mc_chain_write(&p->in.chain, p->buffer + p->offset, p->held);

	p->offset += n;
	p->held -= n;
	finish(p, &p->in, n);
}

static void *run_input(void *argument)
{
	struct mc_port *p = argument;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	lock(p);
	while (!is_stopping(p) && p->connected) {
		if (p->closing && !p->out.has_thread)
			disconnect(p, 0);
		else if (!p->open || !next(p, &p->in))
			wait(p, &p->in);
		else if (p->held)
			deliver(p);
		else
			read_in(p);
	}
	unlock(p);
	return NULL;
}

/* ---- threads */

static int start_flow(struct mc_port *p, struct mc_flow *f, void *(*body)(void *))
{
	int r = mc_worker_start(&f->thread, body, p);

	f->has_thread = r == 0;
	return r;
}

int mc_port_start(struct mc_port *p)
{
	const long number = p - p->console->ports;
	int r = 0;

	if (p->connected && number != MC_PORT_STDIN)
		r = start_flow(p, &p->out, run_output);
	if (r == 0 && p->connected && (number == MC_PORT_CONTROL || number == MC_PORT_STDIN))
		r = start_flow(p, &p->in, run_input);
	return r;
}

void mc_port_join(struct mc_port *p)
{
	struct mc_flow *flows[] = { &p->in, &p->out };

	for (int i = 0; i < 2; i++) {
		if (!flows[i]->has_thread)
			continue;
		mc_event_signal(flows[i]->kick);
		pthread_cancel(flows[i]->thread);
		pthread_join(flows[i]->thread, NULL);
		flows[i]->has_thread = 0;
	}
}
