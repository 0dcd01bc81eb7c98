/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_block.c: the block device (virtio 1.3, 5.2), in front of a file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdio.h>

#include "virtio/block.h"
#include "virtio_driver.h"

#define SECTOR 512u
#define SECTORS 64u
#define SIZE (SECTORS * SECTOR)
#define IN VIRTIO_BLK_T_IN
#define OUT VIRTIO_BLK_T_OUT
#define FEATURE(name) (1ull << VIRTIO_BLK_F_##name)

struct setup {
	struct driver d;
	struct mc_block *device;
	int fd;                 /* the device's own; `file` has the same content */
	int file;
	unsigned char content[SIZE];
};

static void set_up(struct setup *s, int flags)
{
	char name[] = "/tmp/virtio-block-XXXXXX";

	memset(s, 0, sizeof(*s));
	driver_memory(&s->d, 4 << 20);
	s->file = mkostemp(name, O_CLOEXEC);
	s->fd = open(name, flags | O_CLOEXEC);
	CHECK(s->file >= 0 && s->fd >= 0 && unlink(name) == 0);
	test_fill(s->content, SIZE, 1);
	CHECK(pwrite(s->file, s->content, SIZE, 0) == SIZE);
	s->device = mc_block_new(&s->d.memory, s->fd, "serial");
	CHECK(s->device && mc_block_start(s->device) == 0);
	driver_start(&s->d, mc_block_virtio(s->device));
}

static void tear_down(struct setup *s)
{
	mc_block_free(s->device);
	close(s->fd);
	close(s->file);
	driver_free(&s->d);
}

static void check_file(const struct setup *s)
{
	unsigned char data[SIZE];

	CHECK(pread(s->file, data, SIZE, 0) == SIZE && memcmp(data, s->content, SIZE) == 0);
}

/* A request in elements of `cut` bytes, from and to one buffer: header, `size` bytes of data, status. Returns the
 * status, or -1: it is still the driver's. */
static int ask(struct setup *s, uint32_t type, uint64_t sector, void *data, uint32_t size, uint32_t cut)
{
	static struct driver_buffer b[MC_RING_SIZE];
	const struct virtio_blk_outhdr header = { type, 0, sector };
	const uint32_t whole = sizeof(header) + size + 1, readable = whole - 1 - (type == OUT ? 0 : size);
	const uint64_t top = s->d.top, at = driver_alloc(&s->d, whole);
	unsigned char *host = driver_at(&s->d, at, whole);
	struct vring_used_elem e;
	int n = 0;

	memcpy(host, &header, sizeof(header));
	memcpy(host + sizeof(header), data, size);
	host[whole - 1] = 0xff;
	for (uint32_t done = 0, length; done < whole; done += length) {
		const uint32_t end = done < readable ? readable : whole;

		length = end - done < cut ? end - done : cut;
		b[n++] = (struct driver_buffer){ at + done, length, done >= readable };
	}
	CHECK(driver_add(&s->d, 0, b, n) >= 0);
	e = driver_wait(&s->d, 0);
	CHECK(e.len == whole - readable);
	memcpy(data, host + sizeof(header), size);
	s->d.top = top;
	return host[whole - 1] == 0xff ? -1 : host[whole - 1];
}

TEST(block_config)
{
	struct setup s;
	struct virtio_blk_config config = { 0 };
	int pair[2];

	set_up(&s, O_RDWR);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_BLOCK);
	for (uint32_t i = 0; i < sizeof(config); i++)
		((unsigned char *)&config)[i] = (unsigned char)mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG + i, 1);
	CHECK(config.capacity == SECTORS && config.blk_size == SECTOR && config.seg_max == MC_RING_SIZE - 2);
	CHECK(pipe(pair) == 0 && !mc_block_new(&s.d.memory, pair[0], "x") && errno == EINVAL);
	CHECK(!mc_block_new(&s.d.memory, -1, "x") && errno == EBADF);
	tear_down(&s);
}

static uint64_t types_features(int flags)
{
	struct setup s;
	uint64_t features;

	set_up(&s, flags);
	features = driver_offered(&s.d) & 0xffffff;
	tear_down(&s);
	return features;
}

TEST(block_features)
{
	const uint64_t always = FEATURE(BLK_SIZE) | FEATURE(SEG_MAX);

	CHECK(types_features(O_RDONLY) == (always | FEATURE(RO)));
	CHECK(types_features(O_RDWR) == (always | FEATURE(FLUSH)));
}

/* 2.7.4.1: no framing is assumed. */
TEST(block_data_in_any_elements)
{
	static const uint32_t cuts[] = { 1u << 20, 512, 511, 100, 17, 16, 7 };
	unsigned char data[3 * SECTOR];
	struct setup s;

	set_up(&s, O_RDWR);
	for (uint32_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
		test_fill(data, sizeof(data), cuts[i]);
		memcpy(s.content + (i + 1) * SECTOR, data, sizeof(data));
		CHECK(ask(&s, OUT, i + 1, data, sizeof(data), cuts[i]) == VIRTIO_BLK_S_OK);
		check_file(&s);
		memset(data, 0, sizeof(data));
		CHECK(ask(&s, IN, i, data, sizeof(data), cuts[i]) == VIRTIO_BLK_S_OK);
		CHECK(memcmp(data, s.content + i * SECTOR, sizeof(data)) == 0);
	}
	CHECK(ask(&s, VIRTIO_BLK_T_FLUSH, 0, data, 0, 16) == VIRTIO_BLK_S_OK);
	tear_down(&s);
}

/* As many pages as seg_max says, by an indirect table as Linux sends it. */
TEST(block_large_request)
{
	struct setup s;
	struct driver_buffer b[MC_RING_SIZE];
	struct virtio_blk_outhdr *header;
	const uint32_t pages = MC_RING_SIZE - 2;
	uint64_t table, at;

	set_up(&s, O_RDONLY);
	CHECK(ftruncate(s.file, 2 << 20) == 0);
	mc_block_free(s.device);
	s.device = mc_block_new(&s.d.memory, s.fd, "serial"); /* the file is larger now */
	CHECK(s.device && mc_block_start(s.device) == 0);
	memset(s.d.queues, 0, sizeof(s.d.queues));
	driver_start(&s.d, mc_block_virtio(s.device));
	table = driver_alloc(&s.d, 16 * MC_RING_SIZE);
	at = driver_alloc(&s.d, 4096 * (pages + 1));
	header = driver_at(&s.d, at, 32);
	*header = (struct virtio_blk_outhdr){ IN, 0, 0 };
	b[0] = (struct driver_buffer){ at, sizeof(*header), 0 };
	for (uint32_t i = 1; i <= pages; i++) /* the last page first */
		b[i] = (struct driver_buffer){ at + 4096 * (pages + 1 - i), 4096, 1 };
	b[pages + 1] = (struct driver_buffer){ at + 16, 1, 1 };
	CHECK(driver_add_indirect(&s.d, 0, table, b, (int)pages + 2) >= 0);
	CHECK(driver_wait(&s.d, 0).len == 4096 * pages + 1);
	for (uint32_t i = 0; i < SIZE / 4096; i++)
		CHECK(memcmp(driver_at(&s.d, b[i + 1].address, 4096), s.content + 4096 * i, 4096) == 0);
	CHECK(*(unsigned char *)driver_at(&s.d, at + 16, 1) == VIRTIO_BLK_S_OK);
	tear_down(&s);
}

TEST(block_read_only)
{
	unsigned char data[SECTOR] = { 0 };
	struct setup s;

	set_up(&s, O_RDONLY);
	CHECK(ask(&s, OUT, 0, data, sizeof(data), 4096) == VIRTIO_BLK_S_IOERR);
	CHECK(ask(&s, VIRTIO_BLK_T_FLUSH, 0, data, 0, 16) == VIRTIO_BLK_S_UNSUPP);
	CHECK(ask(&s, IN, 5, data, sizeof(data), 4096) == VIRTIO_BLK_S_OK);
	CHECK(memcmp(data, s.content + 5 * SECTOR, SECTOR) == 0);
	check_file(&s);
	tear_down(&s);
}

/* No request reaches beyond the device, and a buffer that gets no data is cleared. */
TEST(block_bounds)
{
	static const struct {
		uint64_t sector;
		uint32_t size;
		int status;
	} cases[] = {
		{ SECTORS - 1, SECTOR, VIRTIO_BLK_S_OK },
		{ 0, SIZE, VIRTIO_BLK_S_OK },
		{ SECTORS, 0, VIRTIO_BLK_S_OK },
		{ SECTORS, SECTOR, VIRTIO_BLK_S_IOERR },
		{ SECTORS - 1, 2 * SECTOR, VIRTIO_BLK_S_IOERR },
		{ 0, SIZE + SECTOR, VIRTIO_BLK_S_IOERR },
		{ 0, SECTOR - 1, VIRTIO_BLK_S_IOERR },
		{ 0, 1, VIRTIO_BLK_S_IOERR },
		{ UINT64_MAX, SECTOR, VIRTIO_BLK_S_IOERR },
		{ UINT64_MAX / SECTOR + 1, SECTOR, VIRTIO_BLK_S_IOERR }, /* byte 2^64 */
		{ 1ull << 55, SECTOR, VIRTIO_BLK_S_IOERR },
	};
	static unsigned char data[SIZE + SECTOR];
	struct setup s;

	set_up(&s, O_RDWR);
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const int is_ok = cases[i].status == VIRTIO_BLK_S_OK;

		memset(data, 'x', sizeof(data));
		CHECK(ask(&s, IN, cases[i].sector, data, cases[i].size, 4096) == cases[i].status);
		for (uint32_t at = 0; at < cases[i].size; at++)
			CHECK(data[at] == (is_ok ? s.content[cases[i].sector * SECTOR + at] : 0));
		CHECK(ask(&s, OUT, cases[i].sector, data, cases[i].size, 4096) == cases[i].status);
		check_file(&s);
	}
	CHECK(lseek(s.file, 0, SEEK_END) == SIZE);
	tear_down(&s);
}

TEST(block_serial)
{
	unsigned char data[VIRTIO_BLK_ID_BYTES + 10];
	struct setup s;

	set_up(&s, O_RDONLY);
	memset(data, 'x', sizeof(data));
	CHECK(ask(&s, VIRTIO_BLK_T_GET_ID, 0, data, VIRTIO_BLK_ID_BYTES, 64) == VIRTIO_BLK_S_OK);
	CHECK(memcmp(data, "serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0xxxxxxxxxx", sizeof(data)) == 0);
	CHECK(ask(&s, VIRTIO_BLK_T_GET_ID, 0, data, sizeof(data), 3) == VIRTIO_BLK_S_OK);
	CHECK(memcmp(data, "serial", 6) == 0 && data[sizeof(data) - 1] == 0);
	memset(data, 'x', sizeof(data));
	CHECK(ask(&s, VIRTIO_BLK_T_GET_ID, 0, data, 3, 64) == VIRTIO_BLK_S_OK && memcmp(data, "serx", 4) == 0);
	tear_down(&s);
}

/* What was not offered is answered, and changes nothing. */
TEST(block_unsupported)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE, 2,
					  0x80000001, UINT32_MAX };
	unsigned char data[16], zeros[16] = { 0 };
	struct setup s;

	set_up(&s, O_RDWR);
	for (uint32_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		memset(data, 'x', sizeof(data));
		CHECK(ask(&s, types[i], 0, data, sizeof(data), 5) == VIRTIO_BLK_S_UNSUPP);
		CHECK(memcmp(data, zeros, sizeof(data)) == 0);
	}
	check_file(&s);
	tear_down(&s);
}

/* Another process has made the file shorter. */
TEST(block_file_ends)
{
	unsigned char data[4 * SECTOR], zeros[4 * SECTOR] = { 0 };
	struct setup s;

	set_up(&s, O_RDONLY);
	CHECK(ftruncate(s.file, SIZE - 2 * SECTOR) == 0);
	CHECK(ask(&s, IN, SECTORS - 4, data, sizeof(data), 4096) == VIRTIO_BLK_S_IOERR);
	CHECK(memcmp(data, zeros, sizeof(data)) == 0);
	CHECK(ask(&s, IN, SECTORS - 4, data, 2 * SECTOR, 4096) == VIRTIO_BLK_S_OK);
	tear_down(&s);
}

static void check_broken(uint32_t header, int has_status, const char *why)
{
	struct setup s;
	struct driver_buffer b[2];

	set_up(&s, O_RDWR);
	b[0] = (struct driver_buffer){ driver_alloc(&s.d, 16), header, 0 };
	b[1] = (struct driver_buffer){ driver_alloc(&s.d, 16), 1, 1 };
	CHECK(driver_add(&s.d, 0, b, 1 + has_status) >= 0);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(strcmp(s.d.v->broken, why) == 0 && s.d.v->broken_queue == 0);
	CHECK(driver_used_ring(&s.d, 0)->idx == 0);
	tear_down(&s);
}

TEST(block_without_an_answer)
{
	check_broken(15, 1, "a request is shorter than its header");
	check_broken(16, 0, "a request has no byte for its status");
}

/* 5.2.6.2: with a driver that knows no FLUSH, each write is on the medium when it is answered. */
TEST(block_without_flush)
{
	unsigned char data[SECTOR];
	struct setup s;

	set_up(&s, O_RDWR);
	driver_set(&s.d, VIRTIO_MMIO_STATUS, 0);
	driver_status(&s.d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	driver_accept(&s.d, 1ull << VIRTIO_F_VERSION_1);
	driver_status(&s.d, VIRTIO_CONFIG_S_FEATURES_OK);
	memset(s.d.queues, 0, sizeof(s.d.queues));
	driver_queue(&s.d, 0, 0);
	driver_status(&s.d, VIRTIO_CONFIG_S_DRIVER_OK);
	test_fill(data, sizeof(data), 9);
	memcpy(s.content + SECTOR, data, SECTOR);
	CHECK(ask(&s, OUT, 1, data, sizeof(data), 4096) == VIRTIO_BLK_S_OK);
	check_file(&s);
	tear_down(&s);
}

/* The caller's O_DIRECT is the guest's block size, so that its requests are aligned; another is an error of its own. */
TEST(block_direct)
{
	const uint64_t header = DRIVER_BASE + 0x100000, data = header + 4096, status = data + 8192;
	struct setup s;

	set_up(&s, O_RDWR);
	mc_block_free(s.device);
	CHECK(fcntl(s.fd, F_SETFL, O_DIRECT) == 0);
	s.device = mc_block_new(&s.d.memory, s.fd, "serial");
	CHECK(s.device && mc_block_start(s.device) == 0);
	memset(s.d.queues, 0, sizeof(s.d.queues));
	driver_start(&s.d, mc_block_virtio(s.device));
	CHECK(mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, blk_size), 4) == 4096);
	for (uint32_t block = 0; block < SIZE / 4096; block++) {
		const struct driver_buffer b[3] = { { header, 16, 0 }, { data, 4096, 1 }, { status, 1, 1 } };

		*(struct virtio_blk_outhdr *)driver_at(&s.d, header, 16) =
			(struct virtio_blk_outhdr){ IN, 0, 8 * block };
		CHECK(driver_add(&s.d, 0, b, 3) >= 0);
		CHECK(driver_wait(&s.d, 0).len == 4097 && *(unsigned char *)driver_at(&s.d, status, 1) == 0);
		CHECK(memcmp(driver_at(&s.d, data, 4096), s.content + 4096 * block, 4096) == 0);
	}
	tear_down(&s);
}

/* The queue is full again and again, and each request gets its own data. */
TEST(block_many_requests)
{
	struct setup s;
	uint64_t base;

	set_up(&s, O_RDONLY);
	base = driver_alloc(&s.d, 64 * 1024);
	for (uint32_t round = 0; round < 100; round++) {
		for (uint32_t i = 0; i < 64; i++) {
			const uint64_t at = base + i * 1024, sector = (i * 7 + round) % SECTORS;
			const struct driver_buffer b[3] = { { at, 16, 0 }, { at + 16, SECTOR, 1 }, { at + 900, 1, 1 } };

			*(struct virtio_blk_outhdr *)driver_at(&s.d, at, 16) = (struct virtio_blk_outhdr){ IN, 0, sector };
			CHECK(driver_add(&s.d, 0, b, 3) >= 0);
		}
		for (uint32_t i = 0; i < 64; i++) {
			const struct vring_used_elem e = driver_wait(&s.d, 0);
			const uint64_t at = driver_desc(&s.d, 0, e.id)->addr;
			const struct virtio_blk_outhdr *header = driver_at(&s.d, at, 16);

			CHECK(e.len == SECTOR + 1);
			CHECK(memcmp(driver_at(&s.d, at + 16, SECTOR), s.content + header->sector * SECTOR, SECTOR) == 0);
		}
	}
	tear_down(&s);
}
