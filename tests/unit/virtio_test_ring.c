/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_ring.c: split virtqueues (virtio 1.3, 2.7): what a sound driver sees, and how each broken rule ends.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "virtio_driver.h"

#define SIZE 8
#define MEMORY 0x200000 /* so much that a chain of 256 pages fits */

/* A ring without a device; the driver's queue 0 is its other side. */
struct setup {
	struct driver d;
	struct mc_ring ring;
	uint64_t data;          /* a page */
	struct mc_chain chain;
};

static void set_up(struct setup *s)
{
	struct driver_queue *q = &s->d.queues[0];

	driver_memory(&s->d, MEMORY);
	q->size = SIZE;
	q->desc = driver_alloc(&s->d, 16 * SIZE);
	q->avail = driver_alloc(&s->d, 6 + 2 * SIZE);
	q->used = driver_alloc(&s->d, 6 + 8 * SIZE);
	s->data = driver_alloc(&s->d, 4096);
	s->ring = (struct mc_ring){ .memory = &s->d.memory, .size_max = MC_RING_SIZE, .size = SIZE, .indirect = 1,
				    .descriptors = q->desc, .driver = q->avail, .device = q->used };
}

static void start(struct setup *s)
{
	set_up(s);
	CHECK(mc_ring_start(&s->ring) == 0);
}

static void set(struct setup *s, uint32_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
	*driver_desc(&s->d, 0, index) = (struct vring_desc){ address, length, flags, next };
}

static int take(struct setup *s)
{
	return mc_ring_take(&s->ring, &s->chain);
}

/* ---- sound rings */

TEST(ring_takes_and_gives)
{
	struct setup s;
	char text[8] = "";

	start(&s);
	CHECK(!mc_ring_waiting(&s.ring) && take(&s) == 0);
	memcpy(driver_at(&s.d, s.data, 4096), "abcdefgh", 8);
	set(&s, 2, s.data, 3, VRING_DESC_F_NEXT, 5);
	set(&s, 5, s.data + 3, 2, VRING_DESC_F_NEXT, 0);
	set(&s, 0, s.data + 100, 4, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 7);
	set(&s, 7, s.data + 200, 1, VRING_DESC_F_WRITE, 99);
	driver_publish(&s.d, 0, 2);
	CHECK(mc_ring_waiting(&s.ring) && take(&s) == 1 && !mc_ring_waiting(&s.ring) && take(&s) == 0);
	CHECK(s.chain.head == 2 && s.chain.nread == 2 && s.chain.nwrite == 2);
	CHECK(s.chain.readable == 5 && s.chain.writable == 5);
	CHECK(mc_chain_read(&s.chain, text, 4) == 4 && memcmp(text, "abcd", 5) == 0);
	CHECK(mc_chain_read(&s.chain, text, sizeof(text)) == 5 && memcmp(text, "abcde", 6) == 0);
	CHECK(mc_chain_write(&s.chain, "vwxyz!", 6) == 5);
	CHECK(memcmp(driver_at(&s.d, s.data + 100, 5), "vwxy", 5) == 0);
	CHECK(memcmp(driver_at(&s.d, s.data + 200, 2), "z", 2) == 0);
	mc_ring_give(&s.ring, &s.chain, 5);
	CHECK(driver_used_ring(&s.d, 0)->idx == 1);
	CHECK(driver_used_ring(&s.d, 0)->ring[0].id == 2 && driver_used_ring(&s.d, 0)->ring[0].len == 5);
	driver_free(&s.d);
}

/* The free-running indices wrap at 65,536; all chains are there at once, and come back in another order. */
TEST(ring_wraps)
{
	struct setup s;
	struct mc_chain *chains = calloc(SIZE, sizeof(*chains));

	start(&s);
	for (uint16_t i = 0; i < SIZE; i++)
		set(&s, i, s.data + i, 1, 0, 0);
	for (uint32_t round = 0; round < 20000; round++) {
		for (uint16_t i = 0; i < SIZE; i++)
			driver_publish(&s.d, 0, i);
		for (uint16_t i = 0; i < SIZE; i++)
			CHECK(mc_ring_take(&s.ring, &chains[i]) == 1 && chains[i].head == i);
		CHECK(take(&s) == 0);
		for (uint16_t i = SIZE; i-- > 0;)
			mc_ring_give(&s.ring, &chains[i], i);
		CHECK(driver_used_ring(&s.d, 0)->idx == (uint16_t)(SIZE * (round + 1)));
		CHECK(driver_used_ring(&s.d, 0)->ring[0].id == SIZE - 1);
	}
	free(chains);
	driver_free(&s.d);
}

/* Alone, and behind other descriptors; its own flag "write" means nothing (2.7.5.3.2), and it need not be aligned. */
TEST(ring_indirect)
{
	struct setup s;
	uint64_t table;
	struct vring_desc d[2];

	start(&s);
	table = driver_alloc(&s.d, 64) + 1;
	d[0] = (struct vring_desc){ s.data + 10, 20, VRING_DESC_F_NEXT, 1 };
	d[1] = (struct vring_desc){ s.data + 40, 30, VRING_DESC_F_WRITE, 77 };
	memcpy(driver_at(&s.d, table, 32), d, 32);
	set(&s, 0, s.data, 5, VRING_DESC_F_NEXT, 1);
	set(&s, 1, table, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 99);
	for (uint16_t head = 0; head < 2; head++) {
		driver_publish(&s.d, 0, head);
		CHECK(take(&s) == 1 && s.chain.nwrite == 1 && s.chain.writable == 30);
		CHECK(s.chain.nread == 2 - head && s.chain.readable == 25u - 5 * head);
		CHECK(s.chain.parts[s.chain.nread].iov_base == driver_at(&s.d, s.data + 40, 30));
	}
	driver_free(&s.d);
}

TEST(ring_as_long_as_can_be)
{
	struct setup s;
	uint64_t table, pages;
	struct driver_buffer buffers[MC_RING_PARTS];

	start(&s);
	table = driver_alloc(&s.d, 16 * MC_RING_PARTS);
	pages = driver_alloc(&s.d, 4096 * MC_RING_PARTS);
	for (uint32_t i = 0; i < MC_RING_PARTS; i++)
		buffers[i] = (struct driver_buffer){ pages + 4096 * i, 4096, i >= 3 };
	s.d.v = NULL;
	for (uint16_t i = 0; i < MC_RING_PARTS; i++)
		((struct vring_desc *)driver_at(&s.d, table, 16 * MC_RING_PARTS))[i] =
			driver_element(&buffers[i], i + 1 < MC_RING_PARTS, i + 1);
	set(&s, 0, table, 16 * MC_RING_PARTS, VRING_DESC_F_INDIRECT, 0);
	driver_publish(&s.d, 0, 0);
	CHECK(take(&s) == 1 && s.chain.nread == 3 && s.chain.nwrite == MC_RING_PARTS - 3);
	CHECK(s.chain.writable == 4096ull * (MC_RING_PARTS - 3));
	driver_free(&s.d);
}

TEST(ring_asks_for_interrupts)
{
	struct setup s;

	set_up(&s);
	CHECK(!mc_ring_interrupts(&s.ring));
	CHECK(mc_ring_start(&s.ring) == 0 && mc_ring_interrupts(&s.ring));
	driver_avail(&s.d, 0)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	CHECK(!mc_ring_interrupts(&s.ring));
	driver_free(&s.d);
}

TEST(ring_asks_for_kicks)
{
	struct setup s;

	set_up(&s);
	mc_ring_want_kicks(&s.ring, 0); /* it is not ready */
	CHECK(driver_used_ring(&s.d, 0)->flags == 0);
	CHECK(mc_ring_start(&s.ring) == 0 && driver_used_ring(&s.d, 0)->flags == 0);
	mc_ring_want_kicks(&s.ring, 0);
	CHECK(driver_used_ring(&s.d, 0)->flags == VRING_USED_F_NO_NOTIFY);
	mc_ring_want_kicks(&s.ring, 1);
	CHECK(driver_used_ring(&s.d, 0)->flags == 0);
	driver_free(&s.d);
}

/* Nothing of a stopped ring is touched, and a chain of it is not given back to the ring that comes after it. */
TEST(ring_stops)
{
	struct setup s;

	start(&s);
	set(&s, 0, s.data, 1, 0, 0);
	driver_publish(&s.d, 0, 0);
	CHECK(take(&s) == 1);
	driver_publish(&s.d, 0, 0);
	mc_ring_stop(&s.ring);
	CHECK(take(&s) == 0 && !mc_ring_waiting(&s.ring) && !mc_ring_interrupts(&s.ring));
	mc_ring_give(&s.ring, &s.chain, 0);
	CHECK(driver_used_ring(&s.d, 0)->idx == 0);
	driver_avail(&s.d, 0)->idx = 0;
	CHECK(mc_ring_start(&s.ring) == 0 && take(&s) == 0);
	mc_ring_give(&s.ring, &s.chain, 0);
	CHECK(driver_used_ring(&s.d, 0)->idx == 0);
	driver_free(&s.d);
}

/* ---- broken rings */

static void check_broken(struct setup *s, const char *why)
{
	if (!s->ring.broken || strcmp(s->ring.broken, why) != 0) {
		fprintf(stderr, "%s; expected: %s\n", s->ring.broken ? s->ring.broken : "not broken", why);
		CHECK(!"broken with this reason");
	}
	driver_free(&s->d);
}

/* A ring of which one word is wrong. */
#define REFUSED(case_name, change, why)                   \
	TEST(ring_refused_##case_name)                    \
	{                                                 \
		struct setup s;                           \
		struct mc_ring *r = &s.ring;              \
                                                          \
		set_up(&s);                               \
		change;                                   \
		CHECK(mc_ring_start(r) == -1 && !r->ready); \
		check_broken(&s, why);                    \
	}

REFUSED(size_zero, r->size = 0, "its size is not a power of two up to its maximum")
REFUSED(size_odd, r->size = 7, "its size is not a power of two up to its maximum")
REFUSED(size_large, r->size = MC_RING_SIZE * 2, "its size is not a power of two up to its maximum")
REFUSED(table_unaligned, r->descriptors += 8, "a part of it is not aligned")
REFUSED(avail_unaligned, r->driver += 1, "a part of it is not aligned")
REFUSED(used_unaligned, r->device += 2, "a part of it is not aligned")
REFUSED(table_outside, r->descriptors = DRIVER_BASE - 16, "a part of it is outside memory")
REFUSED(avail_outside, r->driver = DRIVER_BASE + MEMORY - 18, "a part of it is outside memory")
REFUSED(used_outside, r->device = UINT64_MAX - 3, "a part of it is outside memory")

/* A chain that begins at descriptor 0 and breaks a rule. */
#define BROKEN(case_name, change, why)                             \
	TEST(ring_broken_##case_name)                              \
	{                                                          \
		struct setup s;                                    \
		struct vring_desc *t;                              \
		uint64_t table;                                    \
                                                                   \
		start(&s);                                         \
		table = driver_alloc(&s.d, 16 * 512);              \
		t = driver_at(&s.d, table, 16 * 512);              \
		(void)t;                                           \
		for (uint16_t i = 0; i < SIZE; i++)                \
			set(&s, i, s.data, 16, VRING_DESC_F_NEXT, i + 1); \
		set(&s, SIZE - 1, s.data, 16, 0, 0);               \
		driver_publish(&s.d, 0, 0);                        \
		change;                                            \
		CHECK(take(&s) == -1 && take(&s) == -1);           \
		CHECK(!mc_ring_waiting(&s.ring));                  \
		mc_ring_give(&s.ring, &s.chain, 0);                \
		CHECK(driver_used_ring(&s.d, 0)->idx == 0);        \
		check_broken(&s, why);                             \
	}

/* Descriptor 0 refers to a table of n descriptors, which are a sound chain. */
static void use_table(struct setup *s, uint64_t table, uint32_t n, uint16_t more_flags)
{
	struct vring_desc *t = driver_at(&s->d, table, 16ull * n);

	for (uint32_t i = 0; i < n; i++)
		t[i] = (struct vring_desc){ s->data, 16, i + 1 < n ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1) };
	set(s, 0, table, 16 * n, VRING_DESC_F_INDIRECT | more_flags, 1);
}

BROKEN(avail_jumps, driver_avail(&s.d, 0)->idx = SIZE + 1, "the available index is more than a queue ahead")
BROKEN(avail_goes_back, driver_avail(&s.d, 0)->idx = UINT16_MAX, "the available index is more than a queue ahead")
BROKEN(head_beyond, driver_avail(&s.d, 0)->ring[0] = SIZE, "a descriptor index is beyond its table")
BROKEN(next_beyond, set(&s, 0, s.data, 16, VRING_DESC_F_NEXT, SIZE), "a descriptor index is beyond its table")
BROKEN(loop, set(&s, SIZE - 1, s.data, 16, VRING_DESC_F_NEXT, 0), "a descriptor chain is a loop")
BROKEN(loop_of_one, set(&s, 0, s.data, 16, VRING_DESC_F_NEXT, 0), "a descriptor chain is a loop")
BROKEN(buffer_outside, set(&s, 0, DRIVER_BASE + MEMORY - 15, 16, 0, 0), "a buffer is outside memory")
BROKEN(buffer_overflows, set(&s, 0, UINT64_MAX - 7, 16, 0, 0), "a buffer is outside memory")
BROKEN(buffer_huge, set(&s, 0, s.data, UINT32_MAX, 0, 0), "a buffer is outside memory")
BROKEN(buffer_below, set(&s, 0, 0, 16, 0, 0), "a buffer is outside memory")
BROKEN(buffer_empty, set(&s, 0, s.data, 0, 0, 0), "a buffer is empty")
BROKEN(readable_behind_writable, set(&s, 0, s.data, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1),
       "a device-readable buffer is behind a device-writable one")
BROKEN(indirect_not_negotiated, use_table(&s, table, 2, 0); s.ring.indirect = 0,
       "indirect descriptors were not negotiated")
BROKEN(indirect_with_next, use_table(&s, table, 2, VRING_DESC_F_NEXT), "a descriptor is indirect and has a next one")
BROKEN(indirect_empty, set(&s, 0, table, 0, VRING_DESC_F_INDIRECT, 0),
       "an indirect table is no whole number of descriptors")
BROKEN(indirect_in_parts, use_table(&s, table, 2, 0); driver_desc(&s.d, 0, 0)->len = 40,
       "an indirect table is no whole number of descriptors")
BROKEN(indirect_too_long, use_table(&s, table, MC_RING_PARTS + 1, 0), "an indirect table is too long")
BROKEN(indirect_outside, set(&s, 0, DRIVER_BASE + MEMORY - 16, 32, VRING_DESC_F_INDIRECT, 0),
       "an indirect table is outside memory")
BROKEN(indirect_nested, use_table(&s, table, 2, 0); t[1].flags = VRING_DESC_F_INDIRECT,
       "an indirect table refers to another one")
BROKEN(indirect_next_beyond, use_table(&s, table, 2, 0); t[0].next = 2, "a descriptor index is beyond its table")
BROKEN(indirect_loop, use_table(&s, table, 2, 0); t[1].flags = VRING_DESC_F_NEXT; t[1].next = 0,
       "a descriptor chain is a loop")
BROKEN(too_many, use_table(&s, table, MC_RING_PARTS, 0); *driver_desc(&s.d, 0, 1) = *driver_desc(&s.d, 0, 0);
       set(&s, 0, s.data, 16, VRING_DESC_F_NEXT, 1), "a descriptor chain has too many elements")

/* 2.7.5.2: 33 buffers of 128 MiB each, all of them the same memory, which is never touched. */
TEST(ring_broken_too_long)
{
	struct setup s;
	const uint32_t length = 128u << 20;
	unsigned char *host = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t table;

	start(&s);
	CHECK(host != MAP_FAILED);
	s.d.memory.regions[s.d.memory.count++] = (struct mc_region){ 1ull << 32, length, host };
	table = driver_alloc(&s.d, 16 * 64);
	for (uint32_t n = 32; n <= 33; n++) {
		struct vring_desc *t = driver_at(&s.d, table, 16 * 64);

		use_table(&s, table, n, 0);
		for (uint32_t i = 0; i < n; i++)
			t[i].addr = 1ull << 32, t[i].len = length;
		driver_publish(&s.d, 0, 0);
		CHECK(take(&s) == (n == 32 ? 1 : -1));
	}
	munmap(host, length);
	check_broken(&s, "a descriptor chain is longer than 2^32 bytes");
}

/* ---- memory */

TEST(memory_finds_what_lies_in_one_region)
{
	static unsigned char low[64], high[32];
	const struct mc_memory m = { 2, { { 0x1000, sizeof(low), low }, { UINT64_MAX - 31, 32, high } } };

	CHECK(mc_memory_at(&m, 0x1000, 64) == low && mc_memory_at(&m, 0x103f, 1) == low + 63);
	CHECK(mc_memory_at(&m, UINT64_MAX - 31, 32) == high && mc_memory_at(&m, UINT64_MAX, 1) == high + 31);
	CHECK(!mc_memory_at(&m, 0x1000, 65) && !mc_memory_at(&m, 0xfff, 1) && !mc_memory_at(&m, 0x1040, 1));
	CHECK(!mc_memory_at(&m, 0x1001, UINT64_MAX) && !mc_memory_at(&m, UINT64_MAX, 2) && !mc_memory_at(&m, 0, 1));
}
