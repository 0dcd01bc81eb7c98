/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mmio.h: a virtio device behind its memory-mapped registers (virtio 1.3, 4.2 Virtio Over MMIO).
 *
 * The threads of virtual CPUs call mc_virtio_read and mc_virtio_write for accesses to the device's page. The threads
 * of the device take chains of the rings and give them back. `lock` protects all that both use. Three registers are
 * accessed without it, since the driver uses them all the time: QueueNotify (an eventfd, which KVM_IOEVENTFD writes
 * without an exit), InterruptStatus and InterruptACK (an atomic word).
 */
#ifndef MC_VIRTIO_MMIO_H
#define MC_VIRTIO_MMIO_H

#include <pthread.h>
#include <stdint.h>

#include "virtio/memory.h"
#include "virtio/ring.h"

#define MC_VIRTIO_SIZE 4096 /* bytes of a device's page */
#define MC_VIRTIO_QUEUES 16

struct mc_virtio;

struct mc_virtio_type {
	const char *name;
	uint32_t id;             /* VIRTIO_ID_* */
	uint32_t nqueues;
	uint16_t sizes[MC_VIRTIO_QUEUES]; /* the largest size of each queue */
	uint64_t features;       /* bits of the device type; those of transport and rings are mmio.c's */
	uint64_t needed;         /* those of them that the driver has to accept */
	uint32_t config_size;    /* bytes of the configuration space, which the driver can read only */
	/* Returns when no thread of the device writes to buffers of stopped rings any more; or NULL. `lock` is held,
	 * and may be released meanwhile. */
	void (*quiesce)(struct mc_virtio *virtio);
	/* The driver has reset the device: forgets what it has told; or NULL. `lock` is held. */
	void (*reset)(struct mc_virtio *virtio);
};

struct mc_virtio {
	const struct mc_virtio_type *type;
	const void *config;
	/* An eventfd for each queue, readable after an available buffer notification. For KVM_IOEVENTFD: address that
	 * of the page + VIRTIO_MMIO_QUEUE_NOTIFY, 4 bytes, datamatch the queue's index. */
	int kicks[MC_VIRTIO_QUEUES];
	int irq;                 /* eventfd of KVM_IRQFD, or -1; the caller's, set before the device starts */
	int alarm;               /* eventfd that is written when the device breaks, or -1; the same */
	uint32_t interrupts;     /* atomic: InterruptStatus */
	uint64_t raised;         /* atomic: how often the interrupt was raised */
	pthread_mutex_t lock;    /* of everything below */
	uint32_t status;         /* VIRTIO_CONFIG_S_* */
	uint32_t feature_word;   /* DeviceFeaturesSel, DriverFeaturesSel, QueueSel */
	uint32_t driver_word;
	uint32_t queue;
	uint64_t features;       /* the driver's; negotiated from FEATURES_OK on */
	uint32_t features_beyond; /* the driver has set a bit above 63: none is offered */
	const char *broken;      /* why the device needed a reset for the first time, or NULL; never cleared */
	int broken_queue;        /* the queue with the broken ring, or -1 */
	struct mc_ring rings[MC_VIRTIO_QUEUES];
};

/* `config` has to outlive the device. Returns 0, or -errno. */
int mc_virtio_init(struct mc_virtio *virtio, const struct mc_virtio_type *type, const struct mc_memory *memory,
		   const void *config);

/* Nothing uses the device any more. */
void mc_virtio_end(struct mc_virtio *virtio);

/* An access of the driver to the device's page. What the layout does not have reads as 0, and ignores a write. */
uint32_t mc_virtio_read(struct mc_virtio *virtio, uint64_t offset, uint32_t size);
void mc_virtio_write(struct mc_virtio *virtio, uint64_t offset, uint32_t size, uint32_t value);

/* ---- for the threads of devices, with `lock` held */

/* Whether rings may be used: from DRIVER_OK on, until the device breaks or is reset. */
int mc_virtio_is_running(const struct mc_virtio *virtio);

/* mc_ring_take of a running device; a broken ring breaks the device. Returns 1, or 0: there is no chain. */
int mc_virtio_take(struct mc_virtio *virtio, struct mc_ring *ring, struct mc_chain *chain);

/* mc_ring_give, and the used buffer notification. */
void mc_virtio_give(struct mc_virtio *virtio, struct mc_ring *ring, const struct mc_chain *chain, uint32_t written);

/* DEVICE_NEEDS_RESET, since the driver has broken a rule; `why` is a literal. */
void mc_virtio_break(struct mc_virtio *virtio, const struct mc_ring *ring, const char *why);

/* ---- for all threads, always */

/* A used buffer notification. */
void mc_virtio_interrupt(struct mc_virtio *virtio);

#endif
