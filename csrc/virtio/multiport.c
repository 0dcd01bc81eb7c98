/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * multiport.c: the control messages of a console device (virtio 1.3, 5.3.6.2 Multiport Device Operation).
 *
 * The guest says that its driver is ready, and is told of the ports; it says that a port is ready, and is told its
 * name and whether the host's side is open; from then on each side tells the other when it opens or closes the port.
 * What a port has to tell are bits, not a queue: a guest that reads no messages can't make it long.
 */
#define _GNU_SOURCE
#include <linux/virtio_console.h>
#include <string.h>

#include "virtio/port.h"
#include "virtio/worker.h"

#define NAME_MOST 16

/* ---- to the guest */

/* Makes a message; returns its size. A name has no NUL. */
static size_t message(const struct mc_port *p, uint32_t id, uint32_t which, char *data)
{
	const size_t length = which == MC_PORT_NAME ? strlen(p->name) : 0;
	struct virtio_console_control head = { .id = id, .event = VIRTIO_CONSOLE_PORT_ADD };

	if (which == MC_PORT_NAME) {
		head.event = VIRTIO_CONSOLE_PORT_NAME;
		head.value = 1;
	} else if (which == MC_PORT_OPEN) {
		head.event = VIRTIO_CONSOLE_PORT_OPEN;
		head.value = (uint16_t)p->connected;
	}
	memcpy(data, &head, sizeof(head));
	memcpy(data + sizeof(head), p->name, length);
	return sizeof(head) + length;
}

/* Sends the first message that a port has to send. Returns 0: the guest has no buffer for it. */
static int send_one(struct mc_console *c, uint32_t id)
{
	struct mc_port *p = &c->ports[id];
	struct mc_ring *ring = &c->virtio.rings[MC_CONTROL_IN];
	const uint32_t which = p->messages & -p->messages;
	char data[sizeof(struct virtio_console_control) + NAME_MOST];
	struct mc_chain chain;
	size_t size;

	if (!mc_virtio_take(&c->virtio, ring, &chain))
		return 0;
	size = message(p, id, which, data);
	if (chain.nread || chain.writable < size) {
		mc_virtio_break(&c->virtio, ring, "a buffer can't hold a control message");
		return 0;
	}
	mc_chain_write(&chain, data, size);
	p->messages &= ~which;
	mc_virtio_give(&c->virtio, ring, &chain, (uint32_t)size);
	return 1;
}

void mc_multiport_send(struct mc_console *c)
{
	for (uint32_t id = 0; id < MC_PORTS; id++)
		while (c->ports[id].messages)
			if (!send_one(c, id))
				return;
}

/* ---- from the guest */

static void driver_ready(struct mc_console *c)
{
	for (int i = 0; i < MC_PORTS; i++) {
		struct mc_port *p = &c->ports[i];

		if (!p->added) /* 5.3.6.2.1: a port is added once */
			p->messages |= MC_PORT_ADD;
		p->added = 1;
	}
}

static void port_opened(struct mc_port *p, int is_open)
{
	if (p->open && !is_open && p->connected)
		p->closing = 1;
	p->open = is_open;
	mc_event_signal(p->in.kick);
	mc_event_signal(p->out.kick);
}

static void handle(struct mc_console *c, const struct virtio_console_control *m)
{
	struct mc_ring *ring = &c->virtio.rings[MC_CONTROL_OUT];
	struct mc_port *p = m->id < MC_PORTS && c->ports[m->id].added ? &c->ports[m->id] : NULL;

	switch (m->event) {
	case VIRTIO_CONSOLE_DEVICE_READY: /* 0: the driver has failed, and leaves the device alone */
		if (m->value)
			driver_ready(c);
		break;
	case VIRTIO_CONSOLE_PORT_READY:
		if (!p || !m->value) {
			mc_virtio_break(&c->virtio, ring, p ? "the driver has failed to make a port" :
							      "a control message is for no port");
			break;
		}
		p->ready = 1;
		p->messages |= MC_PORT_NAME | MC_PORT_OPEN;
		break;
	case VIRTIO_CONSOLE_PORT_OPEN:
		if (p)
			port_opened(p, m->value != 0);
		else
			mc_virtio_break(&c->virtio, ring, "a control message is for no port");
		break;
	} /* others are the device's, or later versions' */
}

/* As many as the queue can hold; the thread comes back for more. */
void mc_multiport_receive(struct mc_console *c)
{
	struct mc_ring *ring = &c->virtio.rings[MC_CONTROL_OUT];
	struct virtio_console_control m;
	struct mc_chain chain;

	for (int i = 0; i < ring->size && mc_virtio_take(&c->virtio, ring, &chain); i++) {
		if (chain.nwrite || mc_chain_read(&chain, &m, sizeof(m)) < sizeof(m)) {
			mc_virtio_break(&c->virtio, ring, "a control message is too short or has room to write");
			return;
		}
		handle(c, &m);
		mc_virtio_give(&c->virtio, ring, &chain, 0);
	}
	if (mc_virtio_is_running(&c->virtio) && mc_ring_waiting(ring))
		mc_event_signal(c->virtio.kicks[MC_CONTROL_OUT]);
}
