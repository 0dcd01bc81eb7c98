/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mmio.c: the registers of a virtio device (virtio 1.3, 4.2.2 MMIO Device Register Layout), its status (2.1), its
 * features (2.2) and its reset (2.4).
 *
 * The interrupt is edge-triggered: each event writes the irqfd, also if the driver has not acknowledged the one
 * before. The driver acknowledges first and looks at the rings then, so it sees what was used before the edge.
 */
#define _GNU_SOURCE
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <unistd.h>

#include "virtio/mmio.h"
#include "virtio/worker.h"

#define MAGIC 0x74726976 /* "virt" (4.2.2) */
#define VERSION 2
#define VENDOR 0x696e696d /* "mini" */
#define STOPPED (VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

int mc_virtio_init(struct mc_virtio *v, const struct mc_virtio_type *type, const struct mc_memory *memory,
		   const void *config)
{
	memset(v, 0, sizeof(*v));
	v->type = type;
	v->config = config;
	v->irq = v->alarm = v->broken_queue = -1;
	for (uint32_t i = 0; i < type->nqueues; i++) {
		v->kicks[i] = mc_event_new();
		if (v->kicks[i] < 0) {
			int error = v->kicks[i];

			while (i > 0)
				close(v->kicks[--i]);
			return error;
		}
		v->rings[i].memory = memory;
		v->rings[i].size_max = type->sizes[i];
	}
	pthread_mutex_init(&v->lock, NULL);
	return 0;
}

void mc_virtio_end(struct mc_virtio *v)
{
	for (uint32_t i = 0; i < v->type->nqueues; i++)
		close(v->kicks[i]);
	pthread_mutex_destroy(&v->lock);
}

/* ---- interrupts (4.2.3.4) */

static void raise_interrupt(struct mc_virtio *v, uint32_t event)
{
	__atomic_fetch_or(&v->interrupts, event, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&v->raised, 1, __ATOMIC_RELAXED);
	mc_event_signal(v->irq);
}

void mc_virtio_interrupt(struct mc_virtio *v)
{
	raise_interrupt(v, VIRTIO_MMIO_INT_VRING);
}

/* ---- rings, for the threads of the device */

int mc_virtio_is_running(const struct mc_virtio *v)
{
	return (v->status & (VIRTIO_CONFIG_S_DRIVER_OK | STOPPED)) == VIRTIO_CONFIG_S_DRIVER_OK;
}

void mc_virtio_break(struct mc_virtio *v, const struct mc_ring *ring, const char *why)
{
	if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	if (!v->broken) {
		v->broken_queue = ring ? (int)(ring - v->rings) : -1;
		v->broken = why;
	}
	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK) /* 2.1.2 */
		raise_interrupt(v, VIRTIO_MMIO_INT_CONFIG);
	mc_event_signal(v->alarm);
}

int mc_virtio_take(struct mc_virtio *v, struct mc_ring *ring, struct mc_chain *chain)
{
	int r = mc_virtio_is_running(v) ? mc_ring_take(ring, chain) : 0;

	if (r < 0)
		mc_virtio_break(v, ring, ring->broken);
	return r > 0;
}

void mc_virtio_give(struct mc_virtio *v, struct mc_ring *ring, const struct mc_chain *chain, uint32_t written)
{
	if (!mc_virtio_is_running(v))
		return;
	mc_ring_give(ring, chain, written);
	if (mc_ring_interrupts(ring))
		mc_virtio_interrupt(v);
}

/* ---- status */

static uint64_t offered(const struct mc_virtio *v)
{
	return v->type->features | 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
}

/* 2.2.2: a subset of what is offered; and 6.2: no device works without VIRTIO_F_VERSION_1 here. */
static int are_features_right(const struct mc_virtio *v)
{
	const uint64_t needed = v->type->needed | 1ull << VIRTIO_F_VERSION_1;

	return !v->features_beyond && !(v->features & ~offered(v)) && !(needed & ~v->features);
}

static void quiesce(struct mc_virtio *v)
{
	if (v->type->quiesce)
		v->type->quiesce(v);
}

static void reset(struct mc_virtio *v)
{
	v->status = 0;
	for (uint32_t i = 0; i < v->type->nqueues; i++)
		mc_ring_stop(&v->rings[i]);
	quiesce(v);
	if (v->type->reset)
		v->type->reset(v);
	for (uint32_t i = 0; i < v->type->nqueues; i++) {
		struct mc_ring *r = &v->rings[i];

		*r = (struct mc_ring){ .memory = r->memory, .size_max = r->size_max, .epoch = r->epoch };
	}
	v->features = 0;
	v->features_beyond = v->feature_word = v->driver_word = v->queue = 0;
	__atomic_store_n(&v->interrupts, 0, __ATOMIC_SEQ_CST); /* 4.2.2.1 */
}

/* The driver sets further bits; it cannot clear one but by a reset (2.1.1). */
static void write_status(struct mc_virtio *v, uint32_t value)
{
	uint32_t set = value & 0xff & ~v->status & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET;

	if (value == 0) {
		reset(v);
		return;
	}
	if ((set & VIRTIO_CONFIG_S_FEATURES_OK) && !are_features_right(v))
		set &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((v->status | set) & VIRTIO_CONFIG_S_FEATURES_OK))
		set &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK; /* 3.1.1 */
	v->status |= set;
	if (set & VIRTIO_CONFIG_S_DRIVER_OK) /* for buffers that are there already */
		for (uint32_t i = 0; i < v->type->nqueues; i++)
			mc_event_signal(v->kicks[i]);
}

/* ---- queues (4.2.3.2) */

static struct mc_ring *selected(struct mc_virtio *v)
{
	return v->queue < v->type->nqueues ? &v->rings[v->queue] : NULL;
}

static void set_low(uint64_t *address, uint32_t value)
{
	*address = (*address & 0xffffffff00000000u) | value;
}

static void set_high(uint64_t *address, uint32_t value)
{
	*address = (*address & 0xffffffffu) | (uint64_t)value << 32;
}

static void write_ready(struct mc_virtio *v, struct mc_ring *r, uint32_t value)
{
	if (!(value & 1)) {
		mc_ring_stop(r);
		quiesce(v); /* 4.2.2.2: the driver reads the register back, and reuses the buffers then */
		return;
	}
	r->indirect = (v->features & 1ull << VIRTIO_RING_F_INDIRECT_DESC) != 0;
	if (mc_ring_start(r) < 0)
		mc_virtio_break(v, r, r->broken);
}

/* A queue is set up between FEATURES_OK and DRIVER_OK (3.1.1), and while it is not ready (4.2.2.2); only to stop one is
 * possible later. */
static void write_queue(struct mc_virtio *v, uint64_t offset, uint32_t value)
{
	const uint32_t phase = v->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	struct mc_ring *r = selected(v);
	int is_stop = offset == VIRTIO_MMIO_QUEUE_READY && !(value & 1);

	if (!r || !(r->ready ? is_stop : phase == VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		r->size = value <= r->size_max ? (uint16_t)value : 0;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		write_ready(v, r, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		set_low(&r->descriptors, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_high(&r->descriptors, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		set_low(&r->driver, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_high(&r->driver, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		set_low(&r->device, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_high(&r->device, value);
		break;
	}
}

/* ---- registers */

/* The configuration space never changes, so it needs no lock, and ConfigGeneration is 0. */
static uint32_t read_config(const struct mc_virtio *v, uint64_t offset, uint32_t size)
{
	uint32_t value = 0;

	if (size > sizeof(value) || offset >= v->type->config_size || size > v->type->config_size - offset)
		return 0;
	memcpy(&value, (const char *)v->config + offset, size);
	return value;
}

static uint32_t read_register(struct mc_virtio *v, uint64_t offset)
{
	const struct mc_ring *r = selected(v);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return v->type->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return v->feature_word < 2 ? (uint32_t)(offered(v) >> 32 * v->feature_word) : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return r ? r->size_max : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return r ? r->ready : 0;
	case VIRTIO_MMIO_STATUS:
		return v->status;
	case VIRTIO_MMIO_SHM_LEN_LOW: /* there are no shared memory regions: -1 */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	default:
		return 0;
	}
}

static void write_register(struct mc_virtio *v, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		v->feature_word = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		v->driver_word = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (v->status & VIRTIO_CONFIG_S_FEATURES_OK)
			break;
		if (v->driver_word == 0)
			set_low(&v->features, value);
		else if (v->driver_word == 1)
			set_high(&v->features, value);
		else
			v->features_beyond |= value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		v->queue = value;
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(v, value);
		break;
	default:
		write_queue(v, offset, value);
		break;
	}
}

uint32_t mc_virtio_read(struct mc_virtio *v, uint64_t offset, uint32_t size)
{
	uint32_t value;

	if (offset >= VIRTIO_MMIO_CONFIG)
		return read_config(v, offset - VIRTIO_MMIO_CONFIG, size);
	if (size != 4) /* 4.2.2.2: registers are accessed by 32 bits, aligned */
		return 0;
	if (offset == VIRTIO_MMIO_INTERRUPT_STATUS)
		return __atomic_load_n(&v->interrupts, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&v->lock);
	value = read_register(v, offset);
	pthread_mutex_unlock(&v->lock);
	return value;
}

void mc_virtio_write(struct mc_virtio *v, uint64_t offset, uint32_t size, uint32_t value)
{
	if (size != 4 || offset >= VIRTIO_MMIO_CONFIG)
		return;
	if (offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
		if (value < v->type->nqueues)
			mc_event_signal(v->kicks[value]);
		return;
	}
	if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		__atomic_fetch_and(&v->interrupts, ~value, __ATOMIC_SEQ_CST);
		return;
	}
	pthread_mutex_lock(&v->lock);
	write_register(v, offset, value);
	pthread_mutex_unlock(&v->lock);
}
