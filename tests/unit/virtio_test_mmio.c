/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_mmio.c: the registers of a device (virtio 1.3, 4.2.2), with a device that does nothing.
 */
#define _GNU_SOURCE
#include <sys/eventfd.h>

#include "virtio/worker.h"
#include "virtio_driver.h"

#define FEATURE 5
#define REQUIRED (1ull << FEATURE | 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC)

static int resets, quiesces;

static void count_reset(struct mc_virtio *v)
{
	CHECK(v->status == 0 && !v->rings[0].ready);
	resets++;
}

static void count_quiesce(struct mc_virtio *v)
{
	(void)v;
	quiesces++;
}

static const char CONFIG[] = "0123456789";
static const struct mc_virtio_type TYPE = {
	.name = "nothing", .id = 63, .nqueues = 3, .sizes = { 4, 256, 8 }, .features = 1 << FEATURE,
	.config_size = 10, .quiesce = count_quiesce, .reset = count_reset,
};

struct setup {
	struct driver d;
	struct mc_virtio v;
};

static void set_up(struct setup *s)
{
	driver_memory(&s->d, 0x10000);
	CHECK(mc_virtio_init(&s->v, &TYPE, &s->d.memory, CONFIG) == 0);
	s->d.v = &s->v;
	resets = quiesces = 0;
}

static void tear_down(struct setup *s)
{
	mc_virtio_end(&s->v);
	driver_free(&s->d);
}

static int is_readable(int fd)
{
	eventfd_t count;

	return eventfd_read(fd, &count) == 0;
}

/* ---- identity and features */

TEST(mmio_identity)
{
	struct setup s;

	set_up(&s);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_VERSION) == 2);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == 63);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_VENDOR_ID) != 0);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == 0);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_CONFIG_GENERATION) == 0);
	for (uint32_t id = 0; id < 3; id++) { /* 4.2.2: regions that do not exist */
		driver_set(&s.d, VIRTIO_MMIO_SHM_SEL, id);
		for (uint32_t offset = VIRTIO_MMIO_SHM_LEN_LOW; offset <= VIRTIO_MMIO_SHM_BASE_HIGH; offset += 4)
			CHECK(driver_get(&s.d, offset) == UINT32_MAX);
	}
	tear_down(&s);
}

TEST(mmio_features_offered)
{
	struct setup s;

	set_up(&s);
	CHECK(driver_offered(&s.d) == REQUIRED);
	driver_set(&s.d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_FEATURES) == 0);
	tear_down(&s);
}

/* Whether FEATURES_OK stays after a driver that accepts these features (2.2.2). */
static int accepts(struct setup *s, uint64_t features, uint32_t beyond)
{
	driver_set(&s->d, VIRTIO_MMIO_STATUS, 0);
	driver_status(&s->d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	driver_accept(&s->d, features);
	driver_set(&s->d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	driver_set(&s->d, VIRTIO_MMIO_DRIVER_FEATURES, beyond);
	driver_status(&s->d, VIRTIO_CONFIG_S_FEATURES_OK);
	return (driver_get(&s->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK) != 0;
}

TEST(mmio_features_negotiated)
{
	struct setup s;

	set_up(&s);
	CHECK(accepts(&s, REQUIRED, 0));
	CHECK(s.v.features == REQUIRED);
	driver_accept(&s.d, 0);
	CHECK(s.v.features == REQUIRED); /* too late */
	CHECK(accepts(&s, 1ull << VIRTIO_F_VERSION_1, 0));
	CHECK(!accepts(&s, 0, 0));
	CHECK(!accepts(&s, 1ull << FEATURE, 0));
	CHECK(!accepts(&s, REQUIRED | 1ull << VIRTIO_RING_F_EVENT_IDX, 0));
	CHECK(!accepts(&s, REQUIRED | 1ull << VIRTIO_F_RING_PACKED, 0));
	CHECK(!accepts(&s, REQUIRED, 1));
	tear_down(&s);
}

TEST(mmio_without_indirect_descriptors)
{
	struct setup s;

	set_up(&s);
	CHECK(accepts(&s, 1ull << VIRTIO_F_VERSION_1, 0));
	driver_queue(&s.d, 0, 0);
	CHECK(s.v.rings[0].ready && !s.v.rings[0].indirect);
	driver_negotiate(&s.d);
	driver_queue(&s.d, 0, 0);
	CHECK(s.v.rings[0].ready && s.v.rings[0].indirect);
	tear_down(&s);
}

/* ---- status */

TEST(mmio_status)
{
	struct setup s;

	set_up(&s);
	driver_status(&s.d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER));
	driver_set(&s.d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_NEEDS_RESET | 0xffffff00);
	driver_set(&s.d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER));
	CHECK(!mc_virtio_is_running(&s.v) && resets == 0);
	driver_start(&s.d, &s.v);
	CHECK(mc_virtio_is_running(&s.v) && resets == 1 && quiesces == 1);
	for (uint32_t i = 0; i < TYPE.nqueues; i++) /* what was available before is looked at */
		CHECK(is_readable(s.v.kicks[i]));
	driver_status(&s.d, VIRTIO_CONFIG_S_FAILED);
	CHECK(!mc_virtio_is_running(&s.v));
	tear_down(&s);
}

TEST(mmio_reset)
{
	struct setup s;
	uint32_t epoch;

	set_up(&s);
	driver_start(&s.d, &s.v);
	mc_virtio_interrupt(&s.v);
	epoch = s.v.rings[1].epoch;
	driver_set(&s.d, VIRTIO_MMIO_STATUS, 0);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == 0 && resets == 2 && quiesces == 2);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	CHECK(s.v.features == 0 && s.v.rings[1].epoch != epoch && s.v.rings[1].descriptors == 0);
	for (uint32_t i = 0; i < TYPE.nqueues; i++) {
		driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, i);
		CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_READY) == 0);
		CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_NUM_MAX) == TYPE.sizes[i]);
	}
	driver_start(&s.d, &s.v);
	tear_down(&s);
}

/* ---- queues */

TEST(mmio_queues)
{
	struct setup s;
	struct mc_ring *r = &s.v.rings[2];

	set_up(&s);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, 2);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_NUM, 8);
	CHECK(r->size == 0); /* not before FEATURES_OK */
	driver_negotiate(&s.d);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, 2);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_NUM_MAX) == 8);
	driver_queue(&s.d, 2, 4);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_READY) == 1 && r->size == 4);
	CHECK(r->descriptors == s.d.queues[2].desc && r->driver == s.d.queues[2].avail);
	CHECK(r->device == s.d.queues[2].used);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_NUM, 8);
	driver_address(&s.d, VIRTIO_MMIO_QUEUE_DESC_LOW, 0xabcdef0012345670);
	CHECK(r->size == 4 && r->descriptors == s.d.queues[2].desc); /* not while it is ready */
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 0);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_READY) == 0 && quiesces == 2);
	driver_address(&s.d, VIRTIO_MMIO_QUEUE_DESC_LOW, 0xabcdef0012345670);
	driver_address(&s.d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x0123456789abcdef);
	driver_address(&s.d, VIRTIO_MMIO_QUEUE_USED_LOW, 0xfedcba9876543210);
	CHECK(r->descriptors == 0xabcdef0012345670 && r->driver == 0x0123456789abcdef);
	CHECK(r->device == 0xfedcba9876543210);
	tear_down(&s);
}

TEST(mmio_queue_that_does_not_exist)
{
	struct setup s;

	set_up(&s);
	driver_negotiate(&s.d);
	for (uint32_t i = 3; i != 2; i = i < 20 ? i + 1 : i == 20 ? UINT32_MAX : 2) {
		driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, i);
		driver_set(&s.d, VIRTIO_MMIO_QUEUE_NUM, 4);
		driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 1);
		CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0);
		CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_READY) == 0);
		driver_set(&s.d, VIRTIO_MMIO_QUEUE_NOTIFY, i);
	}
	CHECK(!s.v.broken);
	tear_down(&s);
}

/* From DRIVER_OK on a queue can be stopped, and nothing else. */
TEST(mmio_queue_of_a_running_device)
{
	struct setup s;

	set_up(&s);
	driver_start(&s.d, &s.v);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 0);
	CHECK(!s.v.rings[0].ready && s.v.rings[1].ready);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_NUM, 2);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 1);
	CHECK(!s.v.rings[0].ready && s.v.rings[0].size == 4 && mc_virtio_is_running(&s.v));
	tear_down(&s);
}

TEST(mmio_bad_queue_breaks)
{
	struct setup s;

	set_up(&s);
	driver_negotiate(&s.d);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, 1);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_NUM, 0x10004); /* no 4 */
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 1);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_READY) == 0);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == 0); /* 2.1.2: not before DRIVER_OK */
	CHECK(s.v.broken_queue == 1 && strcmp(s.v.broken, "its size is not a power of two up to its maximum") == 0);
	tear_down(&s);
}

/* ---- notifications and interrupts */

TEST(mmio_notifications)
{
	struct setup s;

	set_up(&s);
	driver_kick(&s.d, 1);
	driver_kick(&s.d, 1);
	CHECK(!is_readable(s.v.kicks[0]) && is_readable(s.v.kicks[1]) && !is_readable(s.v.kicks[2]));
	mc_event_clear(s.v.kicks[1]);
	driver_kick(&s.d, 0x10001); /* without VIRTIO_F_NOTIFICATION_DATA all of it is the index */
	CHECK(!is_readable(s.v.kicks[1]));
	tear_down(&s);
}

TEST(mmio_interrupts)
{
	struct setup s;
	eventfd_t count;

	set_up(&s);
	s.v.irq = mc_event_new();
	mc_virtio_interrupt(&s.v);
	mc_virtio_interrupt(&s.v);
	CHECK(eventfd_read(s.v.irq, &count) == 0 && count == 2 && s.v.raised == 2);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
	driver_set(&s.d, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
	driver_set(&s.d, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	close(s.v.irq);
	tear_down(&s);
}

/* A thread of a virtual CPU that handles an interrupt does not wait for the lock. */
TEST(mmio_interrupt_registers_take_no_lock)
{
	struct setup s;

	set_up(&s);
	pthread_mutex_lock(&s.v.lock);
	mc_virtio_interrupt(&s.v);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
	driver_set(&s.d, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	driver_kick(&s.d, 0);
	CHECK(is_readable(s.v.kicks[0]) && mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG, 1) == '0');
	pthread_mutex_unlock(&s.v.lock);
	tear_down(&s);
}

TEST(mmio_break)
{
	struct setup s;

	set_up(&s);
	s.v.alarm = mc_event_new();
	driver_start(&s.d, &s.v);
	CHECK(!s.v.broken && s.v.broken_queue == -1);
	mc_virtio_break(&s.v, &s.v.rings[2], "first");
	mc_virtio_break(&s.v, NULL, "second");
	CHECK(strcmp(s.v.broken, "first") == 0 && s.v.broken_queue == 2 && is_readable(s.v.alarm));
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == (DRIVER_READY | VIRTIO_CONFIG_S_NEEDS_RESET));
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_CONFIG);
	CHECK(!mc_virtio_is_running(&s.v) && s.v.raised == 1);
	driver_start(&s.d, &s.v); /* it works again, and tells what there was */
	CHECK(mc_virtio_is_running(&s.v) && strcmp(s.v.broken, "first") == 0);
	mc_virtio_break(&s.v, NULL, "third");
	CHECK(strcmp(s.v.broken, "first") == 0 && is_readable(s.v.alarm));
	close(s.v.alarm);
	tear_down(&s);
}

/* ---- accesses that the layout does not have */

TEST(mmio_config)
{
	struct setup s;

	set_up(&s);
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG, 1) == '0');
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG + 3, 2) == ('3' | '4' << 8));
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG + 4, 4) == ('4' | '5' << 8 | '6' << 16 | '7' << 24));
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG + 9, 1) == '9');
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG + 9, 2) == 0);
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG + 10, 1) == 0);
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG, 8) == 0);
	CHECK(mc_virtio_read(&s.v, UINT64_MAX - 3, 4) == 0);
	mc_virtio_write(&s.v, VIRTIO_MMIO_CONFIG, 1, 'x');
	CHECK(mc_virtio_read(&s.v, VIRTIO_MMIO_CONFIG, 1) == '0');
	tear_down(&s);
}

/* Every offset and size, at each stage of a driver: what is not 32 bits wide does nothing. */
TEST(mmio_wrong_sizes_and_offsets)
{
	static const uint32_t sizes[] = { 0, 1, 2, 3, 5, 8, 16, 4096, UINT32_MAX };
	struct setup s;

	set_up(&s);
	driver_start(&s.d, &s.v);
	for (uint64_t offset = 0; offset < 2 * MC_VIRTIO_SIZE; offset++) {
		for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			if (offset < VIRTIO_MMIO_CONFIG)
				CHECK(mc_virtio_read(&s.v, offset, sizes[i]) == 0);
			else
				mc_virtio_read(&s.v, offset, sizes[i]);
			mc_virtio_write(&s.v, offset, sizes[i], 0);
		}
		if (offset % 4) {
			CHECK(mc_virtio_read(&s.v, offset, 4) == 0 || offset >= VIRTIO_MMIO_CONFIG);
			mc_virtio_write(&s.v, offset, 4, 0);
		}
	}
	CHECK(mc_virtio_is_running(&s.v) && s.v.features == REQUIRED && s.v.rings[1].size == 256);
	tear_down(&s);
}

/* Any 32-bit write at any offset: the device stays one, and a reset brings it back. */
TEST(mmio_any_write)
{
	uint64_t random = 3;
	struct setup s;

	set_up(&s);
	for (int i = 0; i < 100000; i++) {
		if (i % 100 == 0)
			driver_negotiate(&s.d);
		driver_set(&s.d, (uint32_t)(test_random(&random) % 0x120 & ~3u),
			   (uint32_t)(test_random(&random) >> test_random(&random) % 64));
		driver_get(&s.d, (uint32_t)(test_random(&random) % 0x120));
	}
	driver_start(&s.d, &s.v);
	CHECK(mc_virtio_is_running(&s.v));
	tear_down(&s);
}
