/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_vsock_rules.c: the socket device (virtio 1.3, 5.10): credit in both directions, and what it refuses.
 */
#define _GNU_SOURCE
#include "virtio_vsock.h"

#define SEND VIRTIO_VSOCK_SHUTDOWN_SEND

static void set_up(struct setup *s)
{
	vsock_set_up(s);
	vsock_boot(s, 64);
}

/* ---- credit */

/* The client is read no further than the guest has room, and on when it has. */
TEST(vsock_credit_of_the_guest)
{
	static unsigned char sent[3000];
	struct setup s;
	struct peer p;
	int fd;

	set_up(&s);
	fd = ask(&s, 1, &p);
	p.room = 1000;
	say(&s, &p, VIRTIO_VSOCK_OP_RESPONSE, 0);
	write_all(fd, sent, sizeof(sent));
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 1000);
	expect(&s, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	p.taken = 300;
	say(&s, &p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 300);
	expect(&s, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	p.taken = 5000; /* more than it was sent */
	say(&s, &p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	p.taken = 1300;
	p.room = 2000;
	say(&s, &p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 1700);
	close(fd);
	vsock_tear_down(&s);
}

/* A client that does not read stops the guest, which may go on when it reads. */
TEST(vsock_credit_of_the_device)
{
	static unsigned char data[MC_VSOCK_ROOM], got[MC_VSOCK_ROOM];
	struct setup s;
	struct peer p;
	uint32_t sent = 0, told = 0;
	int fd;

	set_up(&s);
	fd = open_connection(&s, 1, &p);
	test_fill(data, sizeof(data), 5);
	for (int quiet = 0; quiet < 50; quiet++) { /* until nothing is given back any more */
		while (MC_VSOCK_ROOM - (sent - told) >= 4096) {
			send_data(&s, &p, data + sent % MC_VSOCK_ROOM, 4096);
			sent += 4096;
			quiet = 0;
		}
		if (has_packet(&s)) {
			CHECK(s.last.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && s.last.buf_alloc == MC_VSOCK_ROOM);
			told = s.last.fwd_cnt;
		}
		usleep(1000);
	}
	CHECK(sent - told <= MC_VSOCK_ROOM && sent > MC_VSOCK_ROOM);
	say(&s, &p, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_CREDIT_UPDATE)->fwd_cnt - told < MC_VSOCK_ROOM / 4);
	for (uint32_t at = 0; at < sent; at += 4096) {
		read_exactly(fd, got, 4096);
		CHECK(memcmp(got, data + at % MC_VSOCK_ROOM, 4096) == 0);
	}
	until(has_packet(&s) && s.last.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && sent - s.last.fwd_cnt < MC_VSOCK_ROOM / 4);
	close(fd);
	vsock_tear_down(&s);
}

TEST(vsock_more_than_its_credit)
{
	static unsigned char data[MC_VSOCK_ROOM];
	struct setup s;
	struct peer p;
	int fd;

	set_up(&s);
	fd = open_connection(&s, 1, &p);
	for (;;) { /* what the client's socket takes is no more than a little */
		send_data(&s, &p, data, sizeof(data));
		if (has_packet(&s) && s.last.op == VIRTIO_VSOCK_OP_RST)
			break;
	}
	CHECK(s.last.src_port == p.host_port);
	close(fd);
	vsock_tear_down(&s);
}

/* ---- what is refused */

static void check_refused(struct setup *s, struct virtio_vsock_hdr h)
{
	send_raw(s, &h, NULL, 0);
	expect(s, VIRTIO_VSOCK_OP_RST);
	CHECK(s->last.src_port == h.dst_port && s->last.dst_port == h.src_port && s->last.type == h.type);
	CHECK(s->last.src_cid == h.dst_cid);
}

TEST(vsock_refusals)
{
	struct setup s;
	struct peer p = { 80, 4000, 0, ROOM }, open;
	struct virtio_vsock_hdr h = header_of(&p, VIRTIO_VSOCK_OP_REQUEST);
	int fd;

	set_up(&s);
	check_refused(&s, h); /* the guest connects */
	for (uint16_t op = 0; op < 10; op++)
		if (op != VIRTIO_VSOCK_OP_RST)
			check_refused(&s, header_of(&p, op));
	say(&s, &p, VIRTIO_VSOCK_OP_RST, 0); /* has no answer */
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	check_refused(&s, h);
	h.type = 77;
	check_refused(&s, h);
	fd = open_connection(&s, 4000, &open);
	h = header_of(&open, VIRTIO_VSOCK_OP_RST);
	h.src_cid = 4; /* not the guest's: the connection stays */
	send_raw(&s, &h, NULL, 0);
	h.src_cid = MC_VSOCK_CID;
	h.op = VIRTIO_VSOCK_OP_RW;
	h.dst_cid = 5;
	check_refused(&s, h);
	write_all(fd, "x", 1);
	expect(&s, VIRTIO_VSOCK_OP_RW);
	close(fd);
	vsock_tear_down(&s);
}

/* A packet that breaks a rule ends its connection, and no other. */
TEST(vsock_bad_packets)
{
	static const uint16_t ops[] = { VIRTIO_VSOCK_OP_INVALID, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, 8, 999 };
	struct setup s;
	struct peer other, p;
	struct virtio_vsock_hdr h;
	int kept, fd;

	set_up(&s);
	kept = open_connection(&s, 1, &other);
	for (uint32_t i = 0; i < sizeof(ops) / sizeof(*ops) + 3; i++) {
		fd = open_connection(&s, 2, &p);
		h = header_of(&p, i < 5 ? ops[i] : VIRTIO_VSOCK_OP_RW);
		h.len = i == 5 ? UINT32_MAX : i == 6 ? MC_VSOCK_ROOM + 1 : 0;
		if (i == 7) /* bytes behind their end */
			say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, SEND);
		send_raw(&s, &h, NULL, 0);
		CHECK(expect(&s, VIRTIO_VSOCK_OP_RST)->src_port == p.host_port);
		CHECK(is_at_end(fd));
		close(fd);
	}
	fd = ask(&s, 2, &p); /* bytes before the answer */
	send_data(&s, &p, "x", 1);
	expect(&s, VIRTIO_VSOCK_OP_RST);
	CHECK(is_at_end(fd));
	close(fd);
	write_all(kept, "x", 1);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->src_port == other.host_port);
	close(kept);
	vsock_tear_down(&s);
}

static void check_broken(struct setup *s, uint32_t queue, const char *why)
{
	until(driver_get(&s->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(s->d.v->broken_queue == (int)queue && strcmp(s->d.v->broken, why) == 0);
	mc_vsock_free(s->device);
	driver_free(&s->d);
}

TEST(vsock_short_packets)
{
	struct setup s;
	struct driver_buffer b;

	set_up(&s);
	b = (struct driver_buffer){ s.out, sizeof(struct virtio_vsock_hdr) - 1, 0 };
	CHECK(driver_add(&s.d, TX, &b, 1) >= 0);
	check_broken(&s, TX, "a packet is shorter than its header says");
	set_up(&s);
	b = (struct driver_buffer){ s.out, sizeof(struct virtio_vsock_hdr) + 9, 0 };
	((struct virtio_vsock_hdr *)driver_at(&s.d, s.out, b.length))->len = 10;
	CHECK(driver_add(&s.d, TX, &b, 1) >= 0);
	check_broken(&s, TX, "a packet is shorter than its header says");
}

TEST(vsock_short_buffers)
{
	struct setup s;
	struct driver_buffer b;
	int fd;

	vsock_set_up(&s);
	vsock_boot(&s, 0);
	b = (struct driver_buffer){ s.in, sizeof(struct virtio_vsock_hdr) - 1, 1 };
	CHECK(driver_add(&s.d, RX, &b, 1) >= 0);
	fd = client(&s);
	write_all(fd, "CONNECT 1\n", 10);
	check_broken(&s, RX, "a receive buffer is smaller than a packet's header");
	close(fd);
}

/* Refusals wait for buffers, and hold up the packets behind them: nothing piles up in the device. */
TEST(vsock_refusals_without_buffers)
{
	struct setup s;
	struct peer p = { 80, 4000, 0, ROOM };
	struct virtio_vsock_hdr h = header_of(&p, VIRTIO_VSOCK_OP_REQUEST);
	struct driver_buffer b;

	vsock_set_up(&s);
	vsock_boot(&s, 0);
	b = (struct driver_buffer){ s.out, sizeof(h), 0 };
	memcpy(driver_at(&s.d, s.out, sizeof(h)), &h, sizeof(h));
	for (int i = 0; i < 200; i++)
		CHECK(driver_add(&s.d, TX, &b, 1) >= 0);
	driver_wait(&s.d, TX);
	usleep(20000);
	CHECK(driver_used_ring(&s.d, TX)->idx == 1);
	for (uint32_t i = 0; i < 64; i++)
		give_page(&s, i);
	for (int i = 0; i < 200; i++)
		expect(&s, VIRTIO_VSOCK_OP_RST);
	CHECK(driver_used_ring(&s.d, TX)->idx == 200);
	vsock_tear_down(&s);
}
