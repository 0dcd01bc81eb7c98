/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ring.h: the device's side of a split virtqueue (virtio 1.3, 2.7 Split Virtqueues).
 *
 * The one place that reads rings, and trusts nothing in them: the driver may be hostile, and may write to a ring while
 * the device reads it. Each word is read once. What breaks a rule ends the ring with a reason (`broken`); nothing of
 * the process does. The caller serializes all calls for a ring.
 */
#ifndef MC_VIRTIO_RING_H
#define MC_VIRTIO_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/memory.h"

#define MC_RING_SIZE 256  /* the largest queue */
/* Elements of a chain. By 2.7.5.3.1 no chain is longer than its queue, but Linux before 5.13 sent all pages of a FUSE
 * request (256 for 1 MiB) and up to four elements more (fs/fuse/virtio_fs.c) in an indirect table. */
#define MC_RING_PARTS (MC_RING_SIZE + 8)

struct mc_ring {
	const struct mc_memory *memory;
	uint16_t size_max;      /* at most MC_RING_SIZE */
	uint16_t size;          /* set by the driver */
	uint32_t ready;         /* between mc_ring_start and mc_ring_stop */
	uint32_t indirect;      /* VIRTIO_RING_F_INDIRECT_DESC was negotiated */
	uint32_t epoch;         /* how often the ring was stopped: chains of an earlier epoch are void */
	uint64_t descriptors;   /* guest physical addresses of the three parts */
	uint64_t driver;
	uint64_t device;
	uint16_t next_avail;    /* free-running indices of the device */
	uint16_t next_used;
	const char *broken;     /* the rule that the driver has broken, or NULL */
};

/* A descriptor chain: a copy, which the driver can't change; the bytes that it refers to can change. */
struct mc_chain {
	uint32_t epoch;
	uint16_t head;
	uint16_t nread;         /* device-readable elements: the first in `parts` */
	uint16_t nwrite;        /* device-writable elements behind them */
	uint64_t readable;      /* bytes of each kind */
	uint64_t writable;
	struct iovec parts[MC_RING_PARTS];
};

/* Begins with an empty ring, if size and parts are right. Returns 0, or -1: `broken` says why. */
int mc_ring_start(struct mc_ring *ring);

/* The device uses the ring no more; size and addresses stay, for the next start. */
void mc_ring_stop(struct mc_ring *ring);

/* Takes the next available chain. Returns 1; 0: there is none, or the ring is not ready; -1: `broken` says why. */
int mc_ring_take(struct mc_ring *ring, struct mc_chain *chain);

/* Whether the driver has made a chain available that was not taken. */
int mc_ring_waiting(const struct mc_ring *ring);

/* Gives a chain back, of which the device has written the first `written` bytes. Does nothing if the ring was stopped
 * since the chain was taken, or is broken. */
void mc_ring_give(struct mc_ring *ring, const struct mc_chain *chain, uint32_t written);

/* The same, but the driver sees it at the next mc_ring_give: one of several chains that it is to find at once. */
void mc_ring_put(struct mc_ring *ring, const struct mc_chain *chain, uint32_t written);

/* After mc_ring_give: whether the driver wants a used buffer notification (2.7.7). */
int mc_ring_interrupts(const struct mc_ring *ring);

/* Whether the driver shall notify the device of the chains that it makes available, as it does from the ring's start on
 * (2.7.10): a hint. Chains that it has made available before it sees the wish are found by mc_ring_waiting. */
void mc_ring_want_kicks(struct mc_ring *ring, int wanted);

/* Copies from the device-readable, or to the device-writable bytes of a chain; returns how many, at most `size`. */
size_t mc_chain_read(const struct mc_chain *chain, void *data, size_t size);
size_t mc_chain_write(const struct mc_chain *chain, const void *data, size_t size);

/* Adds `parts` without their first `skip` bytes to the `n` of `most` that `to` has; returns how many there are then. */
uint32_t mc_parts_add(struct iovec *to, uint32_t n, uint32_t most, const struct iovec *parts, uint32_t count,
		      size_t skip);

#endif
