/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fs.c: a file system device (virtio 1.3, 5.11).
 *
 * The queue of high priority has a thread of its own, so it never waits for requests (5.11.6.2.1). The request queue
 * has several; requests may be answered in any order (5.11.6.1).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_fs.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/fs.h"
#include "virtio/server.h"

struct mc_virtio_fs {
	struct mc_server server;
	struct virtio_fs_config config;
	struct mc_fs *fs;
};

static const struct mc_virtio_type TYPE = {
	.name = "fs",
	.id = VIRTIO_ID_FS,
	.nqueues = 2,
	.sizes = { 64, MC_RING_SIZE },
	.config_size = sizeof(struct virtio_fs_config),
	.quiesce = mc_server_quiesce,
};
static const uint32_t THREADS[] = { 1, 4 };

static const char *answer(struct mc_server *server, const struct mc_chain *c, uint32_t *written)
{
	struct mc_virtio_fs *d = (struct mc_virtio_fs *)server;

	*written = (uint32_t)mc_fs_handle(d->fs, c->parts, c->nread, c->parts + c->nread, c->nwrite);
	return NULL;
}

struct mc_virtio_fs *mc_virtio_fs_new(const struct mc_memory *memory, struct mc_fs *fs, const char *tag)
{
	const size_t length = strlen(tag);
	struct mc_virtio_fs *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return NULL;
	r = length == 0 || length > sizeof(d->config.tag) ? -EINVAL : 0;
	if (r == 0)
		r = mc_server_init(&d->server, &TYPE, memory, &d->config, THREADS, answer);
	if (r < 0) {
		free(d);
		errno = -r;
		return NULL;
	}
	d->fs = fs;
	memcpy(d->config.tag, tag, length); /* padded with NULs (5.11.4) */
	d->config.num_request_queues = 1;
	return d;
}

struct mc_virtio *mc_virtio_fs_virtio(struct mc_virtio_fs *d)
{
	return &d->server.virtio;
}

int mc_virtio_fs_start(struct mc_virtio_fs *d)
{
	return mc_server_start(&d->server);
}

void mc_virtio_fs_stop(struct mc_virtio_fs *d)
{
	mc_server_stop(&d->server);
}

void mc_virtio_fs_free(struct mc_virtio_fs *d)
{
	if (!d)
		return;
	mc_server_end(&d->server);
	free(d);
}
