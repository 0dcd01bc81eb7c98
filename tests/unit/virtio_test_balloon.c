/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_balloon.c: the memory balloon device (virtio 1.3, 5.5): what is reported is gone, and nothing else.
 */
#define _GNU_SOURCE
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>

#include "virtio/balloon.h"
#include "virtio_driver.h"

#define INFLATE 0
#define REPORTING 2
#define PAGE 4096ull
#define PAGES 64u
#define FREED (DRIVER_BASE + (1 << 20)) /* the pages that are reported; rings lie below */

struct setup {
	struct driver d;
	struct mc_balloon *balloon;
};

static void set_up(struct setup *s)
{
	memset(s, 0, sizeof(*s));
	driver_memory(&s->d, 2 << 20);
	s->balloon = mc_balloon_new(&s->d.memory);
	CHECK(s->balloon && mc_balloon_start(s->balloon) == 0);
	driver_start(&s->d, mc_balloon_virtio(s->balloon));
	memset(driver_at(&s->d, FREED, PAGES * PAGE), 'x', PAGES * PAGE);
}

static void tear_down(struct setup *s)
{
	mc_balloon_free(s->balloon);
	driver_free(&s->d);
}

static struct vring_used_elem send(struct setup *s, uint32_t queue, const struct driver_buffer *buffers, int n)
{
	CHECK(driver_add(&s->d, queue, buffers, n) >= 0);
	return driver_wait(&s->d, queue);
}

static int is_resident(const struct setup *s, uint32_t page)
{
	unsigned char resident = 0;

	CHECK(mincore(driver_at(&s->d, FREED + page * PAGE, PAGE), PAGE, &resident) == 0);
	return resident & 1;
}

static int is_kept(const struct setup *s, uint32_t page)
{
	const char *data = driver_at(&s->d, FREED + page * PAGE, PAGE);

	return data[0] == 'x' && data[PAGE - 1] == 'x';
}

static int is_gone(const struct setup *s, uint32_t page)
{
	const char *data = driver_at(&s->d, FREED + page * PAGE, PAGE);

	return !is_resident(s, page) && data[0] == 0 && data[PAGE - 1] == 0;
}

TEST(balloon_config)
{
	struct setup s;

	set_up(&s);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_BALLOON);
	CHECK((driver_offered(&s.d) & 0xffffff) == 1u << VIRTIO_BALLOON_F_REPORTING);
	driver_set(&s.d, VIRTIO_MMIO_CONFIG + 4, 7); /* `actual`, which Linux writes: it is not kept */
	for (uint32_t at = 0; at < 16; at += 4)
		CHECK(driver_get(&s.d, VIRTIO_MMIO_CONFIG + at) == 0);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, REPORTING);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_NUM_MAX) >= 32);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, REPORTING + 1);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0);
	tear_down(&s);
}

TEST(balloon_gives_back_what_is_reported)
{
	struct setup s;
	struct driver_buffer b[8];

	set_up(&s);
	for (uint32_t i = 0; i < 8; i++)
		b[i] = (struct driver_buffer){ FREED + 4 * i * PAGE, (uint32_t)PAGE, 1 };
	CHECK(is_resident(&s, 0) && send(&s, REPORTING, b, 8).len == 0);
	for (uint32_t page = 0; page < PAGES; page++)
		CHECK(page % 4 == 0 && page < 32 ? is_gone(&s, page) : is_kept(&s, page));
	*(char *)driver_at(&s.d, FREED, 1) = 'y'; /* the guest uses it again */
	CHECK(is_resident(&s, 0));
	until(__atomic_load_n(&s.d.v->raised, __ATOMIC_SEQ_CST) == 1);
	tear_down(&s);
}

/* Only a page that lies wholly in a buffer is free. */
TEST(balloon_keeps_parts_of_pages)
{
	struct setup s;
	const struct driver_buffer b[] = {
		{ FREED + 1, (uint32_t)(3 * PAGE) - 2, 1 }, /* pages 0 to 2, without the ends of 0 and 2 */
		{ FREED + 4 * PAGE + 8, 100, 1 },
		{ FREED + 6 * PAGE, (uint32_t)PAGE - 1, 1 },
	};

	set_up(&s);
	CHECK(send(&s, REPORTING, b, 3).len == 0);
	for (uint32_t page = 0; page < 8; page++)
		CHECK(page == 1 ? is_gone(&s, page) : is_kept(&s, page));
	tear_down(&s);
}

TEST(balloon_does_not_read_reports)
{
	struct setup s;
	const struct driver_buffer b[] = { { FREED, (uint32_t)PAGE, 0 }, { FREED + PAGE, (uint32_t)PAGE, 1 } };

	set_up(&s);
	CHECK(driver_add(&s.d, REPORTING, b, 2) >= 0);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(strcmp(s.d.v->broken, "a reported buffer is not for the device to write") == 0);
	CHECK(s.d.v->broken_queue == REPORTING && is_kept(&s, 0) && is_kept(&s, 1));
	tear_down(&s);
}

TEST(balloon_reports_beyond_memory)
{
	struct setup s;
	const struct driver_buffer b = { FREED + (1 << 20) - PAGE, (uint32_t)(2 * PAGE), 1 };

	set_up(&s);
	CHECK(driver_add(&s.d, REPORTING, &b, 1) >= 0);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(s.d.v->broken_queue == REPORTING && is_kept(&s, 0));
	tear_down(&s);
}

/* It asks for no page; one that a driver puts into the balloon all the same stays as it is. */
TEST(balloon_takes_no_page)
{
	struct setup s;
	const uint32_t number = FREED >> VIRTIO_BALLOON_PFN_SHIFT;
	const struct driver_buffer b = { FREED + PAGE, sizeof(number), 0 };

	set_up(&s);
	memcpy(driver_at(&s.d, b.address, sizeof(number)), &number, sizeof(number));
	CHECK(send(&s, INFLATE, &b, 1).len == 0);
	CHECK(is_kept(&s, 0));
	tear_down(&s);
}

TEST(balloon_after_a_reset)
{
	struct setup s;
	const struct driver_buffer b = { FREED, (uint32_t)PAGE, 1 };

	set_up(&s);
	driver_set(&s.d, VIRTIO_MMIO_STATUS, 0);
	driver_publish(&s.d, REPORTING, 0);
	driver_kick(&s.d, REPORTING);
	driver_start(&s.d, s.d.v);
	CHECK(is_kept(&s, 0) && send(&s, REPORTING, &b, 1).len == 0 && is_gone(&s, 0));
	tear_down(&s);
}

TEST(balloon_stops)
{
	struct setup s;
	const struct driver_buffer b = { FREED, (uint32_t)PAGE, 1 };

	set_up(&s);
	mc_balloon_stop(s.balloon);
	mc_balloon_stop(s.balloon);
	CHECK(driver_add(&s.d, REPORTING, &b, 1) >= 0);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == DRIVER_READY && is_kept(&s, 0));
	tear_down(&s);
}
