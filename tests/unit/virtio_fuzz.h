/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_fuzz.h: random rings and random drivers, the same each time.
 */
#ifndef VIRTIO_FUZZ_H
#define VIRTIO_FUZZ_H

#include "virtio_driver.h"

#define SIZE 4096u
#define GAP 8192u

static uint64_t random_state = 1;

static inline uint32_t below(uint32_t n)
{
	return (uint32_t)((test_random(&random_state) >> 32) % n);
}

static inline uint64_t pick(const uint64_t *values, uint32_t n)
{
	return values[below(n)];
}
#define PICK(...) pick((const uint64_t[]){ __VA_ARGS__ }, sizeof((const uint64_t[]){ __VA_ARGS__ }) / 8)

/* ---- memory: two regions on the heap, so that the sanitizer sees each access beyond */

static inline void make_memory(struct mc_memory *m)
{
	m->count = 2;
	for (uint32_t i = 0; i < 2; i++) {
		m->regions[i] = (struct mc_region){ DRIVER_BASE + i * (SIZE + GAP), SIZE, aligned_alloc(SIZE, SIZE) };
		CHECK(m->regions[i].host);
	}
}

static inline void free_memory(struct mc_memory *m)
{
	free(m->regions[0].host);
	free(m->regions[1].host);
}

static inline uint64_t some_address(void)
{
	uint64_t base = DRIVER_BASE + below(2) * (SIZE + GAP);

	if (below(40) == 0)
		return PICK(0, UINT64_MAX, UINT64_MAX - 15, base - 1, base + SIZE - 1, base + SIZE,
			    test_random(&random_state));
	return base + below(SIZE - 64);
}

static inline struct vring_desc some_descriptor(uint32_t n)
{
	struct vring_desc d = { some_address(), 1 + below(64), 0, (uint16_t)below(n) };

	d.flags = (uint16_t)PICK(0, 0, VRING_DESC_F_NEXT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
				 VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, VRING_DESC_F_INDIRECT);
	if (d.flags & VRING_DESC_F_INDIRECT)
		d.len = 16 * (1 + below(8));
	if (below(60) == 0)
		d.len = (uint32_t)PICK(0, UINT32_MAX, SIZE, SIZE + 1, 17, 16 * 300);
	if (below(60) == 0)
		d.next = (uint16_t)PICK(n, n - 1, UINT16_MAX);
	if (below(60) == 0)
		d.flags = (uint16_t)test_random(&random_state);
	return d;
}

/* Descriptors everywhere, which are also what indirect tables are made of, and an available ring of a few chains. */
static inline void fill(const struct mc_memory *m, const struct mc_ring *r)
{
	struct vring_avail *avail = mc_memory_at(m, r->driver, 6 + 2 * MC_RING_SIZE);
	const uint32_t n = r->size ? r->size : 1;

	for (uint32_t i = 0; i < m->count; i++)
		for (uint32_t at = 0; at < SIZE; at += 16)
			*(struct vring_desc *)(m->regions[i].host + at) = some_descriptor(n);
	if (!avail || r->driver % 2)
		return;
	avail->flags = (uint16_t)below(2);
	avail->idx = (uint16_t)(below(50) ? below(n + 1) : test_random(&random_state));
	for (uint32_t i = 0; i < n && i < MC_RING_SIZE; i++)
		avail->ring[i] = (uint16_t)(below(50) ? below(n) : test_random(&random_state));
}

static inline int is_inside(const struct mc_memory *m, const struct iovec *part)
{
	const unsigned char *at = part->iov_base;

	for (uint32_t i = 0; i < m->count; i++)
		if (at >= m->regions[i].host && part->iov_len <= SIZE &&
		    at + part->iov_len <= m->regions[i].host + SIZE)
			return 1;
	return 0;
}

/* Takes what there is, and uses all of it: what is written may be the ring itself. */
static inline uint32_t use(struct mc_ring *r, struct mc_chain *c)
{
	static char bytes[MC_RING_PARTS * SIZE];
	uint32_t taken = 0;

	for (; taken < 2u * MC_RING_SIZE && mc_ring_take(r, c) == 1; taken++) {
		CHECK(c->nread + c->nwrite >= 1 && c->nread + c->nwrite <= MC_RING_PARTS);
		for (uint32_t i = 0; i < (uint32_t)c->nread + c->nwrite; i++)
			CHECK(is_inside(r->memory, &c->parts[i]));
		CHECK(mc_chain_read(c, bytes, sizeof(bytes)) == c->readable);
		if (below(4) == 0)
			mc_chain_write(c, bytes, sizeof(bytes));
		mc_ring_give(r, c, (uint32_t)c->writable);
		mc_ring_interrupts(r);
		mc_ring_waiting(r);
	}
	return taken;
}

static inline void some_ring(struct mc_ring *r, const struct mc_memory *m)
{
	*r = (struct mc_ring){ .memory = m, .size_max = MC_RING_SIZE, .indirect = below(8) != 0 };
	r->size = (uint16_t)PICK(1, 2, 4, 8, 16, 32, 64);
	r->descriptors = DRIVER_BASE + 16 * below(32);
	r->driver = DRIVER_BASE + 2048 + 2 * below(64);
	r->device = DRIVER_BASE + SIZE + GAP + 4 * below(64);
	if (below(30) == 0)
		r->size = (uint16_t)PICK(0, 3, 128, 256, 512, UINT16_MAX);
	if (below(30) == 0)
		*(below(2) ? &r->descriptors : below(2) ? &r->driver : &r->device) = some_address();
}

#endif
