/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_guest.h: a guest's console driver (virtio 1.3, 5.3.6) over virtio_driver.h, for tests of the console device.
 * It does what Linux does: PORT_READY for each port that is added, buffers in the receive queues, PORT_OPEN.
 */
#ifndef VIRTIO_GUEST_H
#define VIRTIO_GUEST_H

#include <linux/virtio_console.h>

#include "virtio/console.h"
#include "virtio_driver.h"

#define CONTROL_IN 2
#define CONTROL_OUT 3
#define SLOT 4096 /* bytes of each buffer */

struct guest_port {
	int added, named, is_open; /* is_open: the host's side, by the last PORT_OPEN */
	uint32_t opens;            /* how many PORT_OPEN there were */
	char name[16];
	uint64_t in, out;          /* buffers of its queues */
	uint32_t sent, done;       /* chains of the transmit queue */
};

struct guest {
	struct driver d;
	struct mc_console *console;
	uint64_t control_in, control_out;
	struct guest_port ports[MC_PORTS];
};

static inline uint32_t guest_queue(uint32_t port, int is_out)
{
	return (port == 0 ? 0 : 2 * port + 2) + (is_out ? 1 : 0);
}

/* ---- control messages */

static inline void guest_give_control_buffer(struct guest *g, uint32_t index)
{
	const struct driver_buffer b = { g->control_in + index * 64, 64, 1 };

	CHECK(driver_add(&g->d, CONTROL_IN, &b, 1) >= 0);
}

/* Sends a message and waits until the device has handled it. */
static inline void guest_tell(struct guest *g, uint32_t id, uint16_t event, uint16_t value)
{
	const struct virtio_console_control m = { id, event, value };
	const struct driver_buffer b = { g->control_out, sizeof(m), 0 };

	memcpy(driver_at(&g->d, g->control_out, sizeof(m)), &m, sizeof(m));
	CHECK(driver_add(&g->d, CONTROL_OUT, &b, 1) >= 0);
	CHECK(driver_wait(&g->d, CONTROL_OUT).len == 0);
}

static inline void guest_hear(struct guest *g, const struct virtio_console_control *m, const char *text, uint32_t size)
{
	struct guest_port *p = &g->ports[m->id];

	CHECK(m->id < MC_PORTS);
	if (m->event == VIRTIO_CONSOLE_PORT_ADD) {
		CHECK(!p->added);
		p->added = 1;
		guest_tell(g, m->id, VIRTIO_CONSOLE_PORT_READY, 1);
	} else if (m->event == VIRTIO_CONSOLE_PORT_NAME) {
		CHECK(p->added && size < sizeof(p->name));
		memcpy(p->name, text, size);
		p->named = 1;
	} else {
		CHECK(m->event == VIRTIO_CONSOLE_PORT_OPEN && p->named && size == 0);
		p->is_open = m->value;
		p->opens++;
	}
}

/* Handles the messages that have come. */
static inline void guest_listen(struct guest *g)
{
	struct vring_used_elem e;

	while (driver_used(&g->d, CONTROL_IN, &e)) {
		const uint64_t at = driver_desc(&g->d, CONTROL_IN, e.id)->addr;
		const char *data = driver_at(&g->d, at, 64);
		struct virtio_console_control m;

		CHECK(e.len >= sizeof(m) && e.len <= 64);
		memcpy(&m, data, sizeof(m));
		guest_hear(g, &m, data + sizeof(m), e.len - (uint32_t)sizeof(m));
		guest_give_control_buffer(g, (uint32_t)(at - g->control_in) / 64);
	}
}

#define guest_until(g, condition)      \
	do {                           \
		guest_listen(g);       \
		if (condition)         \
			break;         \
		usleep(200);           \
	} while (1)

/* ---- a port */

static inline void guest_give_buffer(struct guest *g, uint32_t port, uint64_t address, uint32_t length)
{
	const struct driver_buffer b = { address, length, 1 };

	CHECK(driver_add(&g->d, guest_queue(port, 0), &b, 1) >= 0);
}

/* Fills the receive queue, and opens the port. */
static inline void guest_open(struct guest *g, uint32_t port)
{
	const uint16_t size = g->d.queues[guest_queue(port, 0)].size;

	for (uint16_t i = 0; i < size; i++)
		guest_give_buffer(g, port, g->ports[port].in + (uint64_t)SLOT * i, SLOT);
	guest_tell(g, port, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static inline void guest_close(struct guest *g, uint32_t port)
{
	guest_tell(g, port, VIRTIO_CONSOLE_PORT_OPEN, 0);
}

/* How many bytes have come in the next buffer, 0: none; they are copied, and the buffer is given again. */
static inline size_t guest_read(struct guest *g, uint32_t port, void *data)
{
	struct vring_used_elem e;
	uint64_t at;

	if (!driver_used(&g->d, guest_queue(port, 0), &e))
		return 0;
	at = driver_desc(&g->d, guest_queue(port, 0), e.id)->addr;
	CHECK(e.len > 0 && e.len <= driver_desc(&g->d, guest_queue(port, 0), e.id)->len);
	memcpy(data, driver_at(&g->d, at, e.len), e.len);
	guest_give_buffer(g, port, at, driver_desc(&g->d, guest_queue(port, 0), e.id)->len);
	return e.len;
}

/* Reads exactly `size` bytes. */
static inline void guest_read_all(struct guest *g, uint32_t port, unsigned char *data, size_t size)
{
	size_t n;

	for (size_t done = 0; done < size; done += n) {
		until((n = guest_read(g, port, data + done)) > 0);
		CHECK(n <= size - done);
	}
}

/* Counts the chains that were given back. */
static inline uint32_t guest_done(struct guest *g, uint32_t port)
{
	struct vring_used_elem e;

	while (driver_used(&g->d, guest_queue(port, 1), &e)) {
		CHECK(e.len == 0);
		g->ports[port].done++;
	}
	return g->ports[port].done;
}

/* Sends up to SLOT bytes in two elements, if the queue has room: 1, else 0. */
static inline int guest_send(struct guest *g, uint32_t port, const void *data, uint32_t size)
{
	struct guest_port *p = &g->ports[port];
	const uint32_t most = g->d.queues[guest_queue(port, 1)].size / 2u, first = (size + 1) / 3;
	const uint64_t at = p->out + (uint64_t)SLOT * (p->sent % most);
	const struct driver_buffer b[2] = { { at, first, 0 }, { at + first, size - first, 0 } };

	if (p->sent - guest_done(g, port) == most)
		return 0;
	memcpy(driver_at(&g->d, at, size), data, size);
	CHECK(driver_add(&g->d, guest_queue(port, 1), first ? b : b + 1, first ? 2 : 1) >= 0);
	p->sent++;
	return 1;
}

/* ---- its life */

/* Brings the device up as far as all ports have a name and a state. It works again after a reset. */
static inline void guest_boot(struct guest *g)
{
	driver_start(&g->d, mc_console_virtio(g->console));
	for (uint32_t i = 0; i < MC_PORTS; i++) {
		struct guest_port *p = &g->ports[i];

		*p = (struct guest_port){ .in = p->in, .out = p->out };
	}
	for (uint32_t i = 0; i < g->d.queues[CONTROL_IN].size; i++)
		guest_give_control_buffer(g, i);
	guest_tell(g, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (uint32_t i = 0; i < MC_PORTS; i++)
		guest_until(g, g->ports[i].opens == 1);
}

/* A started device with these descriptors, and a guest that has not touched it. */
static inline void guest_make(struct guest *g, const int fds[MC_PORTS])
{
	memset(g, 0, sizeof(*g));
	driver_memory(&g->d, 4 << 20);
	g->console = mc_console_new(&g->d.memory, fds);
	CHECK(g->console && mc_console_start(g->console) == 0);
	g->d.v = mc_console_virtio(g->console);
	g->control_in = driver_alloc(&g->d, 64 * 16);
	g->control_out = driver_alloc(&g->d, 64);
	for (uint32_t i = 0; i < MC_PORTS; i++) {
		g->ports[i].in = driver_alloc(&g->d, SLOT * 32);
		g->ports[i].out = driver_alloc(&g->d, SLOT * 32);
	}
}

static inline void guest_end(struct guest *g)
{
	CHECK(!g->d.v->broken);
	mc_console_free(g->console);
	driver_free(&g->d);
}

#endif
