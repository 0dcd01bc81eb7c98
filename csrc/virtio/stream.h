/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * stream.h: one connection of a socket device (vsock.h), between a client's socket and packets of the guest. Nothing
 * here blocks, or knows of queues: vsock.c carries the packets.
 */
#ifndef MC_VIRTIO_STREAM_H
#define MC_VIRTIO_STREAM_H

#include <linux/virtio_vsock.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/vsock.h"

#define MC_STREAM_LINE 20 /* bytes of the longest "CONNECT PORT\n" */

enum mc_stream_state {
	MC_STREAM_FREE,
	MC_STREAM_ASKS,         /* the client's line is not whole yet */
	MC_STREAM_CALLS,        /* the guest has not answered yet */
	MC_STREAM_OPEN,
	MC_STREAM_LEFT          /* the guest has closed it: what it had sent is still to be written */
};

struct mc_stream {
	enum mc_stream_state state;
	int fd;                 /* the client's socket, nonblocking; -1: closed */
	int is_readable, is_writable, has_hung_up; /* by edges of epoll(7), until a call says otherwise */
	uint32_t host_port, guest_port;
	uint32_t due;           /* packets that the guest has to get: bits 1 << VIRTIO_VSOCK_OP_* */
	uint32_t ours, theirs;  /* VIRTIO_VSOCK_SHUTDOWN_*: of the client, of the guest */
	int has_passed_end;     /* of the guest's bytes, to the client */
	/* Bytes to the guest (5.10.6.3): its room and what it has taken of it, by its packets; what it was sent. */
	uint32_t their_room, their_taken, sent;
	int has_asked;          /* for its room */
	/* Bytes from the guest: those that came, those of them that are gone, and what the guest knows of that. */
	uint32_t received, taken, told;
	uint32_t start, held;   /* what `data`, a ring, has of them */
	size_t have;            /* bytes of `line` */
	char line[MC_STREAM_LINE];
	unsigned char data[MC_VSOCK_ROOM];
};

struct mc_packet {
	struct virtio_vsock_hdr header;
	unsigned char data[MC_VSOCK_ROOM];
};

/* Begins with a client's socket, which it takes, as the connection from `host_port`. */
void mc_stream_begin(struct mc_stream *s, int fd, uint32_t host_port);

/* Closes it without a word to the guest. */
void mc_stream_free(struct mc_stream *s);

/* What epoll says of the client's socket. */
void mc_stream_event(struct mc_stream *s, uint32_t events);

/* Does what there is to do with the client's socket, but read what is for the guest. */
void mc_stream_move(struct mc_stream *s);

/* Handles a packet of the guest; `data` are header->len bytes. One that breaks a rule ends the connection. */
void mc_stream_receive(struct mc_stream *s, const struct virtio_vsock_hdr *header, const unsigned char *data);

/* The next packet for the guest, with at most `room` bytes of data. Returns its size; 0: there is none. */
size_t mc_stream_next(struct mc_stream *s, struct mc_packet *packet, size_t room);

/* The header of a packet to the guest. */
struct virtio_vsock_hdr mc_vsock_header(uint32_t host_port, uint32_t guest_port, uint16_t op);

#endif
