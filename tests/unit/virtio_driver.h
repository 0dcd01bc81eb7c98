/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_driver.h: the driver's side of a virtio device, for tests: memory of a guest, the way from reset to DRIVER_OK
 * (virtio 1.3, 3.1.1) over mc_virtio_read and mc_virtio_write, and split virtqueues (2.7). No KVM is needed.
 *
 * What a sound driver does has functions; a test of a bad one writes to the rings itself (driver_desc, driver_avail).
 */
#ifndef VIRTIO_DRIVER_H
#define VIRTIO_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "virtio/memory.h"
#include "virtio/mmio.h"
#include "virtio_test.h"

#define DRIVER_BASE 0x100000ull /* the guest's memory begins here, so that small addresses are outside */
#define DRIVER_READY \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

struct driver_queue {
	uint16_t size, seen;           /* seen: used index */
	uint64_t desc, avail, used;
	unsigned char busy[MC_RING_SIZE];
};

struct driver {
	struct mc_virtio *v;
	struct mc_memory memory;
	uint64_t top;                  /* memory below it is allocated */
	struct driver_queue queues[MC_VIRTIO_QUEUES];
};

struct driver_buffer {
	uint64_t address;
	uint32_t length;
	int writable;
};

/* ---- memory */

/* Pages that are all the memory there is: the sanitizer or a fault ends the test at an access beyond. */
static inline void driver_memory(struct driver *d, uint64_t size)
{
	unsigned char *host = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(host != MAP_FAILED && mprotect(host + 4096, size, PROT_READ | PROT_WRITE) == 0);
	memset(d, 0, sizeof(*d));
	d->memory.count = 1;
	d->memory.regions[0] = (struct mc_region){ DRIVER_BASE, size, host + 4096 };
	d->top = DRIVER_BASE;
}

static inline void driver_free(struct driver *d)
{
	munmap(d->memory.regions[0].host - 4096, d->memory.regions[0].size + 8192);
}

static inline void *driver_at(const struct driver *d, uint64_t address, uint64_t size)
{
	void *host = mc_memory_at(&d->memory, address, size);

	CHECK(host);
	return host;
}

static inline uint64_t driver_alloc(struct driver *d, uint64_t size)
{
	uint64_t address = d->top;

	d->top += (size + 15) & ~15ull;
	driver_at(d, address, size);
	return address;
}

/* ---- registers */

static inline uint32_t driver_get(struct driver *d, uint32_t offset)
{
	return mc_virtio_read(d->v, offset, 4);
}

static inline void driver_set(struct driver *d, uint32_t offset, uint32_t value)
{
	mc_virtio_write(d->v, offset, 4, value);
}

static inline void driver_status(struct driver *d, uint32_t bits)
{
	driver_set(d, VIRTIO_MMIO_STATUS, driver_get(d, VIRTIO_MMIO_STATUS) | bits);
}

static inline uint64_t driver_offered(struct driver *d)
{
	uint64_t features;

	driver_set(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	features = (uint64_t)driver_get(d, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	driver_set(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return features | driver_get(d, VIRTIO_MMIO_DEVICE_FEATURES);
}

static inline void driver_accept(struct driver *d, uint64_t features)
{
	for (uint32_t word = 0; word < 2; word++) {
		driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
		driver_set(d, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * word));
	}
}

static inline void driver_address(struct driver *d, uint32_t low, uint64_t address)
{
	driver_set(d, low, (uint32_t)address);
	driver_set(d, low + 4, (uint32_t)(address >> 32));
}

/* 4.2.3.2. `size` 0: the largest. A queue that was set up before uses its memory again. */
static inline void driver_queue(struct driver *d, uint32_t index, uint16_t size)
{
	struct driver_queue *q = &d->queues[index];

	driver_set(d, VIRTIO_MMIO_QUEUE_SEL, index);
	CHECK(driver_get(d, VIRTIO_MMIO_QUEUE_READY) == 0);
	if (!q->desc) {
		q->size = size ? size : (uint16_t)driver_get(d, VIRTIO_MMIO_QUEUE_NUM_MAX);
		q->desc = driver_alloc(d, 16ull * q->size);
		q->avail = driver_alloc(d, 6 + 2ull * q->size);
		q->used = driver_alloc(d, 6 + 8ull * q->size);
	}
	memset(driver_at(d, q->avail, 4), 0, 4);
	memset(driver_at(d, q->used, 4), 0, 4);
	memset(q->busy, 0, sizeof(q->busy));
	q->seen = 0;
	driver_set(d, VIRTIO_MMIO_QUEUE_NUM, q->size);
	driver_address(d, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc);
	driver_address(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->avail);
	driver_address(d, VIRTIO_MMIO_QUEUE_USED_LOW, q->used);
	driver_set(d, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* 3.1.1, up to FEATURES_OK. */
static inline void driver_negotiate(struct driver *d)
{
	driver_set(d, VIRTIO_MMIO_STATUS, 0);
	driver_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_status(d, VIRTIO_CONFIG_S_DRIVER);
	driver_accept(d, driver_offered(d));
	driver_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
	CHECK(driver_get(d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK);
}

/* Resets the device `v` and brings it to DRIVER_OK, with all its queues. */
static inline void driver_start(struct driver *d, struct mc_virtio *v)
{
	d->v = v;
	driver_negotiate(d);
	for (uint32_t i = 0; i < v->type->nqueues; i++)
		driver_queue(d, i, 0);
	driver_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
	CHECK(driver_get(d, VIRTIO_MMIO_STATUS) == DRIVER_READY);
}

/* ---- queues */

static inline struct vring_desc *driver_desc(struct driver *d, uint32_t queue, uint32_t index)
{
	return (struct vring_desc *)driver_at(d, d->queues[queue].desc, 16ull * d->queues[queue].size) + index;
}

static inline struct vring_avail *driver_avail(struct driver *d, uint32_t queue)
{
	return driver_at(d, d->queues[queue].avail, 6 + 2ull * d->queues[queue].size);
}

static inline struct vring_used *driver_used_ring(struct driver *d, uint32_t queue)
{
	return driver_at(d, d->queues[queue].used, 6 + 8ull * d->queues[queue].size);
}

static inline struct vring_desc driver_element(const struct driver_buffer *b, int has_next, uint16_t next)
{
	uint16_t flags = (uint16_t)((b->writable ? VRING_DESC_F_WRITE : 0) | (has_next ? VRING_DESC_F_NEXT : 0));

	return (struct vring_desc){ b->address, b->length, flags, next };
}

/* Makes a chain available that begins at a descriptor. */
static inline void driver_publish(struct driver *d, uint32_t queue, uint16_t head)
{
	struct vring_avail *avail = driver_avail(d, queue);
	uint16_t index = avail->idx;

	avail->ring[index % d->queues[queue].size] = head;
	__atomic_store_n(&avail->idx, (uint16_t)(index + 1), __ATOMIC_RELEASE);
}

static inline void driver_kick(struct driver *d, uint32_t queue)
{
	driver_set(d, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

/* Notifies the device of what is available, if it wants that (2.7.10.1). */
static inline void driver_notify(struct driver *d, uint32_t queue)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(__atomic_load_n(&driver_used_ring(d, queue)->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY))
		driver_kick(d, queue);
}

static inline int driver_free_descriptor(struct driver_queue *q)
{
	for (int i = 0; i < q->size; i++)
		if (!q->busy[i]) {
			q->busy[i] = 1;
			return i;
		}
	return -1;
}

/* Adds a chain, and notifies the device if it wants that. Returns its head; -1: the table is full. */
static inline int driver_add(struct driver *d, uint32_t queue, const struct driver_buffer *buffers, int n)
{
	int at[MC_RING_SIZE];

	for (int i = 0; i < n; i++) {
		at[i] = driver_free_descriptor(&d->queues[queue]);
		if (at[i] < 0) {
			while (i > 0)
				d->queues[queue].busy[at[--i]] = 0;
			return -1;
		}
	}
	for (int i = 0; i < n; i++)
		*driver_desc(d, queue, (uint32_t)at[i]) =
			driver_element(&buffers[i], i + 1 < n, i + 1 < n ? (uint16_t)at[i + 1] : 0);
	driver_publish(d, queue, (uint16_t)at[0]);
	driver_notify(d, queue);
	return at[0];
}

/* The same by one descriptor, which refers to a table at `table`. */
static inline int driver_add_indirect(struct driver *d, uint32_t queue, uint64_t table,
				      const struct driver_buffer *buffers, int n)
{
	struct vring_desc *t = driver_at(d, table, 16ull * (uint64_t)n);
	int head = driver_free_descriptor(&d->queues[queue]);

	if (head < 0)
		return -1;
	for (int i = 0; i < n; i++)
		t[i] = driver_element(&buffers[i], i + 1 < n, (uint16_t)(i + 1));
	*driver_desc(d, queue, (uint32_t)head) =
		(struct vring_desc){ table, (uint32_t)(16 * n), VRING_DESC_F_INDIRECT, 0 };
	driver_publish(d, queue, (uint16_t)head);
	driver_kick(d, queue);
	return head;
}

/* The next used chain, whose descriptors are free then. Returns 1, or 0: there is none. */
static inline int driver_used(struct driver *d, uint32_t queue, struct vring_used_elem *element)
{
	struct driver_queue *q = &d->queues[queue];
	struct vring_used *used = driver_used_ring(d, queue);
	uint32_t i;

	if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == q->seen)
		return 0;
	*element = used->ring[q->seen++ % q->size];
	CHECK(element->id < q->size && q->busy[element->id]);
	for (i = element->id; driver_desc(d, queue, i)->flags & VRING_DESC_F_NEXT; i = driver_desc(d, queue, i)->next)
		q->busy[i] = 0;
	q->busy[i] = 0;
	return 1;
}

/* Waits for it; the test's alarm ends a wait that is too long. */
static inline struct vring_used_elem driver_wait(struct driver *d, uint32_t queue)
{
	struct vring_used_elem element;

	until(driver_used(d, queue, &element));
	return element;
}

#endif
