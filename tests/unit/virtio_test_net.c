/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_net.c: the network device (virtio 1.3, 5.1), before a pair of datagram sockets in place of a packet(7)
 * socket: a message is a struct virtio_net_hdr and a frame there too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <sys/socket.h>

#include "virtio/net.h"
#include "virtio_driver.h"

#define RECEIVE 0
#define TRANSMIT 1
#define HEADER 12u     /* of the guest */
#define OF_SOCKET 10u  /* of the socket */
#define SMALLEST 1530u /* bytes of Linux's smallest receive buffer */
#define LONGEST 65550u
#define UDP_L4 5
#define USO (3ull << 54)

static const unsigned char OWN[ETH_ALEN] = { 2, 0x42, 10, 0, 0, 2 };

struct setup {
	struct driver d;
	struct mc_virtio_net *device;
	int host;                      /* the other end of the device's socket */
	int socket;
	uint64_t out;                  /* of what is sent */
	uint64_t in, size;             /* receive buffers, and bytes of each */
};

static void make(struct setup *s)
{
	const int room = 1 << 20;
	int pair[2];

	memset(s, 0, sizeof(*s));
	driver_memory(&s->d, 4 << 20);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0);
	for (int i = 0; i < 2; i++)
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	s->socket = pair[0], s->host = pair[1];
	s->device = mc_virtio_net_new(&s->d.memory, s->socket, OWN, 1400);
	CHECK(s->device && mc_virtio_net_start(s->device) == 0);
	s->d.v = mc_virtio_net_virtio(s->device);
}

static void set_up(struct setup *s)
{
	make(s);
	driver_start(&s->d, s->d.v);
	s->out = driver_alloc(&s->d, 70000);
}

/* The same with these features of the offered ones. */
static void set_up_with(struct setup *s, uint64_t features)
{
	make(s);
	driver_set(&s->d, VIRTIO_MMIO_STATUS, 0);
	driver_status(&s->d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	driver_accept(&s->d, features);
	driver_status(&s->d, VIRTIO_CONFIG_S_FEATURES_OK);
	CHECK(driver_get(&s->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK);
	for (uint32_t i = 0; i < 2; i++)
		driver_queue(&s->d, i, 0);
	driver_status(&s->d, VIRTIO_CONFIG_S_DRIVER_OK);
	s->out = driver_alloc(&s->d, 70000);
}

static void tear_down(struct setup *s)
{
	mc_virtio_net_free(s->device);
	close(s->host);
	close(s->socket);
	driver_free(&s->d);
}

/* What a driver has to accept. */
#define NEEDED                                                                                                      \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_NET_F_GUEST_CSUM |            \
	 1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN)

/* A frame of `size` bytes that depend on `seed`, from the guest's address. */
static void fill_frame(unsigned char *frame, uint32_t size, uint64_t seed)
{
	test_fill(frame, size, seed);
	if (size >= 2 * ETH_ALEN)
		memcpy(frame + ETH_ALEN, OWN, ETH_ALEN);
}

static struct virtio_net_hdr_v1 header_of(unsigned flags, unsigned type)
{
	return (struct virtio_net_hdr_v1){ .flags = (uint8_t)flags, .gso_type = (uint8_t)type, .hdr_len = 54,
					   .gso_size = 1000, .csum_start = 34, .csum_offset = 16,
					   .num_buffers = 0x7777 };
}

/* ---- what is sent */

/* Makes a chain of elements that have so many bytes of header and frame. */
static void send_in(struct setup *s, const struct virtio_net_hdr_v1 *h, const unsigned char *frame, uint32_t size,
		    const uint32_t *lengths, int n)
{
	struct driver_buffer b[8];
	uint64_t at = s->out;

	memcpy(driver_at(&s->d, s->out, HEADER), h, HEADER);
	memcpy(driver_at(&s->d, s->out + HEADER, size), frame, size);
	for (int i = 0; i < n; at += lengths[i++])
		b[i] = (struct driver_buffer){ at, lengths[i], 0 };
	CHECK(at == s->out + HEADER + size);
	CHECK(driver_add(&s->d, TRANSMIT, b, n) >= 0);
}

static void send_whole(struct setup *s, const struct virtio_net_hdr_v1 *h, const unsigned char *frame, uint32_t size)
{
	send_in(s, h, frame, size, (const uint32_t[]){ HEADER + size }, 1);
	CHECK(driver_wait(&s->d, TRANSMIT).len == 0);
}

/* The next message of the device is this frame with this header. */
static void check_sent(struct setup *s, const struct virtio_net_hdr_v1 *h, const unsigned char *frame, uint32_t size)
{
	static unsigned char message[OF_SOCKET + 70000];

	CHECK(recv(s->host, message, sizeof(message), 0) == (ssize_t)(OF_SOCKET + size));
	CHECK(memcmp(message, h, OF_SOCKET) == 0);
	CHECK(memcmp(message + OF_SOCKET, frame, size) == 0);
}

static void check_nothing_sent(struct setup *s)
{
	char byte;

	CHECK(recv(s->host, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

TEST(net_config)
{
	struct setup s;
	struct virtio_net_config config;

	set_up(&s);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_NET);
	for (uint32_t i = 0; i < 12; i++)
		((unsigned char *)&config)[i] = (unsigned char)mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG + i, 1);
	CHECK(memcmp(config.mac, OWN, ETH_ALEN) == 0 && config.mtu == 1400);
	CHECK((driver_offered(&s.d) & NEEDED) == NEEDED && (driver_offered(&s.d) & USO) == USO);
	CHECK(!(driver_offered(&s.d) & (1ull << VIRTIO_NET_F_CTRL_VQ | 1ull << VIRTIO_NET_F_MQ)));
	tear_down(&s);
}

/* 2.2.2: without what the host's frames need there is no way to the guest. */
TEST(net_refuses_a_driver_that_cannot_receive)
{
	struct setup s;

	make(&s);
	for (uint64_t bits = NEEDED & 0xffffffff; bits; bits &= bits - 1) {
		driver_set(&s.d, VIRTIO_MMIO_STATUS, 0);
		driver_status(&s.d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
		driver_accept(&s.d, driver_offered(&s.d) & ~(bits & -bits));
		driver_status(&s.d, VIRTIO_CONFIG_S_FEATURES_OK);
		CHECK(!(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK));
	}
	tear_down(&s);
}

TEST(net_sends)
{
	struct setup s;
	static unsigned char frame[LONGEST];
	const struct virtio_net_hdr_v1 plain = header_of(0, 0), tso = header_of(1, VIRTIO_NET_HDR_GSO_TCPV4 | 0x80);

	set_up(&s);
	for (uint32_t size = 15; size < 3000; size += 97) {
		fill_frame(frame, size, size);
		send_whole(&s, &plain, frame, size);
		check_sent(&s, &plain, frame, size);
	}
	fill_frame(frame, LONGEST, 1);
	send_whole(&s, &tso, frame, LONGEST);
	check_sent(&s, &tso, frame, LONGEST);
	CHECK(!s.d.v->broken);
	tear_down(&s);
}

/* 2.7.4.3: the framing of messages is of no meaning. */
TEST(net_sends_from_any_elements)
{
	static const uint32_t framings[][8] = {
		{ 12, 100 }, { 5, 7, 100 }, { 1, 111 }, { 12, 14, 86 }, { 12, 6, 94 }, { 13, 99 }, { 26, 86 },
		{ 3, 3, 3, 3, 3, 97 }, { 27, 1, 84 },
	};
	struct setup s;
	unsigned char frame[100];
	const struct virtio_net_hdr_v1 h = header_of(VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);

	set_up(&s);
	for (uint32_t i = 0; i < sizeof(framings) / sizeof(*framings); i++) {
		int n = 0;

		while (n < 8 && framings[i][n])
			n++;
		fill_frame(frame, sizeof(frame), i);
		send_in(&s, &h, frame, sizeof(frame), framings[i], n);
		CHECK(driver_wait(&s.d, TRANSMIT).len == 0);
		check_sent(&s, &h, frame, sizeof(frame));
	}
	tear_down(&s);
}

/* 5.1.6.2.2 */
TEST(net_ignores_unknown_flags)
{
	struct setup s;
	unsigned char frame[60];
	struct virtio_net_hdr_v1 h = header_of(0xff, 0);

	set_up(&s);
	fill_frame(frame, sizeof(frame), 1);
	send_whole(&s, &h, frame, sizeof(frame));
	h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	check_sent(&s, &h, frame, sizeof(frame));
	tear_down(&s);
}

/* Each is given back, and none of them reaches the host; the next good one does. */
TEST(net_does_not_send_what_is_no_frame_of_its_guest)
{
	static const uint32_t sizes[] = { 0, 1, 13, LONGEST + 1 };
	struct setup s;
	static unsigned char frame[LONGEST + 1];
	const struct virtio_net_hdr_v1 plain = header_of(0, 0);
	const struct virtio_net_hdr_v1 bad[] = { header_of(1, 2), header_of(1, VIRTIO_NET_HDR_GSO_UDP),
						 header_of(1, UDP_L4), header_of(1, 0x7f) };

	set_up(&s);
	for (int i = 0; i < 4; i++) {
		fill_frame(frame, sizeof(frame), 1);
		send_whole(&s, &plain, frame, sizes[i]);
		send_whole(&s, &bad[i], frame, 60);
	}
	frame[ETH_ALEN + 5] ^= 1; /* another's address */
	send_whole(&s, &plain, frame, 60);
	send_in(&s, &plain, frame, 0, (const uint32_t[]){ 5, 7 }, 2);
	CHECK(driver_wait(&s.d, TRANSMIT).len == 0);
	check_nothing_sent(&s);
	fill_frame(frame, 60, 2);
	send_whole(&s, &plain, frame, 60);
	check_sent(&s, &plain, frame, 60);
	CHECK(!s.d.v->broken);
	tear_down(&s);
}

TEST(net_does_not_send_what_was_not_negotiated)
{
	struct setup s;
	unsigned char frame[60];
	const struct virtio_net_hdr_v1 plain = header_of(0, 0), csum = header_of(1, 0), ecn = header_of(0, 0x80);
	const struct virtio_net_hdr_v1 tso4 = header_of(0, VIRTIO_NET_HDR_GSO_TCPV4);
	const struct virtio_net_hdr_v1 tso6 = header_of(0, VIRTIO_NET_HDR_GSO_TCPV6);

	set_up_with(&s, NEEDED);
	fill_frame(frame, sizeof(frame), 1);
	send_whole(&s, &csum, frame, sizeof(frame));
	send_whole(&s, &tso4, frame, sizeof(frame));
	send_whole(&s, &tso6, frame, sizeof(frame));
	send_whole(&s, &ecn, frame, sizeof(frame));
	check_nothing_sent(&s);
	send_whole(&s, &plain, frame, sizeof(frame));
	check_sent(&s, &plain, frame, sizeof(frame));
	tear_down(&s);
}

/* The device's socket has room for a few frames alone. */
static void make_narrow(struct setup *s)
{
	const int room = 8192;

	CHECK(setsockopt(s->socket, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0);
}

/* Frames wait for a host that does not read, and none is lost or changes its place. */
TEST(net_waits_for_room)
{
	struct setup s;
	unsigned char frame[1000];
	const struct virtio_net_hdr_v1 h = header_of(0, 0);
	uint64_t out;
	uint32_t waiting;

	set_up(&s);
	make_narrow(&s);
	out = driver_alloc(&s.d, 200 * 1100);
	for (uint32_t i = 0; i < 200; i++) {
		s.out = out + 1100 * i;
		fill_frame(frame, sizeof(frame), i + 1);
		send_in(&s, &h, frame, sizeof(frame), (const uint32_t[]){ HEADER + 1000 }, 1);
	}
	usleep(20000);
	waiting = 200u - driver_used_ring(&s.d, TRANSMIT)->idx;
	CHECK(waiting > 100);
	for (uint32_t i = 0; i < 200; i++) {
		fill_frame(frame, sizeof(frame), i + 1);
		check_sent(&s, &h, frame, sizeof(frame));
	}
	for (uint32_t i = 0; i < 200; i++)
		driver_wait(&s.d, TRANSMIT);
	tear_down(&s);
}

/* ---- what is received */

static void give(struct setup *s, uint64_t address)
{
	const struct driver_buffer b = { address, (uint32_t)s->size, 1 };

	CHECK(driver_add(&s->d, RECEIVE, &b, 1) >= 0);
}

static void give_all(struct setup *s, uint32_t count, uint32_t size)
{
	if (!s->in)
		s->in = driver_alloc(&s->d, (uint64_t)count * size);
	s->size = size;
	for (uint32_t i = 0; i < count; i++)
		give(s, s->in + (uint64_t)i * size);
}

static void host_sends(struct setup *s, unsigned flags, unsigned type, const unsigned char *frame, uint32_t size)
{
	const struct virtio_net_hdr_v1 h = header_of(flags, type);
	struct iovec parts[] = { { (void *)&h, OF_SOCKET }, { (void *)frame, size } };
	const struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	CHECK(sendmsg(s->host, &message, 0) == (ssize_t)(OF_SOCKET + size));
}

/* The next frame, whose buffers are all there when the first is; they are given again. Returns its bytes. */
static uint32_t next_frame(struct setup *s, struct virtio_net_hdr_v1 *h, unsigned char *frame)
{
	struct vring_used_elem e = driver_wait(&s->d, RECEIVE);
	uint32_t size = 0;

	for (uint32_t i = 0;; i++) {
		const uint64_t at = driver_desc(&s->d, RECEIVE, e.id)->addr;
		const uint32_t skip = i == 0 ? HEADER : 0;

		CHECK(e.len >= skip && e.len <= s->size);
		if (i == 0)
			memcpy(h, driver_at(&s->d, at, HEADER), HEADER);
		memcpy(frame + size, driver_at(&s->d, at + skip, e.len - skip), e.len - skip);
		size += e.len - skip;
		give(s, at);
		if (i + 1 == h->num_buffers)
			return size;
		CHECK(e.len == s->size); /* 5.1.6.4: all but the last are full */
		CHECK(driver_used(&s->d, RECEIVE, &e));
	}
}

static void check_received(struct setup *s, unsigned flags, unsigned type, const unsigned char *frame, uint32_t size,
			   uint32_t buffers)
{
	static unsigned char found[LONGEST];
	struct virtio_net_hdr_v1 h, wanted = header_of(flags, type);

	wanted.num_buffers = (uint16_t)buffers;
	CHECK(next_frame(s, &h, found) == size);
	CHECK(memcmp(&h, &wanted, HEADER) == 0 && memcmp(found, frame, size) == 0);
}

TEST(net_receives)
{
	struct setup s;
	unsigned char frame[SMALLEST - HEADER];

	set_up(&s);
	give_all(&s, 200, SMALLEST);
	for (uint32_t i = 0; i < 1000; i++) {
		const uint32_t size = ETH_HLEN + i % (sizeof(frame) - ETH_HLEN + 1);

		test_fill(frame, size, i + 1);
		host_sends(&s, i & 1, i & 1 ? VIRTIO_NET_HDR_GSO_TCPV6 : 0, frame, size);
		check_received(&s, i & 1, i & 1 ? VIRTIO_NET_HDR_GSO_TCPV6 : 0, frame, size, 1);
	}
	CHECK(__atomic_load_n(&s.d.v->raised, __ATOMIC_SEQ_CST) >= 999 && !s.d.v->broken);
	tear_down(&s);
}

TEST(net_receives_into_several_buffers)
{
	struct setup s;
	static unsigned char frame[LONGEST];

	set_up(&s);
	give_all(&s, 200, SMALLEST);
	for (uint32_t i = 0; i < 200; i++) {
		const uint32_t size = i % 20 ? SMALLEST - HEADER - 2 + i * 301 : LONGEST;

		test_fill(frame, size, i + 1);
		host_sends(&s, 1, VIRTIO_NET_HDR_GSO_TCPV4, frame, size);
		check_received(&s, 1, VIRTIO_NET_HDR_GSO_TCPV4, frame, size, (size + HEADER + SMALLEST - 1) / SMALLEST);
	}
	CHECK(!s.d.v->broken);
	tear_down(&s);
}

/* Where there are buffers for the longest frame, more of them are no news. */
TEST(net_wants_kicks_while_it_lacks_buffers)
{
	struct setup s;

	set_up(&s);
	CHECK(driver_used_ring(&s.d, RECEIVE)->flags == 0);
	give_all(&s, 200, SMALLEST);
	until(driver_used_ring(&s.d, RECEIVE)->flags == VRING_USED_F_NO_NOTIFY);
	CHECK(driver_used_ring(&s.d, TRANSMIT)->flags == 0);
	CHECK(!s.d.v->broken);
	tear_down(&s);
}

/* The longest frame may come next, so a frame waits until there is room for that. */
TEST(net_waits_for_buffers)
{
	struct setup s;
	static unsigned char frame[LONGEST];

	set_up(&s);
	test_fill(frame, LONGEST, 1);
	host_sends(&s, 1, VIRTIO_NET_HDR_GSO_TCPV4, frame, LONGEST);
	give_all(&s, 42, SMALLEST);
	usleep(10000);
	CHECK(driver_used_ring(&s.d, RECEIVE)->idx == 0);
	give(&s, driver_alloc(&s.d, SMALLEST));
	check_received(&s, 1, VIRTIO_NET_HDR_GSO_TCPV4, frame, LONGEST, 43);
	tear_down(&s);
}

TEST(net_does_not_deliver_what_is_no_frame)
{
	struct setup s;
	static unsigned char frame[90000];

	set_up_with(&s, NEEDED);
	give_all(&s, 64, SMALLEST);
	test_fill(frame, sizeof(frame), 1);
	CHECK(send(s.host, frame, 0, 0) == 0 && send(s.host, frame, OF_SOCKET + 13, 0) == OF_SOCKET + 13);
	host_sends(&s, 0, 0, frame, 90000);        /* longer than all buffers at hand */
	host_sends(&s, 1, UDP_L4, frame, 3000);    /* not negotiated */
	host_sends(&s, 0, 0, frame, 100);
	check_received(&s, 0, 0, frame, 100, 1);
	tear_down(&s);
}

TEST(net_receives_segments_of_udp)
{
	struct setup s;
	static unsigned char frame[30000];

	set_up(&s);
	give_all(&s, 64, SMALLEST);
	test_fill(frame, sizeof(frame), 1);
	host_sends(&s, 1, UDP_L4, frame, sizeof(frame));
	check_received(&s, 1, UDP_L4, frame, sizeof(frame), 20);
	tear_down(&s);
}

/* 5.1.6.3.1 */
TEST(net_buffer_without_room_for_a_header)
{
	struct setup s;

	set_up(&s);
	give_all(&s, 1, HEADER - 1);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(s.d.v->broken_queue == RECEIVE);
	CHECK(strcmp(s.d.v->broken, "a receive buffer is smaller than a header") == 0);
	tear_down(&s);
}

/* Buffers with many elements, and as many of the smallest as the device keeps: what does not fit is lost. */
TEST(net_odd_buffers)
{
	struct setup s;
	static unsigned char frame[4000];
	struct virtio_net_hdr_v1 h;
	unsigned char found[4000];
	struct driver_buffer b[100];
	uint64_t at;

	set_up(&s);
	give_all(&s, 64, HEADER);
	test_fill(frame, sizeof(frame), 1);
	host_sends(&s, 0, 0, frame, 63 * HEADER + 1);
	host_sends(&s, 0, 0, frame, 63 * HEADER);
	CHECK(next_frame(&s, &h, found) == 63 * HEADER && memcmp(found, frame, 63 * HEADER) == 0);
	driver_start(&s.d, s.d.v);
	at = driver_alloc(&s.d, 100 * 1000);
	for (int i = 0; i < 100; i++)
		b[i] = (struct driver_buffer){ at + 1000 * (uint64_t)(99 - i), i ? 997 : 5, 1 };
	CHECK(driver_add(&s.d, RECEIVE, b, 100) >= 0);
	host_sends(&s, 0, 0, frame, 4000);
	CHECK(driver_wait(&s.d, RECEIVE).len == HEADER + 4000);
	CHECK(memcmp(driver_at(&s.d, at + 98000 + 7, 990), frame, 990) == 0);
	CHECK(memcmp(driver_at(&s.d, at + 97000, 997), frame + 990, 997) == 0);
	tear_down(&s);
}

/* ---- its life */

/* Buffers of before a reset are not written to, and a frame that waited is not sent. */
TEST(net_reset)
{
	struct setup s;
	static unsigned char frame[1000], untouched[64 * SMALLEST], message[2000];
	const struct virtio_net_hdr_v1 h = header_of(0, 0);
	uint64_t old;

	set_up(&s);
	make_narrow(&s);
	give_all(&s, 64, SMALLEST);
	old = s.in;
	fill_frame(frame, sizeof(frame), 1);
	for (int i = 0; i < 256; i++)
		send_in(&s, &h, frame, sizeof(frame), (const uint32_t[]){ HEADER + 1000 }, 1);
	usleep(10000);
	driver_start(&s.d, s.d.v);
	while (recv(s.host, message, sizeof(message), MSG_DONTWAIT) > 0)
		;
	check_nothing_sent(&s);
	s.in = 0;
	give_all(&s, 64, SMALLEST);
	host_sends(&s, 0, 0, frame, sizeof(frame));
	check_received(&s, 0, 0, frame, sizeof(frame), 1);
	CHECK(memcmp(driver_at(&s.d, old, sizeof(untouched)), untouched, sizeof(untouched)) == 0);
	fill_frame(frame, sizeof(frame), 2);
	send_whole(&s, &h, frame, sizeof(frame));
	check_sent(&s, &h, frame, sizeof(frame));
	CHECK(!s.d.v->broken);
	tear_down(&s);
}

TEST(net_stopped_queue)
{
	struct setup s;
	unsigned char frame[100];
	const struct virtio_net_hdr_v1 h = header_of(0, 0);

	set_up(&s);
	give_all(&s, 64, SMALLEST);
	fill_frame(frame, sizeof(frame), 1);
	host_sends(&s, 0, 0, frame, sizeof(frame));
	check_received(&s, 0, 0, frame, sizeof(frame), 1);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, RECEIVE);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 0);
	host_sends(&s, 0, 0, frame, sizeof(frame));
	send_whole(&s, &h, frame, sizeof(frame)); /* the other queue goes on */
	check_sent(&s, &h, frame, sizeof(frame));
	CHECK(driver_used_ring(&s.d, RECEIVE)->idx == 1);
	tear_down(&s);
}

TEST(net_stops)
{
	struct setup s;
	unsigned char frame[1000];
	const struct virtio_net_hdr_v1 h = header_of(0, 0);

	set_up(&s);
	make_narrow(&s);
	fill_frame(frame, sizeof(frame), 1);
	for (int i = 0; i < 256; i++) /* until one waits for room */
		send_in(&s, &h, frame, sizeof(frame), (const uint32_t[]){ HEADER + 1000 }, 1);
	mc_virtio_net_stop(s.device);
	mc_virtio_net_stop(s.device);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == DRIVER_READY); /* registers are still there */
	tear_down(&s);
}
