/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_console.c: the console device (virtio 1.3, 5.3): bytes of its ports, and how much is under way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#include "virtio_setup.h"

static int unread(int fd)
{
	int n;

	CHECK(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

TEST(console_config)
{
	struct setup s;

	set_up(&s);
	CHECK(driver_get(&s.g.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_CONSOLE);
	CHECK(driver_offered(&s.g.d) & 1 << VIRTIO_CONSOLE_F_MULTIPORT);
	CHECK(mc_virtio_read(s.g.d.v, VIRTIO_MMIO_CONFIG + 4, 4) == MC_PORTS);
	tear_down(&s);
}

TEST(console_ports_have_names)
{
	static const char *const names[MC_PORTS] = { "control", "stdin", "stdout", "stderr" };
	struct setup s;

	set_up(&s);
	for (int i = 0; i < MC_PORTS; i++)
		CHECK(strcmp(s.g.ports[i].name, names[i]) == 0 && s.g.ports[i].is_open);
	guest_tell(&s.g, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1); /* adds none again: guest_hear */
	guest_tell(&s.g, 2, VIRTIO_CONSOLE_PORT_READY, 1);
	guest_until(&s.g, s.g.ports[2].opens == 2);
	tear_down(&s);
}

TEST(console_ports_without_descriptor)
{
	const int none[MC_PORTS] = { -1, -1, -1, -1 };
	struct guest g;

	guest_make(&g, none);
	guest_boot(&g);
	for (uint32_t i = 0; i < MC_PORTS; i++) {
		CHECK(!g.ports[i].is_open);
		guest_open(&g, i);
		CHECK(guest_send(&g, i, "dropped", 7));
		until(guest_done(&g, i) == 1);
		guest_close(&g, i);
	}
	CHECK(mc_console_drain(g.console, 1000) == 0);
	guest_end(&g);
}

/* ---- bytes, in pieces of any size */

#define BYTES 400000

struct writer {
	int fd;
	const unsigned char *data;
	pthread_t thread;
};

static void *write_all(void *argument)
{
	struct writer *w = argument;
	uint64_t random = 5;
	ssize_t n;

	for (size_t done = 0; done < BYTES; done += (size_t)n) {
		size_t size = 1 + test_random(&random) % 9000;

		n = write(w->fd, w->data + done, size < BYTES - done ? size : BYTES - done);
		CHECK(n > 0);
	}
	return NULL;
}

static void check_to_guest(struct setup *s, int port)
{
	unsigned char *sent = malloc(BYTES), *got = malloc(BYTES);
	struct writer w = { .fd = s->host[port], .data = sent };

	test_fill(sent, BYTES, 77);
	guest_open(&s->g, (uint32_t)port);
	CHECK(pthread_create(&w.thread, NULL, write_all, &w) == 0);
	guest_read_all(&s->g, (uint32_t)port, got, BYTES);
	CHECK(pthread_join(w.thread, NULL) == 0 && memcmp(sent, got, BYTES) == 0);
	free(sent);
	free(got);
}

static void *read_bytes(void *argument)
{
	struct writer *w = argument;

	read_all(w->fd, (unsigned char *)w->data, BYTES);
	return NULL;
}

static void check_from_guest(struct setup *s, int port)
{
	unsigned char *sent = malloc(BYTES), *got = malloc(BYTES);
	struct writer w = { .fd = s->host[port], .data = got };
	uint64_t random = 6;

	test_fill(sent, BYTES, 78);
	CHECK(pthread_create(&w.thread, NULL, read_bytes, &w) == 0);
	for (size_t done = 0, size; done < BYTES; done += size) {
		size = 1 + test_random(&random) % SLOT;
		size = size < BYTES - done ? size : BYTES - done;
		until(guest_send(&s->g, (uint32_t)port, sent + done, (uint32_t)size));
	}
	CHECK(pthread_join(w.thread, NULL) == 0 && memcmp(sent, got, BYTES) == 0);
	until(guest_done(&s->g, (uint32_t)port) == s->g.ports[port].sent);
	free(sent);
	free(got);
}

TEST(console_bytes_of_stdin)
{
	struct setup s;

	set_up(&s);
	check_to_guest(&s, MC_PORT_STDIN);
	tear_down(&s);
}

TEST(console_bytes_of_stdout)
{
	struct setup s;

	set_up(&s);
	check_from_guest(&s, MC_PORT_STDOUT);
	tear_down(&s);
}

TEST(console_bytes_of_stderr)
{
	struct setup s;

	set_up(&s);
	check_from_guest(&s, MC_PORT_STDERR);
	tear_down(&s);
}

TEST(console_bytes_of_control)
{
	struct setup s;

	set_up(&s);
	check_to_guest(&s, MC_PORT_CONTROL);
	check_from_guest(&s, MC_PORT_CONTROL);
	tear_down(&s);
}

TEST(console_stdout_is_a_socket)
{
	struct setup s;
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	set_up_with(&s, MC_PORT_STDOUT, pair[0]);
	close(s.host[2]);
	s.host[2] = pair[1];
	check_from_guest(&s, MC_PORT_STDOUT);
	tear_down(&s);
}

/* EAGAIN: a descriptor that others have made non-blocking, both for reading and for writing. */
TEST(console_non_blocking_descriptors)
{
	struct setup s;
	int in[2], out[2];

	CHECK(pipe2(out, O_NONBLOCK) == 0 && fcntl(out[0], F_SETFL, 0) == 0);
	set_up_with(&s, MC_PORT_STDOUT, out[1]);
	close(s.host[2]);
	s.host[2] = out[0];
	check_from_guest(&s, MC_PORT_STDOUT);
	tear_down(&s);
	CHECK(pipe2(in, O_NONBLOCK) == 0 && fcntl(in[1], F_SETFL, 0) == 0);
	set_up_with(&s, MC_PORT_STDIN, in[0]);
	close(s.host[1]);
	s.host[1] = in[1];
	check_to_guest(&s, MC_PORT_STDIN);
	tear_down(&s);
}

/* A chain that is larger than a non-blocking pipe is written in parts, which end within its elements. */
TEST(console_partial_writes)
{
	enum { FIRST = 1000, SECOND = 300000 };
	unsigned char *sent, *got = malloc(FIRST + SECOND);
	struct driver_buffer b[2] = { { 0, FIRST, 0 }, { 0, SECOND, 0 } };
	struct setup s;
	int out[2];

	CHECK(pipe2(out, O_NONBLOCK) == 0 && fcntl(out[0], F_SETFL, 0) == 0);
	set_up_with(&s, MC_PORT_STDOUT, out[1]);
	close(s.host[2]);
	s.host[2] = out[0];
	b[0].address = driver_alloc(&s.g.d, FIRST + SECOND);
	b[1].address = b[0].address + FIRST;
	sent = driver_at(&s.g.d, b[0].address, FIRST + SECOND);
	test_fill(sent, FIRST + SECOND, 9);
	CHECK(driver_add(&s.g.d, guest_queue(2, 1), b, 2) >= 0);
	read_all(s.host[2], got, FIRST + SECOND);
	CHECK(memcmp(sent, got, FIRST + SECOND) == 0 && driver_wait(&s.g.d, guest_queue(2, 1)).len == 0);
	free(got);
	tear_down(&s);
}

TEST(console_terminal)
{
	struct setup s;
	struct termios raw;
	const int master = posix_openpt(O_RDWR | O_NOCTTY);
	int slave;

	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	CHECK(slave >= 0 && tcgetattr(slave, &raw) == 0);
	cfmakeraw(&raw);
	CHECK(tcsetattr(slave, TCSANOW, &raw) == 0);
	set_up_with(&s, MC_PORT_STDIN, dup(slave));
	close(s.host[1]);
	s.host[1] = master;
	check_to_guest(&s, MC_PORT_STDIN);
	tear_down(&s);
	close(slave);
}

TEST(console_regular_files)
{
	FILE *in = tmpfile(), *out = tmpfile();
	unsigned char *data = malloc(BYTES), *got = malloc(BYTES);
	struct setup s;

	CHECK(in && out && data && got);
	test_fill(data, BYTES, 3);
	CHECK(fwrite(data, BYTES, 1, in) == 1 && fflush(in) == 0 && lseek(fileno(in), 0, SEEK_SET) == 0);
	set_up_with(&s, MC_PORT_STDIN, dup(fileno(in)));
	guest_open(&s.g, MC_PORT_STDIN);
	guest_read_all(&s.g, MC_PORT_STDIN, got, BYTES);
	CHECK(memcmp(data, got, BYTES) == 0);
	guest_until(&s.g, !s.g.ports[MC_PORT_STDIN].is_open);
	tear_down(&s);
	set_up_with(&s, MC_PORT_STDOUT, dup(fileno(out)));
	for (size_t done = 0; done < BYTES; done += 4000)
		until(guest_send(&s.g, MC_PORT_STDOUT, data + done, 4000));
	CHECK(mc_console_drain(s.g.console, 100000) == 0);
	CHECK(pread(fileno(out), got, BYTES, 0) == BYTES && memcmp(data, got, BYTES) == 0);
	tear_down(&s);
	free(data);
	free(got);
	fclose(in);
	fclose(out);
}

/* ---- backpressure */

/* The host is not read before the guest has opened the port and has given a buffer, and then as much as fits. */
TEST(console_stdin_is_read_for_a_buffer)
{
	struct setup s;
	const uint64_t at = DRIVER_BASE + 0x200000;

	set_up(&s);
	CHECK(write(s.host[1], "0123456789", 10) == 10);
	guest_give_buffer(&s.g, MC_PORT_STDIN, at, 3);
	round_trip(&s);
	CHECK(unread(s.host[1]) == 10);
	guest_tell(&s.g, MC_PORT_STDIN, VIRTIO_CONSOLE_PORT_OPEN, 1);
	CHECK(driver_wait(&s.g.d, guest_queue(1, 0)).len == 3);
	round_trip(&s);
	CHECK(unread(s.host[1]) == 7);
	guest_give_buffer(&s.g, MC_PORT_STDIN, at + 3, 1);
	CHECK(driver_wait(&s.g.d, guest_queue(1, 0)).len == 1);
	CHECK(unread(s.host[1]) == 6 && memcmp(driver_at(&s.g.d, at, 5), "0123", 5) == 0);
	tear_down(&s);
}

/* Sends until the host's pipe and the queue are full; returns the bytes. The pattern is a count. */
static uint32_t fill(struct setup *s, uint32_t port)
{
	unsigned char data[1000];
	uint32_t sent = 0;

	for (int pause = 0; pause < 100; pause++) {
		for (; ; sent += sizeof(data), pause = 0) {
			for (uint32_t i = 0; i < sizeof(data); i++)
				data[i] = (unsigned char)((sent + i) % 251);
			if (!guest_send(&s->g, port, data, sizeof(data)))
				break;
		}
		usleep(1000);
	}
	return sent;
}

static void check_filled(int fd, uint32_t sent)
{
	unsigned char *got = malloc(sent);

	read_all(fd, got, sent);
	for (uint32_t i = 0; i < sent; i++)
		CHECK(got[i] == i % 251);
	free(got);
}

/* A reader of stdout that does not read holds up stdout, and nothing else; no byte is lost. */
TEST(console_slow_reader)
{
	struct setup s;
	uint32_t sent, err;

	set_up(&s);
	sent = fill(&s, MC_PORT_STDOUT);
	CHECK(sent > 65536 && mc_console_drain(s.g.console, 1) == -ETIMEDOUT);
	err = fill(&s, MC_PORT_STDERR);
	round_trip(&s);
	guest_open(&s.g, MC_PORT_STDIN);
	CHECK(write(s.host[1], "z", 1) == 1);
	CHECK(driver_wait(&s.g.d, guest_queue(1, 0)).len == 1);
	check_filled(s.host[3], err);
	check_filled(s.host[2], sent);
	CHECK(mc_console_drain(s.g.console, 100000) == 0);
	CHECK(!has_input(s.host[2]) && !has_input(s.host[3]));
	tear_down(&s);
}

/* What the guest has put into a queue is written, also if its notification never came. */
TEST(console_drain_needs_no_notification)
{
	struct setup s;
	struct vring_desc *d;
	unsigned char got[5];

	set_up(&s);
	memcpy(driver_at(&s.g.d, s.g.ports[2].out, 5), "drain", 5);
	d = driver_desc(&s.g.d, guest_queue(2, 1), 0);
	*d = (struct vring_desc){ s.g.ports[2].out, 5, 0, 0 };
	round_trip(&s);
	driver_publish(&s.g.d, guest_queue(2, 1), 0);
	CHECK(mc_console_drain(s.g.console, 100000) == 0);
	read_all(s.host[2], got, 5);
	CHECK(memcmp(got, "drain", 5) == 0);
	tear_down(&s);
}

static void *drain(void *argument)
{
	return (void *)(intptr_t)mc_console_drain(argument, -1);
}

TEST(console_drain_waits)
{
	struct setup s;
	pthread_t thread;
	uint32_t sent;
	void *result;

	set_up(&s);
	sent = fill(&s, MC_PORT_STDERR);
	CHECK(pthread_create(&thread, NULL, drain, s.g.console) == 0);
	usleep(20000);
	CHECK(pthread_tryjoin_np(thread, NULL) == EBUSY);
	check_filled(s.host[3], sent);
	CHECK(pthread_join(thread, &result) == 0 && !result);
	tear_down(&s);
}

TEST(console_drain_ends_with_the_console)
{
	struct setup s;
	pthread_t thread;
	void *result;

	set_up(&s);
	fill(&s, MC_PORT_STDOUT);
	CHECK(pthread_create(&thread, NULL, drain, s.g.console) == 0);
	usleep(20000);
	mc_console_stop(s.g.console);
	CHECK(pthread_join(thread, &result) == 0 && (intptr_t)result == -ECANCELED);
	tear_down(&s);
}

/* ---- nothing to do */

/* Processor time of this process while it sleeps, in milliseconds. */
static long idle_ms(void)
{
	struct timespec before, after;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	usleep(300000);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	return (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
}

/* A thread that polled something that is always ready would take all of the time. */
TEST(console_never_spins)
{
	struct setup s;

	set_up(&s);
	CHECK(idle_ms() < 100);
	CHECK(write(s.host[1], "unread", 6) == 6);
	close_host(&s, MC_PORT_STDIN); /* input and its end, but no buffer; then no reader, but no output */
	close_host(&s, MC_PORT_STDERR);
	guest_tell(&s.g, MC_PORT_STDIN, VIRTIO_CONSOLE_PORT_OPEN, 1);
	fill(&s, MC_PORT_STDOUT);
	CHECK(idle_ms() < 100);
	close_host(&s, MC_PORT_CONTROL);
	guest_open(&s.g, MC_PORT_CONTROL);
	guest_until(&s.g, !s.g.ports[0].is_open);
	CHECK(idle_ms() < 100);
	driver_publish(&s.g.d, guest_queue(3, 1), UINT16_MAX);
	driver_kick(&s.g.d, guest_queue(3, 1));
	until(driver_get(&s.g.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(idle_ms() < 100);
	s.g.d.v->broken = NULL;
	tear_down(&s);
}
