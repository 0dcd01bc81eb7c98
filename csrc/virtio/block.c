/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * block.c: a block device (virtio 1.3, 5.2).
 *
 * A request is a header, data and a byte of status, however they are cut into elements (2.7.4.1). Data go between the
 * guest's memory and the file without a copy. What a sound driver does not ask is answered with an error; a request
 * without room for an answer breaks the device.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio/block.h"
#include "virtio/server.h"

#define SECTOR 512u
#define DIRECT_BLOCK 4096u /* what every file system accepts with O_DIRECT (open(2)) */
#define FEATURE(name) (1ull << VIRTIO_BLK_F_##name)

struct mc_block {
	struct mc_server server;
	struct mc_virtio_type type; /* with the features of this device */
	struct virtio_blk_config config;
	int fd;
	char serial[VIRTIO_BLK_ID_BYTES]; /* padded with NULs (5.2.6) */
};

struct request {
	struct virtio_blk_outhdr header;
	struct iovec parts[MC_RING_PARTS]; /* of the data; changed by a transfer */
	int count;
	uint64_t size;
};

static const struct mc_virtio_type TYPE = {
	.name = "block",
	.id = VIRTIO_ID_BLOCK,
	.nqueues = 1,
	.sizes = { MC_RING_SIZE },
	.features = FEATURE(BLK_SIZE) | FEATURE(SEG_MAX),
	.config_size = sizeof(struct virtio_blk_config),
	.quiesce = mc_server_quiesce,
};
static const uint32_t THREADS[] = { 4 };

/* ---- data */

/* Takes `size` bytes that begin after the first `skip` ones. */
static void take(struct request *r, const struct iovec *parts, uint32_t count, uint64_t skip, uint64_t size)
{
	r->count = 0;
	r->size = size;
	for (uint32_t i = 0; i < count && size; i++) {
		const uint64_t length = parts[i].iov_len, from = skip < length ? skip : length;
		const uint64_t n = length - from < size ? length - from : size;

		skip -= from;
		size -= n;
		if (n)
			r->parts[r->count++] = (struct iovec){ (char *)parts[i].iov_base + from, n };
	}
}

/* Leaves out the first `done` bytes; returns how many elements are none any more. */
static int advance(struct iovec *parts, int count, size_t done)
{
	int i = 0;

	for (; i < count && done >= parts[i].iov_len; i++)
		done -= parts[i].iov_len;
	if (i < count) {
		parts[i].iov_base = (char *)parts[i].iov_base + done;
		parts[i].iov_len -= done;
	}
	return i;
}

/* Reads or writes all data of a request. A file that has become shorter has an end, which is an error here. */
static uint8_t transfer(const struct mc_block *d, struct request *r, int is_write)
{
	/* 5.2.6.2: without FLUSH, what was written is on the medium when the request is answered. */
	const int flags = is_write && !(d->server.virtio.features & FEATURE(FLUSH)) ? RWF_DSYNC : 0;
	struct iovec *parts = r->parts;
	uint64_t at = r->header.sector * SECTOR, left = r->size;

	while (left) {
		ssize_t n = is_write ? pwritev2(d->fd, parts, r->count, (off_t)at, flags) :
				       preadv(d->fd, parts, r->count, (off_t)at);
		int used;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return VIRTIO_BLK_S_IOERR;
		used = advance(parts, r->count, (size_t)n);
		parts += used;
		r->count -= used;
		at += (uint64_t)n;
		left -= (uint64_t)n;
	}
	return VIRTIO_BLK_S_OK;
}

/* ---- requests (5.2.6) */

static int is_inside(const struct mc_block *d, const struct request *r)
{
	const uint64_t sectors = r->size / SECTOR, capacity = d->config.capacity;

	return r->size % SECTOR == 0 && sectors <= capacity && r->header.sector <= capacity - sectors;
}

static uint8_t read_data(const struct mc_block *d, struct request *r, const struct mc_chain *c)
{
	take(r, c->parts + c->nread, c->nwrite, 0, c->writable - 1);
	return is_inside(d, r) ? transfer(d, r, 0) : VIRTIO_BLK_S_IOERR;
}

static uint8_t write_data(const struct mc_block *d, struct request *r, const struct mc_chain *c)
{
	take(r, c->parts, c->nread, sizeof(r->header), c->readable - sizeof(r->header));
	if (d->type.features & FEATURE(RO)) /* 5.2.6.2 */
		return VIRTIO_BLK_S_IOERR;
	return is_inside(d, r) ? transfer(d, r, 1) : VIRTIO_BLK_S_IOERR;
}

static uint8_t flush(const struct mc_block *d)
{
	if (!(d->type.features & FEATURE(FLUSH)))
		return VIRTIO_BLK_S_UNSUPP;
	return fdatasync(d->fd) == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

/* Writes the room for data where no data were read. A driver trusts as many bytes as the used ring says (2.7.8.2), and
 * the status is the last one. */
static void clear_data(const struct mc_chain *c)
{
	uint64_t left = c->writable - 1;

	for (const struct iovec *part = c->parts + c->nread; left; part++) {
		const size_t n = part->iov_len < left ? part->iov_len : left;

		memset(part->iov_base, 0, n);
		left -= n;
	}
}

static uint8_t handle(const struct mc_block *d, struct request *r, const struct mc_chain *c)
{
	switch (r->header.type) {
	case VIRTIO_BLK_T_IN:
		return read_data(d, r, c);
	case VIRTIO_BLK_T_OUT:
		return write_data(d, r, c);
	case VIRTIO_BLK_T_FLUSH:
		return flush(d);
	case VIRTIO_BLK_T_GET_ID:
		return VIRTIO_BLK_S_OK; /* written behind clear_data() */
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

static const char *answer(struct mc_server *server, const struct mc_chain *c, uint32_t *written)
{
	const struct mc_block *d = (const struct mc_block *)server;
	const struct iovec *last = &c->parts[c->nread + c->nwrite - 1];
	struct request r;
	uint8_t status;

	if (mc_chain_read(c, &r.header, sizeof(r.header)) != sizeof(r.header))
		return "a request is shorter than its header";
	if (!c->nwrite)
		return "a request has no byte for its status";
	status = handle(d, &r, c);
	if (r.header.type != VIRTIO_BLK_T_IN || status != VIRTIO_BLK_S_OK)
		clear_data(c);
	if (r.header.type == VIRTIO_BLK_T_GET_ID)
		mc_chain_write(c, d->serial, c->writable - 1 < sizeof(d->serial) ? c->writable - 1 : sizeof(d->serial));
	((uint8_t *)last->iov_base)[last->iov_len - 1] = status;
	*written = (uint32_t)c->writable;
	return NULL;
}

/* ---- its life */

/* Bytes of the file's blocks: what the driver's requests are made of. -errno: it is neither file nor block device. */
static int block_size(int fd, int flags)
{
	struct stat info;
	int size = SECTOR;

	if (fstat(fd, &info) < 0)
		return -errno;
	if (S_ISBLK(info.st_mode))
		return ioctl(fd, BLKSSZGET, &size) < 0 ? -errno : size;
	if (!S_ISREG(info.st_mode))
		return -EINVAL;
	return flags & O_DIRECT ? (int)DIRECT_BLOCK : (int)SECTOR;
}

static int look_at_file(struct mc_block *d)
{
	const int flags = fcntl(d->fd, F_GETFL), block = flags < 0 ? -errno : block_size(d->fd, flags);
	off_t size;

	if (block < 0)
		return block;
	size = lseek(d->fd, 0, SEEK_END);
	if (size < 0)
		return -errno;
	d->type = TYPE;
	d->type.features |= (flags & O_ACCMODE) == O_RDONLY ? FEATURE(RO) : FEATURE(FLUSH);
	d->config.capacity = (uint64_t)size / SECTOR;
	d->config.blk_size = (uint32_t)block;
	d->config.seg_max = MC_RING_SIZE - 2; /* beside header and status */
	return 0;
}

struct mc_block *mc_block_new(const struct mc_memory *memory, int fd, const char *serial)
{
	struct mc_block *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return NULL;
	d->fd = fd;
	memcpy(d->serial, serial, strnlen(serial, sizeof(d->serial)));
	r = look_at_file(d);
	if (r == 0)
		r = mc_server_init(&d->server, &d->type, memory, &d->config, THREADS, answer);
	if (r < 0) {
		free(d);
		errno = -r;
		return NULL;
	}
	return d;
}

struct mc_virtio *mc_block_virtio(struct mc_block *d)
{
	return &d->server.virtio;
}

int mc_block_start(struct mc_block *d)
{
	return mc_server_start(&d->server);
}

void mc_block_free(struct mc_block *d)
{
	mc_server_end(&d->server);
	free(d);
}
