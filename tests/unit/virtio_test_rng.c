/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_rng.c: the entropy device (virtio 1.3, 5.4).
 */
#include <linux/virtio_ids.h>

#include "virtio/rng.h"
#include "virtio_driver.h"

struct setup {
	struct driver d;
	struct mc_rng *device;
};

static void set_up(struct setup *s)
{
	memset(s, 0, sizeof(*s));
	driver_memory(&s->d, 1 << 20);
	s->device = mc_rng_new(&s->d.memory);
	CHECK(s->device && mc_rng_start(s->device) == 0);
	driver_start(&s->d, mc_rng_virtio(s->device));
}

static void tear_down(struct setup *s)
{
	mc_rng_free(s->device);
	driver_free(&s->d);
}

/* Asks for bytes in two elements; how many came. */
static uint32_t ask(struct setup *s, uint64_t at, uint32_t first, uint32_t second)
{
	const struct driver_buffer b[2] = { { at, first, 1 }, { at + first, second, 1 } };

	memset(driver_at(&s->d, at, first + second), 0, first + second);
	CHECK(driver_add(&s->d, 0, b, 2) >= 0);
	return driver_wait(&s->d, 0).len;
}

TEST(rng_fills_buffers)
{
	struct setup s;
	unsigned char zeros[64] = { 0 }, before[64];
	uint64_t at;

	set_up(&s);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_RNG);
	CHECK(mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG, 4) == 0);
	at = driver_alloc(&s.d, 64);
	CHECK(ask(&s, at, 5, 59) == 64);
	memcpy(before, driver_at(&s.d, at, 64), 64);
	CHECK(memcmp(before, zeros, 5) != 0 && memcmp(before + 5, zeros, 59) != 0);
	CHECK(ask(&s, at, 63, 1) == 64 && memcmp(before, driver_at(&s.d, at, 64), 64) != 0);
	tear_down(&s);
}

TEST(rng_gives_a_long_buffer_so_many_bytes)
{
	struct setup s;
	unsigned char *bytes;
	uint64_t at;

	set_up(&s);
	at = driver_alloc(&s.d, 100000);
	CHECK(ask(&s, at, 99999, 1) == MC_RNG_MOST);
	bytes = driver_at(&s.d, at, 100000);
	for (uint32_t i = MC_RNG_MOST; i < 100000; i++)
		CHECK(bytes[i] == 0);
	tear_down(&s);
}

/* 5.4.6.1: the driver must not place device-readable buffers. */
TEST(rng_reads_no_buffer)
{
	struct setup s;
	struct driver_buffer b;

	set_up(&s);
	b = (struct driver_buffer){ driver_alloc(&s.d, 16), 16, 0 };
	CHECK(driver_add(&s.d, 0, &b, 1) >= 0);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(strcmp(s.d.v->broken, "a buffer for random bytes is device-readable") == 0 && s.d.v->broken_queue == 0);
	memset(s.d.queues, 0, sizeof(s.d.queues));
	driver_start(&s.d, s.d.v);
	CHECK(ask(&s, driver_alloc(&s.d, 16), 8, 8) == 16);
	tear_down(&s);
}
