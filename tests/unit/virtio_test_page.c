/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_page.c: the page by which a guest reads the registers of a device itself.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#include "virtio_driver.h"
#include "virtio_test.h"

static const char CONFIG[] = "0123456789";
static const struct mc_virtio_type TYPE = {
	.name = "nothing", .id = 63, .nqueues = 3, .sizes = { 4, 256, 8 }, .config_size = 10,
};

/* Two equal devices; the registers of the first one are in a page. */
struct setup {
	struct driver d[2];
	struct mc_virtio v[2];
	_Alignas(4) unsigned char page[MC_VIRTIO_SIZE];
};

static void set_up(struct setup *s)
{
	memset(s->page, 0, sizeof(s->page));
	for (int i = 0; i < 2; i++) {
		driver_memory(&s->d[i], 0x10000);
		CHECK(mc_virtio_init(&s->v[i], &TYPE, &s->d[i].memory, CONFIG) == 0);
		s->d[i].v = &s->v[i];
	}
	mc_virtio_place(&s->v[0], s->page);
}

static void tear_down(struct setup *s)
{
	for (int i = 0; i < 2; i++) {
		mc_virtio_end(&s->v[i]);
		driver_free(&s->d[i]);
	}
}

/* The page has what exits of the other device give, and what those of this one do. */
static void check_page(struct setup *s)
{
	for (uint32_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset += 4) {
		uint32_t value;

		memcpy(&value, s->page + offset, sizeof(value));
		CHECK(value == driver_get(&s->d[1], offset) && value == driver_get(&s->d[0], offset));
	}
	CHECK(memcmp(s->page + VIRTIO_MMIO_CONFIG, CONFIG, TYPE.config_size) == 0);
	for (uint32_t i = VIRTIO_MMIO_CONFIG + TYPE.config_size; i < MC_VIRTIO_SIZE; i++)
		CHECK(s->page[i] == 0);
}

TEST(page_of_a_driver)
{
	static struct setup s;

	set_up(&s);
	check_page(&s);
	for (int i = 0; i < 2; i++)
		driver_start(&s.d[i], &s.v[i]);
	check_page(&s);
	CHECK(s.page[VIRTIO_MMIO_MAGIC_VALUE] == 'v' && s.page[VIRTIO_MMIO_DEVICE_ID] == 63);
	for (int i = 0; i < 2; i++)
		mc_virtio_interrupt(&s.v[i]);
	check_page(&s);
	CHECK(s.page[VIRTIO_MMIO_INTERRUPT_STATUS] == VIRTIO_MMIO_INT_VRING);
	for (int i = 0; i < 2; i++)
		mc_virtio_break(&s.v[i], NULL, "a rule");
	check_page(&s);
	CHECK(s.page[VIRTIO_MMIO_STATUS] & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(s.page[VIRTIO_MMIO_INTERRUPT_STATUS] == (VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG));
	for (int i = 0; i < 2; i++)
		driver_set(&s.d[i], VIRTIO_MMIO_STATUS, 0);
	check_page(&s);
	CHECK(s.page[VIRTIO_MMIO_STATUS] == 0 && s.page[VIRTIO_MMIO_INTERRUPT_STATUS] == 0);
	tear_down(&s);
}

TEST(page_after_any_write)
{
	static struct setup s;
	uint64_t random = 5;

	set_up(&s);
	for (int i = 0; i < 3000; i++) {
		const uint32_t offset = (uint32_t)(test_random(&random) % VIRTIO_MMIO_CONFIG & ~3u);
		const uint32_t value = (uint32_t)(test_random(&random) % 4);

		for (int device = 0; device < 2; device++) {
			if (i % 100 == 0)
				driver_negotiate(&s.d[device]);
			driver_set(&s.d[device], offset, value);
		}
		check_page(&s);
	}
	tear_down(&s);
}
