/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_vsock.c: the socket device (virtio 1.3, 5.10): connections, both directions, and their ends.
 */
#define _GNU_SOURCE
#include <linux/virtio_ids.h>
#include <pthread.h>

#include "virtio_vsock.h"

#define SEND VIRTIO_VSOCK_SHUTDOWN_SEND
#define RECEIVE VIRTIO_VSOCK_SHUTDOWN_RCV

static void set_up(struct setup *s)
{
	vsock_set_up(s);
	vsock_boot(s, 64);
}

/* The end of a client that has closed: the device may see the end of its bytes first. */
static void expect_end(struct setup *s)
{
	if (expect(s, VIRTIO_VSOCK_OP_SHUTDOWN)->flags == SEND)
		expect(s, VIRTIO_VSOCK_OP_SHUTDOWN);
	CHECK(s->last.flags == (SEND | RECEIVE));
}

TEST(vsock_config)
{
	struct setup s;

	set_up(&s);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_VSOCK);
	CHECK(mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG, 4) == 3 && mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG + 4, 4) == 0);
	vsock_tear_down(&s);
}

TEST(vsock_both_directions)
{
	struct setup s;
	struct peer p;
	char got[6];
	int fd;

	set_up(&s);
	fd = open_connection(&s, 1024, &p);
	write_all(fd, "hello", 5);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 5 && memcmp(s.data, "hello", 5) == 0);
	CHECK(s.last.src_port == p.host_port && s.last.dst_port == 1024);
	send_data(&s, &p, "world\n", 6);
	read_exactly(fd, got, 6);
	CHECK(memcmp(got, "world\n", 6) == 0);
	close(fd);
	expect_end(&s);
	say(&s, &p, VIRTIO_VSOCK_OP_RST, 0);
	vsock_tear_down(&s);
}

/* What a client sends behind its line is for the guest, and is kept until the guest has answered. */
TEST(vsock_bytes_behind_the_line)
{
	struct setup s;
	struct peer p = { .port = 7, .room = ROOM };
	int fd;

	set_up(&s);
	fd = client(&s);
	write_all(fd, "CONNECT 7\nearly", 15);
	p.host_port = expect(&s, VIRTIO_VSOCK_OP_REQUEST)->src_port;
	say(&s, &p, VIRTIO_VSOCK_OP_RESPONSE, 0);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 5 && memcmp(s.data, "early", 5) == 0);
	close(fd);
	vsock_tear_down(&s);
}

TEST(vsock_a_line_in_pieces)
{
	struct setup s;
	int fd;

	set_up(&s);
	fd = client(&s);
	for (const char *c = "CONNECT 4294967294\n"; *c; c++) {
		write_all(fd, c, 1);
		usleep(500);
	}
	CHECK(expect(&s, VIRTIO_VSOCK_OP_REQUEST)->dst_port == 4294967294u);
	close(fd);
	vsock_tear_down(&s);
}

TEST(vsock_bad_lines)
{
	static const char *const lines[] = { "\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT 1 \n", "connect 1\n",
					     "CONNECT -1\n", "CONNECT 4294967295\n", "CONNECT 99999999999\n",
					     "CONNECT 0000000000001\n", "GET / HTTP/1.0\r\n\r\n" };
	struct setup s;
	struct peer p;

	set_up(&s);
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		int fd = client(&s);

		write_all(fd, lines[i], strlen(lines[i]));
		CHECK(is_at_end(fd));
		close(fd);
	}
	close(client(&s));
	close(open_connection(&s, 5, &p)); /* the first packet that the guest gets */
	vsock_tear_down(&s);
}

/* ---- ends */

TEST(vsock_the_client_ends_its_direction)
{
	struct setup s;
	struct peer p;
	char got[4];
	int fd;

	set_up(&s);
	fd = open_connection(&s, 9, &p);
	write_all(fd, "last", 4);
	CHECK(shutdown(fd, SHUT_WR) == 0);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 4);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_SHUTDOWN)->flags == SEND);
	send_data(&s, &p, "more", 4);
	read_exactly(fd, got, 4);
	say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, SEND | RECEIVE);
	CHECK(is_at_end(fd));
	expect(&s, VIRTIO_VSOCK_OP_RST);
	close(fd);
	vsock_tear_down(&s);
}

TEST(vsock_the_guest_ends_a_direction)
{
	struct setup s;
	struct peer p;
	char got[4];
	int fd;

	set_up(&s);
	fd = open_connection(&s, 9, &p);
	send_data(&s, &p, "last", 4);
	say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, SEND);
	read_exactly(fd, got, 4);
	CHECK(is_at_end(fd));
	write_all(fd, "more", 4);
	CHECK(expect(&s, VIRTIO_VSOCK_OP_RW)->len == 4);
	say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, RECEIVE);
	expect(&s, VIRTIO_VSOCK_OP_RST);
	CHECK(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	close(fd);
	vsock_tear_down(&s);
}

TEST(vsock_the_guest_reads_no_more)
{
	struct setup s;
	struct peer p;
	char got[4];
	int fd;

	set_up(&s);
	fd = open_connection(&s, 9, &p);
	say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, RECEIVE);
	until(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	send_data(&s, &p, "data", 4);
	read_exactly(fd, got, 4);
	close(fd);
	expect_end(&s);
	vsock_tear_down(&s);
}

/* A client that closes with bytes under way: the guest gets them all before it hears of the end. */
TEST(vsock_bytes_before_the_end)
{
	static unsigned char sent[100000];
	struct setup s;
	struct peer p;
	size_t got = 0;
	int fd;

	set_up(&s);
	fd = open_connection(&s, 9, &p);
	test_fill(sent, sizeof(sent), 3);
	write_all(fd, sent, sizeof(sent));
	close(fd);
	for (; got < sizeof(sent); got += s.last.len) {
		expect(&s, VIRTIO_VSOCK_OP_RW);
		CHECK(memcmp(s.data, sent + got, s.last.len) == 0);
	}
	CHECK(got == sizeof(sent));
	expect_end(&s);
	vsock_tear_down(&s);
}

/* And the other way: what a guest has sent before RST reaches a client that reads late. */
TEST(vsock_bytes_before_a_reset)
{
	static unsigned char sent[60000], got[60000];
	struct setup s;
	struct peer p;
	int fd, small = 1;

	set_up(&s);
	fd = open_connection(&s, 9, &p);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
	test_fill(sent, sizeof(sent), 4);
	send_data(&s, &p, sent, sizeof(sent));
	say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, SEND | RECEIVE);
	say(&s, &p, VIRTIO_VSOCK_OP_RST, 0);
	read_exactly(fd, got, sizeof(got));
	CHECK(memcmp(sent, got, sizeof(got)) == 0 && is_at_end(fd));
	close(fd);
	vsock_tear_down(&s);
}

TEST(vsock_the_guest_refuses)
{
	struct setup s;
	struct peer p;
	int fd;

	set_up(&s);
	fd = ask(&s, 77, &p);
	say(&s, &p, VIRTIO_VSOCK_OP_RST, 0);
	CHECK(is_at_end(fd));
	close(fd);
	fd = ask(&s, 78, &p); /* and a client that does not wait */
	close(fd);
	expect(&s, VIRTIO_VSOCK_OP_RST);
	CHECK(s.last.src_port == p.host_port);
	vsock_tear_down(&s);
}

TEST(vsock_without_a_driver)
{
	struct setup s;
	int fd;

	vsock_set_up(&s);
	fd = client(&s);
	write_all(fd, "CONNECT 1\n", 10);
	CHECK(is_at_end(fd));
	close(fd);
	vsock_tear_down(&s);
}

/* A reset ends all connections; the device serves new ones then. */
TEST(vsock_reset)
{
	struct setup s;
	struct peer p;
	int fds[3];

	set_up(&s);
	for (uint32_t i = 0; i < 3; i++)
		fds[i] = open_connection(&s, i, &p);
	driver_set(&s.d, VIRTIO_MMIO_STATUS, 0);
	for (uint32_t i = 0; i < 3; i++) {
		CHECK(is_at_end(fds[i]));
		close(fds[i]);
	}
	vsock_boot(&s, 64);
	close(open_connection(&s, 5, &p));
	vsock_tear_down(&s);
}

/* ---- a client and a guest at full speed */

static void *echo(void *argument)
{
	static unsigned char data[1 << 16];
	const int fd = *(int *)argument;
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		write_all(fd, data, (size_t)n);
	return NULL;
}

TEST(vsock_much_in_both_directions)
{
	static unsigned char data[16384];
	struct setup s;
	struct peer p;
	uint32_t sent = 0, got = 0, told = 0;
	pthread_t thread;
	int fd;

	set_up(&s);
	fd = open_connection(&s, 1, &p);
	test_fill(data, sizeof(data), 6);
	CHECK(pthread_create(&thread, NULL, echo, &fd) == 0);
	while (got < 8u << 20) {
		if (sent < 8u << 20 && MC_VSOCK_ROOM - (sent - told) >= 16384) {
			send_data(&s, &p, data, 16384);
			sent += 16384;
		}
		if (!has_packet(&s))
			continue;
		told = s.last.fwd_cnt;
		for (uint32_t i = 0; i < s.last.len; i++)
			CHECK(s.data[i] == data[(got + i) % 16384]);
		got += s.last.len;
		p.taken = got;
		if (s.last.op != VIRTIO_VSOCK_OP_RW)
			continue;
		say(&s, &p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	}
	say(&s, &p, VIRTIO_VSOCK_OP_SHUTDOWN, SEND | RECEIVE);
	CHECK(pthread_join(thread, NULL) == 0);
	close(fd);
	vsock_tear_down(&s);
}

/* As many as there may be, and one more, which waits for the end of another. */
TEST(vsock_many_connections)
{
	struct setup s;
	static struct peer p[MC_VSOCK_STREAMS + 1];
	static int fd[MC_VSOCK_STREAMS + 1];
	char got[4];

	set_up(&s);
	for (uint32_t i = 0; i < MC_VSOCK_STREAMS; i++) {
		fd[i] = open_connection(&s, 100 + i % 3, &p[i]);
		for (uint32_t j = 0; j < i; j++)
			CHECK(p[i].host_port != p[j].host_port);
	}
	for (uint32_t i = 0; i < MC_VSOCK_STREAMS; i++)
		send_data(&s, &p[i], &i, 4);
	for (uint32_t i = 0; i < MC_VSOCK_STREAMS; i++) {
		read_exactly(fd[i], got, 4);
		CHECK(memcmp(got, &i, 4) == 0);
	}
	fd[MC_VSOCK_STREAMS] = client(&s);
	write_all(fd[MC_VSOCK_STREAMS], "CONNECT 5\n", 10);
	usleep(20000);
	CHECK(!has_packet(&s));
	say(&s, &p[17], VIRTIO_VSOCK_OP_RST, 0);
	CHECK(is_at_end(fd[17]));
	CHECK(expect(&s, VIRTIO_VSOCK_OP_REQUEST)->dst_port == 5);
	for (uint32_t i = 0; i <= MC_VSOCK_STREAMS; i++)
		close(fd[i]);
	vsock_tear_down(&s);
}
