/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * rng.c: an entropy device (virtio 1.3, 5.4).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "virtio/rng.h"
#include "virtio/server.h"

struct mc_rng {
	struct mc_server server;
};

static const struct mc_virtio_type TYPE = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.nqueues = 1,
	.sizes = { 16 },
	.quiesce = mc_server_quiesce,
};
static const uint32_t THREADS[] = { 1 };

/* The first bytes of a buffer: the driver takes as many as there are (5.4.6). The host's generator has long been
 * initialized, so getrandom(2) neither waits nor fails. */
static const char *answer(struct mc_server *server, const struct mc_chain *c, uint32_t *written)
{
	const size_t size = c->writable < MC_RNG_MOST ? (size_t)c->writable : MC_RNG_MOST;
	unsigned char bytes[MC_RNG_MOST];
	ssize_t n = getrandom(bytes, size, 0);

	(void)server;
	if (c->nread) /* 5.4.6.1 */
		return "a buffer for random bytes is device-readable";
	*written = n > 0 ? (uint32_t)mc_chain_write(c, bytes, (size_t)n) : 0;
	return NULL;
}

struct mc_rng *mc_rng_new(const struct mc_memory *memory)
{
	struct mc_rng *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return NULL;
	r = mc_server_init(&d->server, &TYPE, memory, NULL, THREADS, answer);
	if (r < 0) {
		free(d);
		errno = -r;
		return NULL;
	}
	return d;
}

struct mc_virtio *mc_rng_virtio(struct mc_rng *d)
{
	return &d->server.virtio;
}

int mc_rng_start(struct mc_rng *d)
{
	return mc_server_start(&d->server);
}

void mc_rng_free(struct mc_rng *d)
{
	mc_server_end(&d->server);
	free(d);
}
