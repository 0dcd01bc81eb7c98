/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_ports.c: the console device (virtio 1.3, 5.3): ends of ports, of the device and of its driver, and what
 * a bad driver does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "virtio_setup.h"

/* Whether all chains of a port's transmit queue come back. */
static void check_dropped(struct setup *s, uint32_t port, int count)
{
	for (int i = 0; i < count; i++)
		until(guest_send(&s->g, port, "dropped", 7));
	until(guest_done(&s->g, port) == s->g.ports[port].sent);
}

/* ---- the host ends */

TEST(console_end_of_stdin)
{
	struct setup s;
	unsigned char got[11];

	set_up(&s);
	CHECK(write(s.host[1], "last words", 10) == 10);
	close_host(&s, MC_PORT_STDIN);
	round_trip(&s);
	guest_listen(&s.g);
	CHECK(s.g.ports[1].is_open); /* the end is behind what was not read */
	guest_open(&s.g, MC_PORT_STDIN);
	guest_until(&s.g, !s.g.ports[1].is_open);
	guest_read_all(&s.g, MC_PORT_STDIN, got, 10);
	CHECK(memcmp(got, "last words", 10) == 0 && guest_read(&s.g, MC_PORT_STDIN, got) == 0);
	CHECK(mc_console_error(s.g.console, MC_PORT_STDIN) == 0);
	tear_down(&s);
}

TEST(console_reader_has_gone)
{
	struct setup s;

	set_up(&s);
	close_host(&s, MC_PORT_STDOUT);
	check_dropped(&s, MC_PORT_STDOUT, 100);
	guest_until(&s.g, !s.g.ports[2].is_open);
	CHECK(mc_console_error(s.g.console, MC_PORT_STDOUT) == EPIPE);
	CHECK(mc_console_drain(s.g.console, 1000) == 0);
	CHECK(s.g.ports[3].is_open && mc_console_error(s.g.console, MC_PORT_STDERR) == 0);
	tear_down(&s);
}

/* The reader goes while the device waits for it. */
TEST(console_reader_goes)
{
	struct setup s;
	char data[4000] = "";

	set_up(&s);
	for (int pause = 0; pause < 50; pause++, usleep(1000))
		while (guest_send(&s.g, MC_PORT_STDERR, data, sizeof(data)))
			pause = 0;
	close_host(&s, MC_PORT_STDERR);
	until(guest_done(&s.g, MC_PORT_STDERR) == s.g.ports[3].sent);
	guest_until(&s.g, !s.g.ports[3].is_open);
	CHECK(mc_console_error(s.g.console, MC_PORT_STDERR) == EPIPE);
	tear_down(&s);
}

TEST(console_full_device)
{
	struct setup s;

	set_up_with(&s, MC_PORT_STDERR, open("/dev/full", O_WRONLY | O_CLOEXEC));
	check_dropped(&s, MC_PORT_STDERR, 3);
	guest_until(&s.g, !s.g.ports[3].is_open);
	CHECK(mc_console_error(s.g.console, MC_PORT_STDERR) == ENOSPC);
	tear_down(&s);
}

TEST(console_stdin_fails)
{
	struct setup s;

	set_up_with(&s, MC_PORT_STDIN, open("/", O_RDONLY | O_CLOEXEC));
	guest_open(&s.g, MC_PORT_STDIN);
	guest_until(&s.g, !s.g.ports[1].is_open);
	CHECK(mc_console_error(s.g.console, MC_PORT_STDIN) == EISDIR);
	tear_down(&s);
}

TEST(console_host_closes_control)
{
	struct setup s;
	unsigned char got[4];

	set_up(&s);
	CHECK(write(s.host[0], "bye", 3) == 3);
	close_host(&s, MC_PORT_CONTROL);
	guest_open(&s.g, MC_PORT_CONTROL);
	guest_until(&s.g, !s.g.ports[0].is_open);
	guest_read_all(&s.g, MC_PORT_CONTROL, got, 3);
	CHECK(memcmp(got, "bye", 3) == 0);
	check_dropped(&s, MC_PORT_CONTROL, 50);
	tear_down(&s);
}

/* ---- the guest ends */

static void check_end(int fd, const char *wanted, size_t size)
{
	unsigned char got[64];

	read_all(fd, got, size);
	CHECK(memcmp(got, wanted, size) == 0 && read(fd, got, 1) == 0);
}

TEST(console_guest_closes_stdout)
{
	struct setup s;

	set_up(&s);
	guest_open(&s.g, MC_PORT_STDOUT);
	CHECK(guest_send(&s.g, MC_PORT_STDOUT, "one ", 4) && guest_send(&s.g, MC_PORT_STDOUT, "two", 3));
	guest_close(&s.g, MC_PORT_STDOUT);
	check_end(s.host[2], "one two", 7);
	guest_until(&s.g, !s.g.ports[2].is_open);
	CHECK(mc_console_error(s.g.console, MC_PORT_STDOUT) == 0);
	guest_tell(&s.g, MC_PORT_STDOUT, VIRTIO_CONSOLE_PORT_OPEN, 1); /* too late */
	check_dropped(&s, MC_PORT_STDOUT, 40);
	CHECK(s.g.ports[3].is_open && s.g.ports[0].is_open);
	tear_down(&s);
}

/* All that was sent before is written before the end, however slow the reader is. */
TEST(console_guest_closes_a_slow_stdout)
{
	struct setup s;
	char data[1024] = "";
	size_t size = 0;
	ssize_t n;

	set_up(&s);
	guest_open(&s.g, MC_PORT_STDOUT);
	for (int pause = 0; pause < 50; pause++, usleep(1000))
		for (; guest_send(&s.g, MC_PORT_STDOUT, data, sizeof(data)); pause = 0)
			size += sizeof(data);
	guest_close(&s.g, MC_PORT_STDOUT);
	round_trip(&s);
	guest_listen(&s.g);
	CHECK(s.g.ports[2].is_open);
	while ((n = read(s.host[2], data, sizeof(data))) > 0)
		size -= (size_t)n;
	CHECK(n == 0 && size == 0);
	guest_until(&s.g, !s.g.ports[2].is_open);
	tear_down(&s);
}

TEST(console_guest_closes_stdin)
{
	struct setup s;

	set_up(&s);
	guest_open(&s.g, MC_PORT_STDIN);
	round_trip(&s);
	guest_close(&s.g, MC_PORT_STDIN);
	guest_until(&s.g, !s.g.ports[1].is_open);
	CHECK(write(s.host[1], "x", 1) == -1 && errno == EPIPE);
	tear_down(&s);
}

TEST(console_guest_closes_control)
{
	struct setup s;

	set_up(&s);
	guest_open(&s.g, MC_PORT_CONTROL);
	CHECK(guest_send(&s.g, MC_PORT_CONTROL, "exited", 6));
	guest_close(&s.g, MC_PORT_CONTROL);
	check_end(s.host[0], "exited", 6);
	guest_until(&s.g, !s.g.ports[0].is_open);
	CHECK(send(s.host[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	tear_down(&s);
}

/* What the guest writes to stdin is for nobody. */
TEST(console_guest_writes_to_stdin)
{
	struct setup s;

	set_up(&s);
	check_dropped(&s, MC_PORT_STDIN, 100);
	CHECK(s.g.ports[1].is_open);
	tear_down(&s);
}

/* ---- messages that the guest does not fetch */

TEST(console_messages_wait_for_buffers)
{
	struct setup s;
	struct driver *d = &s.g.d;
	int fds[MC_PORTS];

	make_ends(&s, fds);
	guest_make(&s.g, fds);
	driver_start(d, s.g.d.v);
	guest_tell(&s.g, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	guest_give_control_buffer(&s.g, 0); /* one: each message comes when the one before was fetched */
	for (uint32_t i = 0; i < MC_PORTS; i++)
		guest_until(&s.g, s.g.ports[i].opens == 1 && s.g.ports[i].is_open);
	tear_down(&s);
}

/* Of a port that changes while no message can be sent only its last state is told. */
TEST(console_states_are_not_queued)
{
	struct setup s;
	int fds[MC_PORTS];

	make_ends(&s, fds);
	guest_make(&s.g, fds);
	driver_start(&s.g.d, s.g.d.v);
	guest_tell(&s.g, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (int i = 0; i < 1000; i++)
		guest_tell(&s.g, MC_PORT_STDIN, VIRTIO_CONSOLE_PORT_READY, 1);
	close_host(&s, MC_PORT_STDIN);
	guest_open(&s.g, MC_PORT_STDIN);
	usleep(20000);
	for (uint32_t i = 0; i < s.g.d.queues[CONTROL_IN].size; i++)
		guest_give_control_buffer(&s.g, i);
	guest_until(&s.g, s.g.ports[1].opens >= 1 && !s.g.ports[1].is_open);
	CHECK(s.g.ports[1].opens <= 3);
	tear_down(&s);
}

/* ---- reset and stop */

/* Nothing is written to the guest's memory after a reset, also not what was read before: the next driver gets that. */
TEST(console_reset)
{
	struct setup s;
	unsigned char got[8], *memory;
	struct mc_region *r = &s.g.d.memory.regions[0];

	set_up(&s);
	guest_open(&s.g, MC_PORT_STDIN);
	round_trip(&s);
	driver_set(&s.g.d, VIRTIO_MMIO_STATUS, 0);
	CHECK(driver_get(&s.g.d, VIRTIO_MMIO_STATUS) == 0);
	memory = malloc(r->size);
	memcpy(memory, r->host, r->size);
	CHECK(write(s.host[1], "later", 5) == 5 && write(s.host[0], "now", 3) == 3);
	for (uint32_t i = 0; i < 10; i++)
		driver_kick(&s.g.d, i);
	usleep(50000);
	CHECK(memcmp(memory, r->host, r->size) == 0);
	free(memory);
	guest_boot(&s.g);
	guest_open(&s.g, MC_PORT_STDIN);
	guest_read_all(&s.g, MC_PORT_STDIN, got, 5);
	CHECK(memcmp(got, "later", 5) == 0);
	guest_open(&s.g, MC_PORT_CONTROL);
	guest_read_all(&s.g, MC_PORT_CONTROL, got, 3);
	CHECK(memcmp(got, "now", 3) == 0);
	tear_down(&s);
}

/* A reset does not wait for the host's reader. */
TEST(console_reset_while_writing)
{
	struct setup s;
	char data[4000] = "";

	set_up(&s);
	for (int pause = 0; pause < 50; pause++, usleep(1000))
		while (guest_send(&s.g, MC_PORT_STDOUT, data, sizeof(data)))
			pause = 0;
	guest_boot(&s.g);
	CHECK(mc_console_drain(s.g.console, 1) == -ETIMEDOUT); /* the chain that it was writing */
	while (read(s.host[2], data, sizeof(data)) > 0 && mc_console_drain(s.g.console, 1) < 0)
		;
	CHECK(driver_used_ring(&s.g.d, guest_queue(2, 1))->idx == 0); /* it is not the new driver's */
	CHECK(guest_send(&s.g, MC_PORT_STDOUT, "x", 1));
	until(guest_done(&s.g, MC_PORT_STDOUT) == 1);
	tear_down(&s);
}

/* Threads that wait for the host: to write to a full pipe, to read from an empty one. */
TEST(console_stop_while_waiting)
{
	struct setup s;
	char data[4000] = "";

	set_up(&s);
	guest_open(&s.g, MC_PORT_STDIN);
	guest_open(&s.g, MC_PORT_CONTROL);
	for (uint32_t port = MC_PORT_STDOUT; port <= MC_PORT_STDERR; port++)
		for (int pause = 0; pause < 50; pause++, usleep(1000))
			while (guest_send(&s.g, port, data, sizeof(data)))
				pause = 0;
	mc_console_stop(s.g.console);
	mc_console_stop(s.g.console);
	CHECK(driver_get(&s.g.d, VIRTIO_MMIO_STATUS) == DRIVER_READY);
	driver_kick(&s.g.d, 0);
	tear_down(&s);
}

TEST(console_never_started)
{
	struct setup s;
	int fds[MC_PORTS];

	make_ends(&s, fds);
	driver_memory(&s.g.d, 1 << 20);
	s.g.console = mc_console_new(&s.g.d.memory, fds);
	CHECK(s.g.console);
	driver_start(&s.g.d, mc_console_virtio(s.g.console));
	tear_down(&s);
	for (int i = 0; i < MC_PORTS; i++) /* they were the console's */
		CHECK(fcntl(fds[i], F_GETFD) == -1);
}

/* ---- bad drivers */

static void check_broken(struct setup *s, uint32_t queue, const char *why)
{
	until(driver_get(&s->g.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(driver_get(&s->g.d, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	CHECK(s->g.d.v->broken_queue == (int)queue && strcmp(s->g.d.v->broken, why) == 0);
	guest_boot(&s->g); /* a new driver can use it */
	s->g.d.v->broken = NULL;
	tear_down(s);
}

static void send_raw(struct setup *s, uint32_t queue, uint32_t length, int writable)
{
	const struct driver_buffer b = { s->g.control_out, length, writable };

	CHECK(driver_add(&s->g.d, queue, &b, 1) >= 0);
}

static void send_message(struct setup *s, uint32_t id, uint16_t event, uint16_t value)
{
	const struct virtio_console_control m = { id, event, value };

	memcpy(driver_at(&s->g.d, s->g.control_out, sizeof(m)), &m, sizeof(m));
	send_raw(s, CONTROL_OUT, sizeof(m), 0);
}

#define BAD(case_name, act, queue, why)    \
	TEST(console_bad_##case_name)      \
	{                                  \
		struct setup s;            \
                                           \
		set_up(&s);                \
		act;                       \
		check_broken(&s, queue, why); \
	}

BAD(message_is_short, send_raw(&s, CONTROL_OUT, 7, 0), CONTROL_OUT,
    "a control message is too short or has room to write")
BAD(message_is_writable, send_raw(&s, CONTROL_OUT, 8, 1), CONTROL_OUT,
    "a control message is too short or has room to write")
BAD(port_ready, send_message(&s, MC_PORTS, VIRTIO_CONSOLE_PORT_READY, 1), CONTROL_OUT,
    "a control message is for no port")
BAD(port_open, send_message(&s, UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1), CONTROL_OUT,
    "a control message is for no port")
BAD(port_failed, send_message(&s, 1, VIRTIO_CONSOLE_PORT_READY, 0), CONTROL_OUT,
    "the driver has failed to make a port")
BAD(receive_buffer, guest_tell(&s.g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1); send_raw(&s, 4, 8, 0), 4,
    "a buffer of a receive queue is not for the device to write")
BAD(transmit_buffer, send_raw(&s, 7, 8, 1), 7, "a buffer of a transmit queue is not for the device to read")
BAD(transmit_buffer_of_stdin, send_raw(&s, 5, 8, 1), 5, "a buffer of a transmit queue is not for the device to read")
BAD(ring, driver_publish(&s.g.d, 9, 32); driver_kick(&s.g.d, 9), 9, "a descriptor index is beyond its table")

TEST(console_bad_control_buffer)
{
	struct setup s;
	int fds[MC_PORTS];

	make_ends(&s, fds);
	guest_make(&s.g, fds);
	driver_start(&s.g.d, s.g.d.v);
	send_raw(&s, CONTROL_IN, 7, 1);
	send_message(&s, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	check_broken(&s, CONTROL_IN, "a buffer can't hold a control message");
}

/* Messages that mean nothing: other events, a failed driver, an end of what was not open. */
TEST(console_odd_messages)
{
	struct setup s;

	set_up(&s);
	for (uint16_t event = 0; event < 100; event++)
		if (event != VIRTIO_CONSOLE_PORT_READY)
			guest_tell(&s.g, 1, event, 0);
	guest_tell(&s.g, 7, VIRTIO_CONSOLE_RESIZE, 1);
	CHECK(s.g.ports[1].is_open);
	guest_open(&s.g, MC_PORT_STDIN);
	CHECK(write(s.host[1], "x", 1) == 1);
	CHECK(driver_wait(&s.g.d, guest_queue(1, 0)).len == 1);
	tear_down(&s);
}
