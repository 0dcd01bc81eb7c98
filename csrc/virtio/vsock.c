/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vsock.c: a socket device (virtio 1.3, 5.10).
 *
 * Theory of operation. One thread waits for the queues, the listener and the clients (epoll), and then takes turns: in
 * each, every connection sends the guest a packet at most, so none holds up another. No call of a turn blocks, so it
 * has the device's lock: a reset finds nobody at work. The thread gives the lock away between turns.
 *
 * A packet of the guest that belongs to no connection is answered with RST. Until that has a buffer no further packet
 * is taken, so the guest cannot make the device remember more than one (5.10.6.2). The event queue is never used: what
 * it tells of (5.10.6.7) does not happen here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/stream.h"
#include "virtio/vsock.h"
#include "virtio/worker.h"

#define RX 0
#define TX 1
#define BATCH 64               /* packets that are taken in one turn, and events that are read at once */
#define FIRST_PORT 0x40000000u /* of the host's side */
#define F_STREAM 0             /* VIRTIO_VSOCK_F_STREAM (5.10.3) */

enum { LISTENER = MC_VSOCK_STREAMS, OTHERS }; /* what epoll names beside the streams, by index */

struct mc_vsock {
	struct mc_virtio virtio;
	struct virtio_vsock_config config;
	int listener, epoll;
	int stop;               /* eventfd: readable from mc_vsock_stop on */
	int stopping;           /* atomic */
	int has_thread;
	pthread_t thread;
	/* with the lock of `virtio` */
	int has_clients;        /* the listener may have some */
	uint32_t next_port;
	int has_refused;        /* a packet that is to be answered with RST */
	struct virtio_vsock_hdr refused;
	int has_buffer;         /* `buffer` was taken from RX, and not given back */
	struct mc_chain buffer, chain;
	struct mc_packet packet;
	uint32_t top;           /* streams from here on were never used: their memory is not touched */
	struct mc_stream streams[MC_VSOCK_STREAMS];
};

static void reset(struct mc_virtio *v);

static const struct mc_virtio_type TYPE = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.nqueues = 3,
	.sizes = { MC_RING_SIZE, MC_RING_SIZE, 16 },
	.features = 1ull << F_STREAM,
	.config_size = sizeof(struct virtio_vsock_config),
	.reset = reset,
};

static void reset(struct mc_virtio *v)
{
	struct mc_vsock *d = (struct mc_vsock *)v;

	for (uint32_t i = 0; i < d->top; i++)
		if (d->streams[i].state != MC_STREAM_FREE)
			mc_stream_free(&d->streams[i]);
	d->has_buffer = d->has_refused = 0;
}

/* ---- clients */

static int is_used(const struct mc_vsock *d, uint32_t port)
{
	for (uint32_t i = 0; i < d->top; i++)
		if (d->streams[i].state != MC_STREAM_FREE && d->streams[i].host_port == port)
			return 1;
	return 0;
}

static uint32_t free_port(struct mc_vsock *d)
{
	uint32_t port;

	do
		port = FIRST_PORT | d->next_port++;
	while (is_used(d, port));
	return port;
}

/* Accepts a client. Returns whether there was one, and room for it. Without a descriptor for it, it waits until a later
 * turn. */
static int accept_client(struct mc_vsock *d)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	uint32_t i = 0;
	int fd;

	while (i < d->top && d->streams[i].state != MC_STREAM_FREE)
		i++;
	if (!d->has_clients || i == MC_VSOCK_STREAMS)
		return 0;
	fd = accept4(d->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		d->has_clients = errno != EAGAIN;
		return 0;
	}
	event.data.u32 = i;
	if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		close(fd);
	else
		mc_stream_begin(&d->streams[i], fd, free_port(d));
	if (i == d->top)
		d->top++;
	return 1;
}

/* ---- packets to the guest */

/* Whether there is a buffer for a packet. */
static int take_buffer(struct mc_vsock *d)
{
	struct mc_ring *ring = &d->virtio.rings[RX];

	if (d->has_buffer && d->buffer.epoch == ring->epoch)
		return 1;
	d->has_buffer = mc_virtio_take(&d->virtio, ring, &d->buffer);
	if (d->has_buffer && d->buffer.writable < sizeof(struct virtio_vsock_hdr)) {
		mc_virtio_break(&d->virtio, ring, "a receive buffer is smaller than a packet's header");
		d->has_buffer = 0;
	}
	return d->has_buffer;
}

static void give_buffer(struct mc_vsock *d, const void *packet, size_t size)
{
	mc_chain_write(&d->buffer, packet, size);
	mc_virtio_give(&d->virtio, &d->virtio.rings[RX], &d->buffer, (uint32_t)size);
	d->has_buffer = 0;
}

/* Sends a packet of the stream. Returns whether it had one. */
static int send_next(struct mc_vsock *d, struct mc_stream *s)
{
	size_t size;

	if (s->state == MC_STREAM_FREE || !take_buffer(d))
		return 0;
	size = mc_stream_next(s, &d->packet, d->buffer.writable - sizeof(struct virtio_vsock_hdr));
	if (size)
		give_buffer(d, &d->packet, size);
	return size > 0;
}

static void send_refusal(struct mc_vsock *d)
{
	const struct virtio_vsock_hdr *h = &d->refused;
	struct virtio_vsock_hdr answer = mc_vsock_header(h->dst_port, h->src_port, VIRTIO_VSOCK_OP_RST);

	if (!d->has_refused || !take_buffer(d))
		return;
	answer.src_cid = h->dst_cid;
	answer.type = h->type; /* Linux drops an answer of another type */
	give_buffer(d, &answer, sizeof(answer));
	d->has_refused = 0;
}

/* ---- packets of the guest */

static struct mc_stream *find(struct mc_vsock *d, const struct virtio_vsock_hdr *h)
{
	if (h->src_cid != MC_VSOCK_CID || h->dst_cid != VMADDR_CID_HOST || h->type != VIRTIO_VSOCK_TYPE_STREAM)
		return NULL;
	for (uint32_t i = 0; i < d->top; i++) {
		struct mc_stream *s = &d->streams[i];

		if (s->state > MC_STREAM_ASKS && s->host_port == h->dst_port && s->guest_port == h->src_port)
			return s;
	}
	return NULL;
}

static void handle(struct mc_vsock *d, const struct mc_packet *packet)
{
	struct mc_stream *s = find(d, &packet->header);

	if (s) {
		mc_stream_receive(s, &packet->header, packet->data);
		mc_stream_move(s);
	} else if (packet->header.op != VIRTIO_VSOCK_OP_RST) {
		d->refused = packet->header;
		d->has_refused = 1;
	}
}

/* Takes a packet of the guest. Returns whether there was one. */
static int receive(struct mc_vsock *d)
{
	struct mc_ring *ring = &d->virtio.rings[TX];
	struct mc_packet *p = &d->packet;
	size_t size;

	if (d->has_refused || !mc_virtio_take(&d->virtio, ring, &d->chain))
		return 0;
	size = mc_chain_read(&d->chain, p, sizeof(*p));
	if (size < sizeof(p->header) || (p->header.len > size - sizeof(p->header) && p->header.len <= MC_VSOCK_ROOM)) {
		mc_virtio_break(&d->virtio, ring, "a packet is shorter than its header says");
		return 0;
	}
	mc_virtio_give(&d->virtio, ring, &d->chain, 0);
	handle(d, p);
	return 1;
}

/* ---- the thread */

/* Returns whether there may be more to do. */
static int turn(struct mc_vsock *d)
{
	int done = 0;

	send_refusal(d);
	for (int i = 0; i < BATCH && receive(d); i++)
		done = 1;
	for (uint32_t i = 0; i < d->top; i++) {
		struct mc_stream *s = &d->streams[i];

		mc_stream_move(s);
		if (s->state == MC_STREAM_CALLS && !mc_virtio_is_running(&d->virtio))
			mc_stream_free(s); /* there is no driver */
		done |= send_next(d, s);
	}
	return accept_client(d) || done;
}

static void note(struct mc_vsock *d, const struct epoll_event *event)
{
	const uint32_t i = event->data.u32;

	if (i < MC_VSOCK_STREAMS)
		mc_stream_event(&d->streams[i], event->events);
	else if (i == LISTENER)
		d->has_clients = 1;
	else if (i < OTHERS + TYPE.nqueues)
		mc_event_clear(d->virtio.kicks[i - OTHERS]);
}

static void *run(void *argument)
{
	struct mc_vsock *d = argument;
	struct epoll_event events[BATCH];

	while (!__atomic_load_n(&d->stopping, __ATOMIC_RELAXED)) {
		int n = epoll_wait(d->epoll, events, BATCH, -1), more;

		pthread_mutex_lock(&d->virtio.lock);
		for (int i = 0; i < n; i++)
			note(d, &events[i]);
		pthread_mutex_unlock(&d->virtio.lock);
		do {
			pthread_mutex_lock(&d->virtio.lock);
			more = turn(d);
			pthread_mutex_unlock(&d->virtio.lock);
		} while (more && !__atomic_load_n(&d->stopping, __ATOMIC_RELAXED));
	}
	return NULL;
}

/* ---- its life */

static int watch(const struct mc_vsock *d, int fd, uint32_t events, uint32_t index)
{
	struct epoll_event event = { .events = events, .data.u32 = index };

	return epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int init(struct mc_vsock *d)
{
	int r;

	d->stop = mc_event_new();
	if (d->stop < 0)
		return d->stop;
	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll < 0)
		return -errno;
	r = watch(d, d->listener, EPOLLIN | EPOLLET, LISTENER);
	for (uint32_t i = 0; i < TYPE.nqueues && r == 0; i++)
		r = watch(d, d->virtio.kicks[i], EPOLLIN, OTHERS + i);
	return r < 0 ? r : watch(d, d->stop, EPOLLIN, OTHERS + TYPE.nqueues);
}

struct mc_vsock *mc_vsock_new(const struct mc_memory *memory, int listener)
{
	struct mc_vsock *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return NULL;
	r = mc_virtio_init(&d->virtio, &TYPE, memory, &d->config);
	if (r < 0) {
		free(d);
		errno = -r;
		return NULL;
	}
	d->config.guest_cid = MC_VSOCK_CID;
	d->listener = listener;
	d->epoll = d->stop = -1;
	r = init(d);
	if (r < 0) {
		d->listener = -1;
		mc_vsock_free(d);
		errno = -r;
		return NULL;
	}
	return d;
}

struct mc_virtio *mc_vsock_virtio(struct mc_vsock *d)
{
	return &d->virtio;
}

int mc_vsock_start(struct mc_vsock *d)
{
	int r = mc_worker_start(&d->thread, run, d);

	d->has_thread = r == 0;
	return r;
}

void mc_vsock_stop(struct mc_vsock *d)
{
	__atomic_store_n(&d->stopping, 1, __ATOMIC_RELAXED);
	mc_event_signal(d->stop);
	if (d->has_thread)
		pthread_join(d->thread, NULL);
	d->has_thread = 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void mc_vsock_free(struct mc_vsock *d)
{
	if (!d)
		return;
	mc_vsock_stop(d);
	reset(&d->virtio);
	close_fd(d->listener);
	close_fd(d->epoll);
	close_fd(d->stop);
	mc_virtio_end(&d->virtio);
	free(d);
}
