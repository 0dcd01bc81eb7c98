/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_fuzz.c: no ring whatever makes its reader touch anything outside the guest's memory, hang or crash; it is
 * taken, or ends with a reason.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "virtio_fuzz.h"

TEST(fuzz_rings)
{
	struct mc_memory m;
	struct mc_ring r;
	struct mc_chain *c = malloc(sizeof(*c));
	uint32_t refused = 0, broken = 0, sound = 0, taken = 0;

	make_memory(&m);
	for (int i = 0; i < 20000; i++) {
		some_ring(&r, &m);
		fill(&m, &r);
		if (mc_ring_start(&r) < 0) {
			CHECK(r.broken && !r.ready);
			refused++;
			continue;
		}
		taken += use(&r, c);
		*(r.broken ? &broken : &sound) += 1;
	}
	CHECK(refused > 200 && broken > 2000 && sound > 200 && taken > 10000);
	free_memory(&m);
	free(c);
}

/* ---- memory that changes meanwhile */

struct changer {
	const struct mc_memory *memory;
	int stop;
	pthread_t thread;
};

static void *change(void *argument)
{
	struct changer *changer = argument;
	uint64_t state = 9;

	while (!__atomic_load_n(&changer->stop, __ATOMIC_RELAXED)) {
		uint64_t value = test_random(&state), at = value >> 20;
		unsigned char *host = changer->memory->regions[at % 2].host;

		__atomic_store_n(host + at / 2 % SIZE, (unsigned char)value, __ATOMIC_RELAXED);
	}
	return NULL;
}

TEST(fuzz_changing_rings)
{
	struct mc_memory m;
	struct changer changer = { .memory = &m };
	struct mc_ring r;
	struct mc_chain *c = malloc(sizeof(*c));

	make_memory(&m);
	CHECK(pthread_create(&changer.thread, NULL, change, &changer) == 0);
	for (int i = 0; i < 10000; i++) {
		some_ring(&r, &m);
		fill(&m, &r);
		if (mc_ring_start(&r) == 0)
			use(&r, c);
	}
	__atomic_store_n(&changer.stop, 1, __ATOMIC_RELAXED);
	CHECK(pthread_join(changer.thread, NULL) == 0);
	free_memory(&m);
	free(c);
}
