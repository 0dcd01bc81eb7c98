/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_setup.h: a console device between a guest (virtio_guest.h) and the ends of a host: a socket and three pipes.
 */
#ifndef VIRTIO_SETUP_H
#define VIRTIO_SETUP_H

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "virtio_guest.h"

/* The host's ends, as the program beside the machine has them: by port. */
struct setup {
	struct guest g;
	int host[MC_PORTS];
};

static inline void make_ends(struct setup *s, int fds[MC_PORTS])
{
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	fds[0] = pair[0], s->host[0] = pair[1];
	for (int i = 1; i < MC_PORTS; i++) {
		CHECK(pipe2(pair, O_CLOEXEC) == 0);
		fds[i] = pair[i == MC_PORT_STDIN ? 0 : 1], s->host[i] = pair[i == MC_PORT_STDIN ? 1 : 0];
	}
}

static inline void set_up(struct setup *s)
{
	int fds[MC_PORTS];

	make_ends(s, fds);
	guest_make(&s->g, fds);
	guest_boot(&s->g);
}

/* The same with another descriptor for a port; the test has its other end. */
static inline void set_up_with(struct setup *s, int port, int fd)
{
	int fds[MC_PORTS];

	make_ends(s, fds);
	close(fds[port]);
	fds[port] = fd;
	guest_make(&s->g, fds);
	guest_boot(&s->g);
}

static inline void tear_down(struct setup *s)
{
	guest_end(&s->g);
	for (int i = 0; i < MC_PORTS; i++)
		if (s->host[i] >= 0)
			close(s->host[i]);
}

static inline void close_host(struct setup *s, int port)
{
	close(s->host[port]);
	s->host[port] = -1;
}

static inline void read_all(int fd, unsigned char *data, size_t size)
{
	ssize_t n;

	for (size_t done = 0; done < size; done += (size_t)n) {
		n = read(fd, data + done, size - done);
		CHECK(n > 0);
	}
}

static inline int has_input(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* A message there and back over the control port: threads have seen what was before it. */
static inline void round_trip(struct setup *s)
{
	unsigned char byte = 0;

	if (s->g.ports[0].sent == 0)
		guest_open(&s->g, MC_PORT_CONTROL);
	CHECK(guest_send(&s->g, MC_PORT_CONTROL, "x", 1));
	read_all(s->host[0], &byte, 1);
	CHECK(byte == 'x' && write(s->host[0], "y", 1) == 1);
	guest_read_all(&s->g, MC_PORT_CONTROL, &byte, 1);
	CHECK(byte == 'y');
}

#endif
