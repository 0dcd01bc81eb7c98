/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_vsock.h: a guest's socket driver (virtio 1.3, 5.10.6) over virtio_driver.h, and clients of the host, for tests
 * of the socket device.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "virtio/stream.h"
#include "virtio_driver.h"

#define RX 0
#define TX 1
#define PAGE 4096u
#define ROOM 262144u /* of the guest */

struct setup {
	struct driver d;
	struct mc_vsock *device;
	struct sockaddr_un address;
	socklen_t length;
	uint64_t in, out;      /* buffers of RX, a page each; one of TX */
	struct virtio_vsock_hdr last; /* the packet that came last */
	unsigned char data[PAGE];
};

/* ---- the host */

/* A listener at an address of the kernel's choice (unix(7), autobind). */
static inline int listen_somewhere(struct setup *s)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	s->address.sun_family = AF_UNIX;
	s->length = sizeof(s->address);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&s->address, sizeof(sa_family_t)) == 0);
	CHECK(listen(fd, 512) == 0 && getsockname(fd, (struct sockaddr *)&s->address, &s->length) == 0);
	return fd;
}

static inline int client(const struct setup *s)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&s->address, s->length) == 0);
	return fd;
}

static inline void write_all(int fd, const void *data, size_t size)
{
	CHECK(send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size);
}

static inline void read_exactly(int fd, void *data, size_t size)
{
	ssize_t n;

	for (size_t done = 0; done < size; done += (size_t)n) {
		n = read(fd, (char *)data + done, size - done);
		CHECK(n > 0);
	}
}

/* Whether nothing but the end comes. */
static inline int is_at_end(int fd)
{
	char byte;
	ssize_t n = read(fd, &byte, 1);

	return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* ---- the guest */

static inline void give_page(struct setup *s, uint32_t i)
{
	const struct driver_buffer b = { s->in + i * PAGE, PAGE, 1 };

	CHECK(driver_add(&s->d, RX, &b, 1) >= 0);
}

static inline void vsock_boot(struct setup *s, uint32_t pages)
{
	driver_start(&s->d, mc_vsock_virtio(s->device));
	for (uint32_t i = 0; i < pages; i++)
		give_page(s, i);
}

static inline void vsock_set_up(struct setup *s)
{
	memset(s, 0, sizeof(*s));
	driver_memory(&s->d, 4 << 20);
	s->device = mc_vsock_new(&s->d.memory, listen_somewhere(s));
	CHECK(s->device && mc_vsock_start(s->device) == 0);
	s->in = driver_alloc(&s->d, 64 * PAGE);
	s->out = driver_alloc(&s->d, sizeof(struct mc_packet));
}

static inline void vsock_tear_down(struct setup *s)
{
	CHECK(!s->d.v || !s->d.v->broken);
	mc_vsock_free(s->device);
	driver_free(&s->d);
}

/* Takes the next packet into `last` and `data`, and gives its buffer again. Returns whether there is one. */
static inline int has_packet(struct setup *s)
{
	struct vring_used_elem e;
	uint64_t at;

	if (!driver_used(&s->d, RX, &e))
		return 0;
	at = driver_desc(&s->d, RX, e.id)->addr;
	CHECK(e.len >= sizeof(s->last) && e.len <= PAGE);
	memcpy(&s->last, driver_at(&s->d, at, PAGE), sizeof(s->last));
	CHECK(s->last.len == e.len - sizeof(s->last) && s->last.dst_cid == MC_VSOCK_CID);
	memcpy(s->data, driver_at(&s->d, at + sizeof(s->last), s->last.len), s->last.len);
	give_page(s, (uint32_t)((at - s->in) / PAGE));
	return 1;
}

/* The next packet, which must be of this kind. */
static inline const struct virtio_vsock_hdr *expect(struct setup *s, uint16_t op)
{
	until(has_packet(s));
	CHECK(s->last.op == op);
	return &s->last;
}

/* Sends a packet as it is, in two elements, and waits until it was taken. */
static inline void send_raw(struct setup *s, const struct virtio_vsock_hdr *h, const void *data, uint32_t size)
{
	const struct driver_buffer b[2] = { { s->out, sizeof(*h), 0 }, { s->out + sizeof(*h), size, 0 } };

	memcpy(driver_at(&s->d, s->out, sizeof(*h)), h, sizeof(*h));
	if (size)
		memcpy(driver_at(&s->d, s->out + sizeof(*h), size), data, size);
	CHECK(driver_add(&s->d, TX, b, size ? 2 : 1) >= 0);
	driver_wait(&s->d, TX);
}

/* One side of the guest: its ports, and what it has taken. */
struct peer {
	uint32_t host_port, port, taken, room;
};

static inline struct virtio_vsock_hdr header_of(const struct peer *p, uint16_t op)
{
	return (struct virtio_vsock_hdr){ .src_cid = MC_VSOCK_CID, .dst_cid = VMADDR_CID_HOST, .src_port = p->port,
					  .dst_port = p->host_port, .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op,
					  .buf_alloc = p->room, .fwd_cnt = p->taken };
}

static inline void say(struct setup *s, const struct peer *p, uint16_t op, uint32_t flags)
{
	struct virtio_vsock_hdr h = header_of(p, op);

	h.flags = flags;
	send_raw(s, &h, NULL, 0);
}

static inline void send_data(struct setup *s, const struct peer *p, const void *data, uint32_t size)
{
	struct virtio_vsock_hdr h = header_of(p, VIRTIO_VSOCK_OP_RW);

	h.len = size;
	send_raw(s, &h, data, size);
}

/* A client that has asked for a port of the guest, which has not answered. */
static inline int ask(struct setup *s, uint32_t port, struct peer *p)
{
	char line[32];
	int fd = client(s);

	write_all(fd, line, (size_t)snprintf(line, sizeof(line), "CONNECT %u\n", port));
	expect(s, VIRTIO_VSOCK_OP_REQUEST);
	CHECK(s->last.src_cid == VMADDR_CID_HOST && s->last.dst_port == port && s->last.len == 0);
	CHECK(s->last.type == VIRTIO_VSOCK_TYPE_STREAM && s->last.buf_alloc == MC_VSOCK_ROOM && s->last.fwd_cnt == 0);
	*p = (struct peer){ s->last.src_port, port, 0, ROOM };
	return fd;
}

/* A connection. */
static inline int open_connection(struct setup *s, uint32_t port, struct peer *p)
{
	char line[32], wanted[32];
	int fd = ask(s, port, p), size = snprintf(wanted, sizeof(wanted), "OK %u\n", p->host_port);

	say(s, p, VIRTIO_VSOCK_OP_RESPONSE, 0);
	read_exactly(fd, line, (size_t)size);
	CHECK(memcmp(line, wanted, (size_t)size) == 0);
	return fd;
}

#endif
