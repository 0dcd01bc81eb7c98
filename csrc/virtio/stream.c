/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * stream.c: one connection of a socket device (virtio 1.3, 5.10.6).
 *
 * Theory of operation. The client's socket is watched by edges, so each flag stays until a call fails with EAGAIN. What
 * the guest sends is written at once; what the socket does not take is held, and the guest's credit is what is left of
 * the room for that (5.10.6.3). The client is read only while the guest has room, right into the packet.
 *
 * A connection ends as the specification has it (5.10.6.6): whoever ends its directions says SHUTDOWN, and the other
 * side answers with RST when it has handled what came before.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/stream.h"

#define BIT(op) (1u << VIRTIO_VSOCK_OP_##op)
#define SEND VIRTIO_VSOCK_SHUTDOWN_SEND
#define RECEIVE VIRTIO_VSOCK_SHUTDOWN_RCV
#define BOTH (SEND | RECEIVE)
#define UPDATE (MC_VSOCK_ROOM / 4) /* bytes that the guest gets back at once */

void mc_stream_begin(struct mc_stream *s, int fd, uint32_t host_port)
{
	memset(s, 0, offsetof(struct mc_stream, line)); /* the rest is not read before it is written */
	s->state = MC_STREAM_ASKS;
	s->fd = fd;
	s->host_port = host_port;
}

static void close_client(struct mc_stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->taken += s->held;
	s->held = 0;
}

void mc_stream_free(struct mc_stream *s)
{
	close_client(s);
	s->state = MC_STREAM_FREE;
}

/* Ends it on both sides: the guest gets RST, and nothing else. */
static void reset(struct mc_stream *s)
{
	close_client(s);
	s->state = MC_STREAM_OPEN;
	s->ours = s->theirs = BOTH;
	s->due = BIT(RST);
}

/* ---- the client */

void mc_stream_event(struct mc_stream *s, uint32_t events)
{
	s->is_readable |= (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
	s->is_writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
	s->has_hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
}

/* The port of "CONNECT PORT", a decimal number below 2^32 - 1 (VMADDR_PORT_ANY). Returns whether it is one. */
static int parse(const char *line, size_t length, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	uint64_t value = 0;

	if (length <= sizeof(word) - 1 || memcmp(line, word, sizeof(word) - 1) != 0)
		return 0;
	for (size_t i = sizeof(word) - 1; i < length; i++) {
		if (line[i] < '0' || line[i] > '9')
			return 0;
		value = 10 * value + (uint64_t)(line[i] - '0'); /* of 11 digits at most */
	}
	*port = (uint32_t)value;
	return value < VMADDR_PORT_ANY;
}

/* Reads the line, and no byte behind it: those are for the guest. */
static void ask(struct mc_stream *s)
{
	ssize_t n = 0;

	while (s->have < MC_STREAM_LINE && (n = recv(s->fd, s->line + s->have, 1, MSG_DONTWAIT)) == 1) {
		if (s->line[s->have++] != '\n')
			continue;
		if (!parse(s->line, s->have - 1, &s->guest_port))
			break;
		s->state = MC_STREAM_CALLS;
		s->due = BIT(REQUEST);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		s->is_readable = errno == EINTR;
	else
		mc_stream_free(s);
}

/* The client has ended a direction, or both. */
static void end_ours(struct mc_stream *s, uint32_t directions)
{
	if ((s->ours & directions) == directions)
		return;
	s->ours |= directions;
	s->due |= BIT(SHUTDOWN);
	if (directions & RECEIVE) {
		s->taken += s->held;
		s->held = 0;
	}
}

/* Writes what is held. */
static void flush(struct mc_stream *s)
{
	while (s->held && s->is_writable) {
		size_t most = s->held < MC_VSOCK_ROOM - s->start ? s->held : MC_VSOCK_ROOM - s->start;
		ssize_t n = send(s->fd, s->data + s->start, most, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			s->start = (s->start + (uint32_t)n) % MC_VSOCK_ROOM;
			s->held -= (uint32_t)n;
			s->taken += (uint32_t)n;
		} else if (errno == EAGAIN) {
			s->is_writable = 0;
		} else if (errno != EINTR) {
			end_ours(s, RECEIVE);
		}
	}
}

/* Passes on what the guest has ended, when all that it has sent before is written. */
static void pass_end(struct mc_stream *s)
{
	if (s->held || s->fd < 0)
		return;
	if (s->state == MC_STREAM_LEFT) {
		mc_stream_free(s);
	} else if (s->theirs == BOTH) {
		reset(s); /* 5.10.6.6: the answer to a SHUTDOWN of both */
	} else if (s->theirs & SEND && !s->has_passed_end) {
		s->has_passed_end = 1;
		shutdown(s->fd, SHUT_WR);
	}
}

void mc_stream_move(struct mc_stream *s)
{
	if (s->state == MC_STREAM_ASKS && s->is_readable)
		ask(s);
	if (s->state == MC_STREAM_CALLS && s->has_hung_up)
		reset(s);
	if (s->state < MC_STREAM_OPEN || s->fd < 0)
		return;
	flush(s);
	if (s->has_hung_up && (s->ours & SEND || s->theirs & RECEIVE)) /* else there may be bytes that it has sent */
		end_ours(s, BOTH);
	pass_end(s);
	if (s->state == MC_STREAM_OPEN && s->taken - s->told >= UPDATE)
		s->due |= BIT(CREDIT_UPDATE);
}

/* ---- from the guest */

/* Bytes that the guest takes now; a peer that says it has taken more than it was sent has no room. */
static uint32_t credit(const struct mc_stream *s)
{
	const uint32_t under_way = s->sent - s->their_taken;

	return under_way < s->their_room ? s->their_room - under_way : 0;
}

/* Its socket is new, so it takes a line. */
static void answer(struct mc_stream *s)
{
	char line[32];
	const int size = snprintf(line, sizeof(line), "OK %u\n", s->host_port);

	if (s->state != MC_STREAM_CALLS || s->due & BIT(REQUEST) ||
	    send(s->fd, line, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL) != size)
		reset(s);
	else
		s->state = MC_STREAM_OPEN;
}

static void take(struct mc_stream *s, const unsigned char *data, uint32_t size)
{
	uint32_t at, first;

	if (s->state != MC_STREAM_OPEN || s->theirs & SEND || size > MC_VSOCK_ROOM - (s->received - s->taken)) {
		reset(s);
		return;
	}
	s->received += size;
	if (s->ours & RECEIVE) {
		s->taken += size; /* nobody reads it */
		return;
	}
	at = (s->start + s->held) % MC_VSOCK_ROOM;
	first = size < MC_VSOCK_ROOM - at ? size : MC_VSOCK_ROOM - at;
	memcpy(s->data + at, data, first);
	memcpy(s->data, data + first, size - first);
	s->held += size;
}

static void end_theirs(struct mc_stream *s, uint32_t flags)
{
	if (s->state != MC_STREAM_OPEN) {
		reset(s);
		return;
	}
	s->theirs |= flags & BOTH;
	if (s->theirs & RECEIVE)
		shutdown(s->fd, SHUT_RD); /* the client's next write says EPIPE */
}

/* The guest knows it no more. */
static void leave(struct mc_stream *s)
{
	s->due = 0;
	if (s->state == MC_STREAM_OPEN && s->held)
		s->state = MC_STREAM_LEFT;
	else
		mc_stream_free(s);
}

void mc_stream_receive(struct mc_stream *s, const struct virtio_vsock_hdr *header, const unsigned char *data)
{
	if (s->due & BIT(RST)) /* it is over: what was under way meanwhile */
		return;
	s->their_room = header->buf_alloc;
	s->their_taken = header->fwd_cnt;
	s->has_asked = s->has_asked && !credit(s);
	switch (header->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		answer(s);
		break;
	case VIRTIO_VSOCK_OP_RST:
		leave(s);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		end_theirs(s, header->flags);
		break;
	case VIRTIO_VSOCK_OP_RW:
		take(s, data, header->len);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		s->due |= BIT(CREDIT_UPDATE);
		break;
	default:
		reset(s);
	}
}

/* ---- to the guest */

struct virtio_vsock_hdr mc_vsock_header(uint32_t host_port, uint32_t guest_port, uint16_t op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = VMADDR_CID_HOST,
		.dst_cid = MC_VSOCK_CID,
		.src_port = host_port,
		.dst_port = guest_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
	};
}

/* Reads what the client sends, as far as the guest has room for it. Returns how many bytes; 0: `due` may say why. */
static uint32_t read_client(struct mc_stream *s, struct mc_packet *packet, size_t room)
{
	const uint32_t most = credit(s) < room ? credit(s) : (uint32_t)room;
	ssize_t n;

	if (s->state != MC_STREAM_OPEN || !s->is_readable || s->ours & SEND || s->theirs & RECEIVE || room == 0)
		return 0;
	if (most == 0) {
		s->due |= s->has_asked ? 0 : BIT(CREDIT_REQUEST);
		s->has_asked = 1;
		return 0;
	}
	do
		n = recv(s->fd, packet->data, most, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return (uint32_t)n;
	if (n < 0 && errno == EAGAIN)
		s->is_readable = 0;
	else
		end_ours(s, s->has_hung_up ? BOTH : SEND);
	return 0;
}

size_t mc_stream_next(struct mc_stream *s, struct mc_packet *packet, size_t room)
{
	const uint32_t size = s->due ? 0 : read_client(s, packet, room < MC_VSOCK_ROOM ? room : MC_VSOCK_ROOM);
	const int op = size ? VIRTIO_VSOCK_OP_RW : __builtin_ffs((int)s->due) - 1;

	if (op < 0)
		return 0;
	packet->header = mc_vsock_header(s->host_port, s->guest_port, (uint16_t)op);
	packet->header.len = size;
	packet->header.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? s->ours : 0;
	packet->header.buf_alloc = MC_VSOCK_ROOM;
	packet->header.fwd_cnt = s->told = s->taken;
	s->sent += size;
	s->due &= ~(1u << op | BIT(CREDIT_UPDATE)); /* each packet is one */
	if (op == VIRTIO_VSOCK_OP_RST)
		mc_stream_free(s);
	return sizeof(packet->header) + size;
}
