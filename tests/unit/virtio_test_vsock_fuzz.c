/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_vsock_fuzz.c: random packets, the same each time, for the connections of a socket device, whose clients
 * do anything meanwhile. Rings at random are those of virtio_test_fuzz.c.
 */
#define _GNU_SOURCE
#include "virtio_vsock.h"

#define CLIENTS 12
#define ROUNDS 10000

static uint64_t random_state = 7;

static uint32_t below(uint32_t n)
{
	return (uint32_t)((test_random(&random_state) >> 32) % n);
}

struct fuzz {
	struct setup s;
	int fds[CLIENTS];
	struct peer peers[32]; /* connections that the guest has heard of */
	int answered[32];
	uint32_t npeers, opened, ended;
};

static void some_client(struct fuzz *f, int *fd)
{
	static unsigned char data[8192];
	static const char *const lines[] = { "CONNECT 1\n", "CONNECT 1\n", "CONNECT 2\n", "CONNECT 3\nbytes", "CONNECT ", "x\n" };
	const char *line = lines[below(6)];

	if (*fd < 0) {
		*fd = client(&f->s);
		CHECK(fcntl(*fd, F_SETFL, O_NONBLOCK) == 0);
		send(*fd, line, strlen(line), MSG_NOSIGNAL);
		return;
	}
	switch (below(8)) {
	case 0:
		close(*fd);
		*fd = -1;
		break;
	case 1:
		shutdown(*fd, (int)below(3));
		break;
	case 2:
	case 3:
		if (read(*fd, data, sizeof(data)) > 0)
			f->opened++;
		break;
	default:
		send(*fd, data, 1 + below(sizeof(data) - 1), MSG_NOSIGNAL);
	}
}

static void some_packet(struct fuzz *f)
{
	static unsigned char data[PAGE * 4];
	struct peer none = { below(9), below(9), 0, 0 };
	struct peer *p = f->npeers && below(20) ? &f->peers[below(f->npeers < 32 ? f->npeers : 32)] : &none;
	struct virtio_vsock_hdr h = header_of(p, VIRTIO_VSOCK_OP_RW);
	uint32_t size = 0;

	if (p != &none && !f->answered[p - f->peers]) {
		h.op = VIRTIO_VSOCK_OP_RESPONSE;
		f->answered[p - f->peers] = 1;
	}
	if (below(10) == 0)
		h.op = (uint16_t)below(9);
	h.buf_alloc = below(3) ? ROOM : (uint32_t)test_random(&random_state);
	h.fwd_cnt = below(3) ? p->taken : (uint32_t)test_random(&random_state);
	h.flags = below(5);
	if (h.op == VIRTIO_VSOCK_OP_RW)
		h.len = size = below(sizeof(data));
	if (below(100) == 0)
		h.len = MC_VSOCK_ROOM + 1 + below(1000);
	if (below(100) == 0)
		((unsigned char *)&h)[below(sizeof(h))] ^= (unsigned char)(1 + below(255));
	if (h.len > size && h.len <= MC_VSOCK_ROOM) /* that breaks the device */
		h.len = size;
	send_raw(&f->s, &h, data, size);
}

static void listen_to(struct fuzz *f)
{
	while (has_packet(&f->s)) {
		struct virtio_vsock_hdr *h = &f->s.last;

		if (h->op == VIRTIO_VSOCK_OP_REQUEST) {
			f->answered[f->npeers % 32] = 0;
			f->peers[f->npeers++ % 32] = (struct peer){ h->src_port, h->dst_port, 0, ROOM };
		}
		f->ended += h->op == VIRTIO_VSOCK_OP_RST;
		for (uint32_t i = 0; i < 32; i++)
			if (f->peers[i].host_port == h->src_port)
				f->peers[i].taken += h->len;
	}
}

TEST(fuzz_vsock_packets)
{
	static struct fuzz f;
	struct peer p;

	vsock_set_up(&f.s);
	vsock_boot(&f.s, 64);
	memset(f.fds, -1, sizeof(f.fds));
	for (int i = 0; i < ROUNDS; i++) {
		some_client(&f, &f.fds[below(CLIENTS)]);
		some_packet(&f);
		listen_to(&f);
		if (below(5000) == 0) {
			driver_set(&f.s.d, VIRTIO_MMIO_STATUS, 0);
			vsock_boot(&f.s, 64);
		}
	}
	CHECK(f.npeers > 300 && f.opened > 100 && f.ended > 300);
	for (int i = 0; i < CLIENTS; i++)
		if (f.fds[i] >= 0)
			close(f.fds[i]);
	driver_set(&f.s.d, VIRTIO_MMIO_STATUS, 0);
	vsock_boot(&f.s, 64);
	close(open_connection(&f.s, 9, &p)); /* it is sound still */
	vsock_tear_down(&f.s);
}
