/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * port.h: the inside of a console device, which console.c, port.c and multiport.c share.
 */
#ifndef MC_VIRTIO_PORT_H
#define MC_VIRTIO_PORT_H

#include <pthread.h>

#include "virtio/console.h"

#define MC_PORT_BUFFER 4096 /* bytes that are read at once; Linux' buffers have a page */

/* Queues 2 and 3 are those of control messages, ports have the others (5.3.2). */
#define MC_CONTROL_IN 2
#define MC_CONTROL_OUT 3
#define MC_PORT_QUEUE(port) ((port) == 0 ? 0 : 2 * (port) + 2)

/* Control messages that the guest has to get, in this order (5.3.6.2). */
enum mc_port_message { MC_PORT_ADD = 1, MC_PORT_NAME = 2, MC_PORT_OPEN = 4 };

/* One direction of a port: a queue, and a thread that moves bytes between its chains and the host. */
struct mc_flow {
	struct mc_ring *ring;
	int kick;               /* the queue's eventfd, by which the thread is also woken for all else */
	int has_thread;
	pthread_t thread;
	int taken;              /* `chain` was taken from the ring, and not given back */
	int busy;               /* the thread uses `chain` without the lock */
	struct mc_chain chain;
};

/* Protected by the device's lock, except what the comments say. */
struct mc_port {
	struct mc_console *console;
	const char *name;
	int fd;                 /* changed by the port's own thread alone; -1: closed */
	int connected;          /* the host's side is there */
	int error;              /* see mc_console_error */
	int added, ready, open; /* the guest has: been told of it, made it, opened it */
	int closing;            /* the guest has closed it; the host will be told when all is written */
	uint32_t messages;      /* enum mc_port_message: to be sent */
	struct mc_flow in, out; /* to the guest, from the guest */
	size_t held, offset;    /* what the input's thread has read and not delivered; its own */
	char buffer[MC_PORT_BUFFER];
};

struct mc_console {
	struct mc_virtio virtio;
	int has_thread;         /* of control messages */
	pthread_t thread;
	int stopping;           /* atomic */
	pthread_cond_t progress; /* a chain was given back, or a port was closed */
	struct mc_port ports[MC_PORTS];
};

/* multiport.c: handles the control messages of the guest that wait. */
void mc_multiport_receive(struct mc_console *console);

/* multiport.c: sends the control messages that are due, as far as the guest has buffers. */
void mc_multiport_send(struct mc_console *console);

/* port.c: starts the threads that the port needs. Returns 0, or -errno: some may run. */
int mc_port_start(struct mc_port *port);

/* port.c: ends them, with console->stopping set; without the lock. */
void mc_port_join(struct mc_port *port);

/* port.c: drops what the guest sends to a port that has no thread for it. */
void mc_port_discard(struct mc_port *port);

/* port.c: whether the guest has sent bytes that are still to be written. */
int mc_port_is_behind(const struct mc_port *port);

#endif
