/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * net.c: a network device (virtio 1.3, 5.1).
 *
 * Theory of operation. A thread for each direction moves frames between the socket and the buffers of the guest
 * without a copy of its own, and without the device's lock; a reset waits until it has done that. Checksums and
 * segments are left to whoever receives a frame: the header before it (5.1.6) is that of the socket, plus a count of
 * buffers.
 *
 * The receiver keeps buffers for the longest frame at hand, and reads a frame into as many of them as it needs
 * (VIRTIO_NET_F_MRG_RXBUF). The driver has to accept what the host's frames need, since nobody here could change them.
 *
 * Of what the guest sends both headers are copied and then checked: it can neither ask for what was not negotiated nor
 * send under another's hardware address. The kernel checks the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/net.h"
#include "virtio/worker.h"

#ifndef VIRTIO_NET_F_GUEST_USO4 /* Linux 6.2 */
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define FRAME_MAX 65550 /* bytes (5.1.6.3.1, without the header) */
#define HEADER sizeof(struct virtio_net_hdr_v1)
#define OF_SOCKET sizeof(struct virtio_net_hdr) /* the same without num_buffers */
#define HELD 64         /* buffers for the longest frame, if they are Linux's smallest (1530 bytes), and some more */
#define VECTORS 1024    /* of one message (UIO_MAXIOV) */
#define BIT(n) (1ull << VIRTIO_NET_F_##n)
#define NEEDED (BIT(MRG_RXBUF) | BIT(GUEST_CSUM) | BIT(GUEST_TSO4) | BIT(GUEST_TSO6) | BIT(GUEST_ECN))
#define SEGMENTED_UDP (BIT(GUEST_USO4) | BIT(GUEST_USO6))
#define SENT (BIT(CSUM) | BIT(HOST_TSO4) | BIT(HOST_TSO6) | BIT(HOST_ECN))

enum { RECEIVE, TRANSMIT, DIRECTIONS };

struct direction {
	pthread_t thread;
	int has_thread;
	int busy;               /* in a system call on buffers of the guest, without the lock */
	uint32_t turns;         /* how often it was */
};

struct mc_virtio_net {
	struct mc_virtio virtio;
	struct virtio_net_config config;
	int socket;
	int stop;               /* eventfd: readable from mc_virtio_net_stop on */
	int stopping;           /* atomic */
	struct direction directions[DIRECTIONS];
	pthread_cond_t turned;  /* one of them is not busy any more */
	struct {
		struct mc_chain chain;
		struct {
			struct virtio_net_hdr_v1 header;
			struct ethhdr ethernet;
		} copy;         /* without padding */
		struct iovec parts[MC_RING_PARTS + 2];
	} sent;
	struct {
		struct mc_chain chains[HELD]; /* a circle: `count` of them from `first` on */
		uint32_t first, count;
		uint64_t capacity;      /* bytes of them */
		struct virtio_net_hdr_v1 header;
		struct iovec parts[VECTORS];
	} held;
};

_Static_assert(sizeof(((struct mc_virtio_net *)0)->sent.copy) == HEADER + ETH_HLEN, "as in the chain");

static void quiesce(struct mc_virtio *v);

static const struct mc_virtio_type TYPE = {
	.name = "net",
	.id = VIRTIO_ID_NET,
	.nqueues = DIRECTIONS,
	.sizes = { MC_RING_SIZE, MC_RING_SIZE },
	.features = BIT(MAC) | BIT(MTU) | NEEDED | SEGMENTED_UDP | SENT,
	.needed = NEEDED,
	.config_size = sizeof(struct virtio_net_config),
	.quiesce = quiesce,
};

/* ---- system calls without the lock */

static void begin(struct mc_virtio_net *d, int direction)
{
	d->directions[direction].busy = 1;
	pthread_mutex_unlock(&d->virtio.lock);
}

static void end(struct mc_virtio_net *d, int direction)
{
	pthread_mutex_lock(&d->virtio.lock);
	d->directions[direction].busy = 0;
	d->directions[direction].turns++;
	pthread_cond_broadcast(&d->turned);
}

/* What a thread does next is of a ring that has started again, or of the other one. */
static void quiesce(struct mc_virtio *v)
{
	struct mc_virtio_net *d = (struct mc_virtio_net *)v;

	for (int i = 0; i < DIRECTIONS; i++) {
		const struct direction *direction = &d->directions[i];
		const uint32_t turn = direction->turns;

		while (direction->busy && direction->turns == turn)
			pthread_cond_wait(&d->turned, &v->lock);
	}
}

/* Waits for the events of a descriptor, or for the device's stop. */
static void await(struct mc_virtio_net *d, int fd, short events)
{
	struct pollfd polled[] = { { d->stop, POLLIN, 0 }, { fd, events, 0 } };

	pthread_mutex_unlock(&d->virtio.lock);
	poll(polled, 2, -1);
	if (fd != d->socket)
		mc_event_clear(fd);
	pthread_mutex_lock(&d->virtio.lock);
}

/* Waits for buffers in a ring that had none. Until then a kick would stop a virtual CPU for nothing. */
static void await_buffers(struct mc_virtio_net *d, int direction)
{
	struct mc_ring *ring = &d->virtio.rings[direction];

	mc_ring_want_kicks(ring, 1);
	if (!mc_virtio_is_running(&d->virtio) || !mc_ring_waiting(ring))
		await(d, d->virtio.kicks[direction], POLLIN);
	mc_ring_want_kicks(ring, 0);
}

static int is_stopping(const struct mc_virtio_net *d)
{
	return __atomic_load_n(&d->stopping, __ATOMIC_RELAXED);
}

static int has_all(const struct mc_virtio_net *d, uint64_t features)
{
	return (d->virtio.features & features) == features;
}

/* ---- from the guest (5.1.6.2) */

/* 5.1.6.2.2: unknown flags are ignored. */
static int is_offload_negotiated(const struct mc_virtio_net *d, struct virtio_net_hdr_v1 *h)
{
	const uint8_t type = h->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	uint64_t features = h->gso_type == type ? 0 : BIT(HOST_ECN);

	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (h->flags)
		features |= BIT(CSUM);
	if (type == VIRTIO_NET_HDR_GSO_TCPV4)
		features |= BIT(HOST_TSO4);
	else if (type == VIRTIO_NET_HDR_GSO_TCPV6)
		features |= BIT(HOST_TSO6);
	else if (type != VIRTIO_NET_HDR_GSO_NONE)
		return 0;
	return has_all(d, features);
}

/* The message for the taken chain: its number of parts, or 0: it is no frame that a guest may send. */
static uint32_t message_of(struct mc_virtio_net *d)
{
	const struct mc_chain *c = &d->sent.chain;
	const size_t size = sizeof(d->sent.copy);
	struct iovec *parts = d->sent.parts;

	if (c->readable > HEADER + FRAME_MAX || mc_chain_read(c, &d->sent.copy, size) < size)
		return 0;
	if (!is_offload_negotiated(d, &d->sent.copy.header) ||
	    memcmp(d->sent.copy.ethernet.h_source, d->config.mac, ETH_ALEN) != 0)
		return 0;
	parts[0] = (struct iovec){ &d->sent.copy.header, OF_SOCKET };
	parts[1] = (struct iovec){ &d->sent.copy.ethernet, ETH_HLEN };
	return mc_parts_add(parts, 2, MC_RING_PARTS + 2, c->parts, c->nread, size);
}

/* Returns whether the socket has no room for it. What the kernel refuses is lost, as on a wire. */
static int is_refused_for_now(struct mc_virtio_net *d, uint32_t nparts)
{
	const struct msghdr message = { .msg_iov = d->sent.parts, .msg_iovlen = nparts };
	int full;

	begin(d, TRANSMIT);
	full = sendmsg(d->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EAGAIN;
	end(d, TRANSMIT);
	return full;
}

static void transmit(struct mc_virtio_net *d)
{
	struct mc_ring *ring = &d->virtio.rings[TRANSMIT];
	const uint32_t nparts = message_of(d);

	while (nparts && !is_stopping(d) && d->sent.chain.epoch == ring->epoch && is_refused_for_now(d, nparts))
		await(d, d->socket, POLLOUT);
	mc_virtio_give(&d->virtio, ring, &d->sent.chain, 0);
}

static void *run_transmitter(void *argument)
{
	struct mc_virtio_net *d = argument;

	pthread_mutex_lock(&d->virtio.lock);
	while (!is_stopping(d))
		if (mc_virtio_take(&d->virtio, &d->virtio.rings[TRANSMIT], &d->sent.chain))
			transmit(d);
		else
			await_buffers(d, TRANSMIT);
	pthread_mutex_unlock(&d->virtio.lock);
	return NULL;
}

/* ---- to the guest (5.1.6.3, 5.1.6.4) */

static struct mc_chain *held(struct mc_virtio_net *d, uint32_t i)
{
	return &d->held.chains[(d->held.first + i) % HELD];
}

/* Takes buffers until the longest frame has room in them. Returns 1, or 0: the driver has to give more. */
static int hold(struct mc_virtio_net *d)
{
	struct mc_ring *ring = &d->virtio.rings[RECEIVE];

	if (d->held.count && held(d, 0)->epoch != ring->epoch)
		d->held.count = 0, d->held.capacity = 0; /* of before a reset */
	while (d->held.capacity < HEADER + FRAME_MAX && d->held.count < HELD) {
		struct mc_chain *c = held(d, d->held.count);

		if (!mc_virtio_take(&d->virtio, ring, c))
			return 0;
		if (c->writable < HEADER)
			mc_virtio_break(&d->virtio, ring, "a receive buffer is smaller than a header"); /* 5.1.6.3.1 */
		d->held.count++;
		d->held.capacity += c->writable;
	}
	return mc_virtio_is_running(&d->virtio);
}

/* Reads a message into the header and the held buffers behind it. Returns the bytes of the frame, or -1: there is
 * none; a frame that is too long for them is 0 bytes. */
static long read_frame(struct mc_virtio_net *d)
{
	struct iovec *parts = d->held.parts;
	struct msghdr message = { .msg_iov = parts };
	uint32_t n = 1;
	ssize_t size;

	parts[0] = (struct iovec){ &d->held.header, OF_SOCKET };
	for (uint32_t i = 0; i < d->held.count && n < VECTORS; i++) {
		const struct mc_chain *c = held(d, i);

		n = mc_parts_add(parts, n, VECTORS, c->parts + c->nread, c->nwrite, i == 0 ? HEADER : 0);
	}
	message.msg_iovlen = n;
	begin(d, RECEIVE);
	size = recvmsg(d->socket, &message, MSG_DONTWAIT);
	end(d, RECEIVE);
	if (size < 0)
		return -1;
	return message.msg_flags & MSG_TRUNC || size < (ssize_t)(OF_SOCKET + ETH_HLEN) ? 0 : size - (long)OF_SOCKET;
}

/* Gives the buffers of a frame to the driver, all at once, with their number in the first (5.1.6.4). */
static void deliver(struct mc_virtio_net *d, uint64_t left)
{
	struct mc_ring *ring = &d->virtio.rings[RECEIVE];
	uint32_t count = 0;

	for (uint64_t room = 0; room < left; count++)
		room += held(d, count)->writable;
	d->held.header.num_buffers = (uint16_t)count;
	mc_chain_write(held(d, 0), &d->held.header, HEADER);
	for (; count > 0; count--) {
		const struct mc_chain *c = held(d, 0);
		const uint32_t written = (uint32_t)(left < c->writable ? left : c->writable);

		left -= written;
		d->held.first = (d->held.first + 1) % HELD;
		d->held.count--;
		d->held.capacity -= c->writable;
		if (count > 1)
			mc_ring_put(ring, c, written);
		else
			mc_virtio_give(&d->virtio, ring, c, written);
	}
}

/* Returns 0 where the socket has nothing. */
static int receive(struct mc_virtio_net *d)
{
	const long size = read_frame(d);

	if (size > 0 && (d->held.header.gso_type != VIRTIO_NET_HDR_GSO_UDP_L4 || has_all(d, SEGMENTED_UDP)))
		deliver(d, HEADER + (uint64_t)size);
	return size >= 0;
}

static void *run_receiver(void *argument)
{
	struct mc_virtio_net *d = argument;

	pthread_mutex_lock(&d->virtio.lock);
	while (!is_stopping(d))
		if (!hold(d))
			await_buffers(d, RECEIVE);
		else if (!receive(d)) {
			mc_ring_want_kicks(&d->virtio.rings[RECEIVE], 0); /* if it has never lacked buffers */
			await(d, d->socket, POLLIN);
		}
	pthread_mutex_unlock(&d->virtio.lock);
	return NULL;
}

/* ---- its life */

struct mc_virtio_net *mc_virtio_net_new(const struct mc_memory *memory, int socket, const uint8_t mac[ETH_ALEN],
					uint16_t mtu)
{
	struct mc_virtio_net *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return NULL;
	r = d->stop = mc_event_new();
	if (r >= 0)
		r = mc_virtio_init(&d->virtio, &TYPE, memory, &d->config);
	if (r < 0) {
		if (d->stop >= 0)
			close(d->stop);
		free(d);
		errno = -r;
		return NULL;
	}
	d->socket = socket;
	memcpy(d->config.mac, mac, ETH_ALEN);
	d->config.mtu = mtu;
	pthread_cond_init(&d->turned, NULL);
	return d;
}

struct mc_virtio *mc_virtio_net_virtio(struct mc_virtio_net *d)
{
	return &d->virtio;
}

int mc_virtio_net_start(struct mc_virtio_net *d)
{
	static void *(*const bodies[])(void *) = { run_receiver, run_transmitter };
	int r = 0;

	for (int i = 0; i < DIRECTIONS && r == 0; i++) {
		r = mc_worker_start(&d->directions[i].thread, bodies[i], d);
		d->directions[i].has_thread = r == 0;
	}
	if (r < 0)
		mc_virtio_net_stop(d);
	return r;
}

void mc_virtio_net_stop(struct mc_virtio_net *d)
{
	__atomic_store_n(&d->stopping, 1, __ATOMIC_RELAXED);
	mc_event_signal(d->stop);
	for (int i = 0; i < DIRECTIONS; i++) {
		if (d->directions[i].has_thread)
			pthread_join(d->directions[i].thread, NULL);
		d->directions[i].has_thread = 0;
	}
}

void mc_virtio_net_free(struct mc_virtio_net *d)
{
	if (!d)
		return;
	mc_virtio_net_stop(d);
	close(d->stop);
	pthread_cond_destroy(&d->turned);
	mc_virtio_end(&d->virtio);
	free(d);
}
