/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ring.c: the device's side of a split virtqueue (virtio 1.3, 2.7).
 *
 * The parts of a ring and the buffers of a chain are found by mc_memory_at each time, so nothing outside the guest's
 * memory is ever touched. A chain is walked over copies of its descriptors, and at most once over each descriptor of
 * a table, so that no loop is endless.
 */
#define _GNU_SOURCE
#include <linux/virtio_ring.h>
#include <string.h>

#include "virtio/ring.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian (virtio 1.3, 1.4)");

#define CHAIN_MOST (1ull << 32) /* bytes of a chain (2.7.5.2) */

/* The parts of a ring (2.7): their alignment, and their size without the fields of VIRTIO_F_EVENT_IDX. */
#define AVAIL_SIZE(n) (sizeof(struct vring_avail) + (n) * sizeof(uint16_t))
#define USED_SIZE(n) (sizeof(struct vring_used) + (n) * sizeof(struct vring_used_elem))
#define TABLE_SIZE(n) ((n) * sizeof(struct vring_desc))

static int broken(struct mc_ring *r, const char *why)
{
	r->broken = why;
	return -1;
}

static struct vring_avail *avail(const struct mc_ring *r)
{
	return mc_memory_at(r->memory, r->driver, AVAIL_SIZE(r->size));
}

static struct vring_used *used(const struct mc_ring *r)
{
	return mc_memory_at(r->memory, r->device, USED_SIZE(r->size));
}

static void *table(const struct mc_ring *r)
{
	return mc_memory_at(r->memory, r->descriptors, TABLE_SIZE(r->size));
}

/* ---- start and stop */

int mc_ring_start(struct mc_ring *r)
{
	r->next_avail = r->next_used = 0;
	r->broken = NULL;
	if (r->size == 0 || r->size > r->size_max || (r->size & (r->size - 1)) != 0)
		return broken(r, "its size is not a power of two up to its maximum");
	if (r->descriptors % VRING_DESC_ALIGN_SIZE || r->driver % VRING_AVAIL_ALIGN_SIZE ||
	    r->device % VRING_USED_ALIGN_SIZE)
		return broken(r, "a part of it is not aligned");
	if (!table(r) || !avail(r) || !used(r))
		return broken(r, "a part of it is outside memory");
	r->ready = 1;
	return 0;
}

void mc_ring_stop(struct mc_ring *r)
{
	r->ready = 0;
	r->epoch++;
}

/* ---- a chain */

/* Copies a descriptor. The barrier keeps the compiler from reading the driver's one again later. An indirect table may
 * lie at any address: the specification asks for no alignment, and Linux with SLUB's debugging gives less than 16. */
static struct vring_desc descriptor(const unsigned char *table, uint32_t index)
{
	struct vring_desc d;

	memcpy(&d, table + TABLE_SIZE(index), sizeof(d));
	__asm__ volatile("" : : "r"(&d) : "memory");
	return d;
}

/* Adds the buffer of a descriptor to the chain. */
static int add(struct mc_ring *r, struct mc_chain *c, const struct vring_desc *d)
{
	const uint32_t n = (uint32_t)c->nread + c->nwrite;
	const int is_writable = d->flags & VRING_DESC_F_WRITE;
	void *host = mc_memory_at(r->memory, d->addr, d->len);

	if (n == MC_RING_PARTS)
		return broken(r, "a descriptor chain has too many elements");
	if (d->len == 0)
		return broken(r, "a buffer is empty");
	if (!host)
		return broken(r, "a buffer is outside memory");
	if (!is_writable && c->nwrite) /* 2.7.4.2 */
		return broken(r, "a device-readable buffer is behind a device-writable one");
	c->parts[n] = (struct iovec){ host, d->len };
	*(is_writable ? &c->nwrite : &c->nread) += 1;
	*(is_writable ? &c->writable : &c->readable) += d->len;
	if (c->readable + c->writable > CHAIN_MOST)
		return broken(r, "a descriptor chain is longer than 2^32 bytes");
	return 0;
}

/* The table that a descriptor refers to, and its number of descriptors (2.7.5.3); NULL: the ring is broken. The
 * descriptor's VRING_DESC_F_WRITE is ignored, as it has to be (2.7.5.3.2). */
static const unsigned char *indirect(struct mc_ring *r, const struct vring_desc *d, uint32_t *count)
{
	const char *why = NULL;
	const unsigned char *found = mc_memory_at(r->memory, d->addr, d->len);

	if (!r->indirect)
		why = "indirect descriptors were not negotiated";
	else if (d->flags & VRING_DESC_F_NEXT)
		why = "a descriptor is indirect and has a next one";
	else if (d->len == 0 || d->len % sizeof(struct vring_desc) != 0)
		why = "an indirect table is no whole number of descriptors";
	else if (d->len > TABLE_SIZE(MC_RING_PARTS))
		why = "an indirect table is too long";
	else if (!found)
		why = "an indirect table is outside memory";
	if (why)
		return broken(r, why), NULL;
	*count = d->len / sizeof(struct vring_desc);
	return found;
}

static int walk(struct mc_ring *r, struct mc_chain *c, uint32_t index)
{
	const unsigned char *at = table(r);
	uint32_t count = r->size, seen = 0;
	int is_indirect = 0;

	for (;;) {
		struct vring_desc d;

		if (index >= count)
			return broken(r, "a descriptor index is beyond its table");
		if (seen++ == count)
			return broken(r, "a descriptor chain is a loop");
		d = descriptor(at, index);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (is_indirect)
				return broken(r, "an indirect table refers to another one");
			at = indirect(r, &d, &count);
			if (!at)
				return -1;
			is_indirect = 1;
			index = seen = 0;
			continue;
		}
		if (add(r, c, &d) < 0)
			return -1;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		index = d.next;
	}
}

/* ---- the available ring */

/* How many chains are available; more than the queue has: the driver's index is wrong. */
static uint16_t available(const struct mc_ring *r)
{
	return (uint16_t)(__atomic_load_n(&avail(r)->idx, __ATOMIC_ACQUIRE) - r->next_avail);
}

int mc_ring_waiting(const struct mc_ring *r)
{
	return r->ready && !r->broken && available(r) != 0;
}

int mc_ring_take(struct mc_ring *r, struct mc_chain *c)
{
	uint16_t n, head;

	if (r->broken)
		return -1;
	if (!r->ready)
		return 0; /* 4.2.2.1: contents must not be accessed while QueueReady is 0 */
	n = available(r);
	if (n == 0)
		return 0;
	if (n > r->size)
		return broken(r, "the available index is more than a queue ahead");
	head = __atomic_load_n(&avail(r)->ring[r->next_avail % r->size], __ATOMIC_RELAXED);
	c->epoch = r->epoch;
	c->head = head;
	c->nread = c->nwrite = 0;
	c->readable = c->writable = 0;
	if (walk(r, c, head) < 0)
		return -1;
	r->next_avail++;
	return 1;
}

/* ---- the used ring */

void mc_ring_put(struct mc_ring *r, const struct mc_chain *c, uint32_t written)
{
	if (!r->ready || r->broken || c->epoch != r->epoch)
		return;
	used(r)->ring[r->next_used % r->size] = (struct vring_used_elem){ c->head, written };
	r->next_used++;
}

void mc_ring_give(struct mc_ring *r, const struct mc_chain *c, uint32_t written)
{
	if (!r->ready || r->broken || c->epoch != r->epoch)
		return;
	mc_ring_put(r, c, written);
	__atomic_store_n(&used(r)->idx, r->next_used, __ATOMIC_RELEASE); /* behind the elements (2.7.8.2) */
}

int mc_ring_interrupts(const struct mc_ring *r)
{
	if (!r->ready || r->broken)
		return 0;
	/* The driver enables interrupts and then looks for used chains; the device does it the other way round: one of
	 * the two sees the other's store (2.7, Receiving Used Buffers From The Device). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !(__atomic_load_n(&avail(r)->flags, __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);
}

void mc_ring_want_kicks(struct mc_ring *r, int wanted)
{
	if (!r->ready || r->broken)
		return;
	__atomic_store_n(&used(r)->flags, wanted ? 0 : VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* as in mc_ring_interrupts, the other way round */
}

/* ---- bytes */

size_t mc_chain_read(const struct mc_chain *c, void *data, size_t size)
{
	size_t done = 0;

	for (uint32_t i = 0; i < c->nread && done < size; i++) {
		size_t n = c->parts[i].iov_len < size - done ? c->parts[i].iov_len : size - done;

		memcpy((char *)data + done, c->parts[i].iov_base, n);
		done += n;
	}
	return done;
}

size_t mc_chain_write(const struct mc_chain *c, const void *data, size_t size)
{
	const struct iovec *parts = c->parts + c->nread;
	size_t done = 0;

	for (uint32_t i = 0; i < c->nwrite && done < size; i++) {
		size_t n = parts[i].iov_len < size - done ? parts[i].iov_len : size - done;

		memcpy(parts[i].iov_base, (const char *)data + done, n);
		done += n;
	}
	return done;
}

uint32_t mc_parts_add(struct iovec *to, uint32_t n, uint32_t most, const struct iovec *parts, uint32_t count,
		      size_t skip)
{
	for (uint32_t i = 0; i < count && n < most; i++) {
		const size_t here = skip < parts[i].iov_len ? skip : parts[i].iov_len;

		skip -= here;
		if (here < parts[i].iov_len)
			to[n++] = (struct iovec){ (char *)parts[i].iov_base + here, parts[i].iov_len - here };
	}
	return n;
}
