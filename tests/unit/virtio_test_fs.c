/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_fs.c: the file system device (virtio 1.3, 5.11), in front of a FUSE server that is made for this.
 *
 * The first byte of a request says what the server does with it: 'r' replies with the request, 'f' has no reply, 'b'
 * waits for the test's permission and replies with 'b's. Without a struct mc_fs there is no such request.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>

#include "virtio/fs.h"
#include "virtio_driver.h"

#define HIPRIO 0
#define REQUESTS 1

struct mc_fs {
	uint32_t blocked, free;        /* requests that wait; those that may go on */
};

size_t mc_fs_handle(struct mc_fs *fs, const struct iovec *in, unsigned nin, const struct iovec *out, unsigned nout)
{
	struct mc_chain whole = { .nread = (uint16_t)nin, .nwrite = (uint16_t)nout };
	static __thread char data[1 << 21];
	size_t size;

	memcpy(whole.parts, in, nin * sizeof(*in));
	memcpy(whole.parts + nin, out, nout * sizeof(*out));
	size = mc_chain_read(&whole, data, sizeof(data));
	if (size && data[0] == 'f')
		return 0;
	if (fs && size && data[0] == 'b') {
		__atomic_add_fetch(&fs->blocked, 1, __ATOMIC_SEQ_CST);
		for (uint32_t n = 0; n == 0; usleep(200)) {
			n = __atomic_load_n(&fs->free, __ATOMIC_SEQ_CST);
			while (n && !__atomic_compare_exchange_n(&fs->free, &n, n - 1, 0, __ATOMIC_SEQ_CST,
								 __ATOMIC_SEQ_CST))
				;
		}
		__atomic_sub_fetch(&fs->blocked, 1, __ATOMIC_SEQ_CST);
		memset(data, 'b', size);
	}
	return mc_chain_write(&whole, data, size);
}

struct setup {
	struct driver d;
	struct mc_fs fs;
	struct mc_virtio_fs *device;
};

static void set_up(struct setup *s)
{
	memset(s, 0, sizeof(*s));
	driver_memory(&s->d, 4 << 20);
	s->device = mc_virtio_fs_new(&s->d.memory, &s->fs, "root");
	CHECK(s->device && mc_virtio_fs_start(s->device) == 0);
	driver_start(&s->d, mc_virtio_fs_virtio(s->device));
}

static void tear_down(struct setup *s)
{
	mc_virtio_fs_free(s->device);
	driver_free(&s->d);
}

/* Sends a request with room for a reply of the same size; returns the address of that. */
static uint64_t ask(struct setup *s, uint32_t queue, char what, uint32_t size)
{
	struct driver_buffer b[2] = { { driver_alloc(&s->d, size), size, 0 }, { driver_alloc(&s->d, size), size, 1 } };
	unsigned char *data = driver_at(&s->d, b[0].address, size);

	test_fill(data, size, size);
	data[0] = (unsigned char)what;
	CHECK(driver_add(&s->d, queue, b, 2) >= 0);
	return b[1].address;
}

static void release(struct setup *s, uint32_t count)
{
	__atomic_add_fetch(&s->fs.free, count, __ATOMIC_SEQ_CST);
}

static uint32_t blocked(struct setup *s)
{
	return __atomic_load_n(&s->fs.blocked, __ATOMIC_SEQ_CST);
}

TEST(fs_config)
{
	static const char longest[] = "123456789012345678901234567890123456";
	struct setup s;
	struct virtio_fs_config config;
	struct mc_virtio_fs *device;

	set_up(&s);
	CHECK(driver_get(&s.d, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_FS);
	for (uint32_t i = 0; i < sizeof(config); i++)
		((unsigned char *)&config)[i] = (unsigned char)mc_virtio_read(s.d.v, VIRTIO_MMIO_CONFIG + i, 1);
	CHECK(memcmp(config.tag, "root\0\0", 6) == 0 && config.tag[35] == 0 && config.num_request_queues == 1);
	CHECK(!mc_virtio_fs_new(&s.d.memory, &s.fs, "") && errno == EINVAL);
	CHECK(!mc_virtio_fs_new(&s.d.memory, &s.fs, "1234567890123456789012345678901234567") && errno == EINVAL);
	device = mc_virtio_fs_new(&s.d.memory, &s.fs, longest);
	CHECK(device && mc_virtio_read(mc_virtio_fs_virtio(device), VIRTIO_MMIO_CONFIG + 35, 1) == '6');
	mc_virtio_fs_free(device);
	tear_down(&s);
}

TEST(fs_replies)
{
	struct setup s;

	set_up(&s);
	for (uint32_t size = 1; size < 3000; size += 97) {
		uint64_t reply = ask(&s, REQUESTS, 'r', size);
		struct vring_used_elem e = driver_wait(&s.d, REQUESTS);
		unsigned char *data = driver_at(&s.d, reply, size), wanted[3000];

		test_fill(wanted, size, size);
		wanted[0] = 'r';
		CHECK(e.len == size && memcmp(data, wanted, size) == 0);
	}
	until(__atomic_load_n(&s.d.v->raised, __ATOMIC_SEQ_CST) == 31); /* it follows the chain */
	CHECK(driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
	tear_down(&s);
}

/* 2.7.7 */
TEST(fs_without_interrupts)
{
	struct setup s;

	set_up(&s);
	driver_avail(&s.d, REQUESTS)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	for (int i = 0; i < 50; i++) {
		ask(&s, REQUESTS, 'r', 4);
		CHECK(driver_wait(&s.d, REQUESTS).len == 4);
	}
	mc_virtio_fs_stop(s.device);
	CHECK(s.d.v->raised == 0 && driver_get(&s.d, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	tear_down(&s);
}

/* A megabyte in pages, by an indirect table, as Linux sends it. */
TEST(fs_large_request)
{
	struct setup s;
	struct driver_buffer b[MC_RING_PARTS];
	uint64_t table, in, out;

	set_up(&s);
	table = driver_alloc(&s.d, 16 * MC_RING_PARTS);
	in = driver_alloc(&s.d, 4096 * 4);
	out = driver_alloc(&s.d, 4096 * 256);
	for (uint32_t i = 0; i < 260; i++)
		b[i] = i < 4 ? (struct driver_buffer){ in + 4096 * i, 4096, 0 } :
			       (struct driver_buffer){ out + 4096 * (259 - i), 4096, 1 };
	test_fill(driver_at(&s.d, in, 4096 * 4), 4096 * 4, 1);
	*(char *)driver_at(&s.d, in, 1) = 'r';
	CHECK(driver_add_indirect(&s.d, REQUESTS, table, b, 260) >= 0);
	CHECK(driver_wait(&s.d, REQUESTS).len == 4096 * 4);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(memcmp(driver_at(&s.d, in + 4096 * i, 4096), driver_at(&s.d, out + 4096 * (255 - i), 4096),
			     4096) == 0);
	tear_down(&s);
}

/* The queue is full again and again, and no request or reply is lost or is another's. */
TEST(fs_many_requests)
{
	struct setup s;
	uint64_t base;

	set_up(&s);
	base = driver_alloc(&s.d, 128 * 128);
	for (uint32_t round = 0; round < 200; round++) {
		for (uint32_t i = 0; i < 128; i++) {
			const char request[] = { 'r', (char)round, (char)i, (char)(round * i) };
			struct driver_buffer b[2] = { { base + i * 128, 4, 0 }, { base + i * 128 + 64, 8, 1 } };

			memcpy(driver_at(&s.d, b[0].address, 4), request, 4);
			memset(driver_at(&s.d, b[1].address, 8), 0, 8);
			CHECK(driver_add(&s.d, REQUESTS, b, 2) >= 0);
		}
		for (uint32_t i = 0; i < 128; i++) {
			const struct vring_used_elem e = driver_wait(&s.d, REQUESTS);
			const uint64_t at = driver_desc(&s.d, REQUESTS, e.id)->addr;

			CHECK(e.len == 4 && memcmp(driver_at(&s.d, at, 4), driver_at(&s.d, at + 64, 4), 4) == 0);
		}
	}
	tear_down(&s);
}

/* 5.11.6.2.1: FORGETs are taken while all threads of the request queue wait. */
TEST(fs_high_priority_does_not_wait)
{
	struct setup s;
	const struct driver_buffer forget = { DRIVER_BASE + 0x300000, 1, 0 };

	set_up(&s);
	for (int i = 0; i < 20; i++)
		ask(&s, REQUESTS, 'b', 16);
	until(blocked(&s) == 4);
	*(char *)driver_at(&s.d, forget.address, 1) = 'f';
	for (int i = 0; i < 100; i++) {
		CHECK(driver_add(&s.d, HIPRIO, &forget, 1) >= 0);
		CHECK(driver_wait(&s.d, HIPRIO).len == 0);
	}
	CHECK(driver_used_ring(&s.d, REQUESTS)->idx == 0);
	release(&s, 20);
	for (int i = 0; i < 20; i++)
		CHECK(driver_wait(&s.d, REQUESTS).len == 16);
	tear_down(&s);
}

TEST(fs_a_slow_request_holds_up_no_other)
{
	struct setup s;

	set_up(&s);
	for (int i = 0; i < 3; i++)
		ask(&s, REQUESTS, 'b', 10);
	until(blocked(&s) == 3);
	for (int i = 0; i < 200; i++) {
		ask(&s, REQUESTS, 'r', 11);
		CHECK(driver_wait(&s.d, REQUESTS).len == 11);
	}
	release(&s, 3);
	for (int i = 0; i < 3; i++)
		CHECK(driver_wait(&s.d, REQUESTS).len == 10);
	tear_down(&s);
}

static void *reset_device(void *argument)
{
	struct driver *d = argument;

	driver_set(d, VIRTIO_MMIO_STATUS, 0);
	return NULL;
}

/* A reset returns when no thread writes to the guest's memory any more, and what was begun is given back to nobody. */
TEST(fs_reset_waits_for_requests)
{
	struct setup s;
	uint64_t reply;
	pthread_t thread;

	set_up(&s);
	reply = ask(&s, REQUESTS, 'b', 16);
	ask(&s, REQUESTS, 'b', 16);
	until(blocked(&s) == 2);
	CHECK(pthread_create(&thread, NULL, reset_device, &s.d) == 0);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) == 0);
	CHECK(pthread_tryjoin_np(thread, NULL) == EBUSY);
	release(&s, 1);
	until(blocked(&s) == 1);
	usleep(10000);
	CHECK(pthread_tryjoin_np(thread, NULL) == EBUSY);
	release(&s, 1);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(memcmp(driver_at(&s.d, reply, 16), "bbbbbbbbbbbbbbbb", 16) == 0);
	CHECK(driver_used_ring(&s.d, REQUESTS)->idx == 0);
	memset(s.d.queues, 0, sizeof(s.d.queues));
	driver_start(&s.d, s.d.v);
	CHECK(driver_used_ring(&s.d, REQUESTS)->idx == 0);
	ask(&s, REQUESTS, 'r', 5);
	CHECK(driver_wait(&s.d, REQUESTS).len == 5);
	tear_down(&s);
}

TEST(fs_stopped_queue)
{
	struct setup s;

	set_up(&s);
	ask(&s, REQUESTS, 'r', 5);
	CHECK(driver_wait(&s.d, REQUESTS).len == 5);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_SEL, REQUESTS);
	driver_set(&s.d, VIRTIO_MMIO_QUEUE_READY, 0);
	ask(&s, REQUESTS, 'r', 5);
	ask(&s, HIPRIO, 'f', 5); /* the other queue goes on */
	CHECK(driver_wait(&s.d, HIPRIO).len == 0);
	CHECK(driver_used_ring(&s.d, REQUESTS)->idx == 1);
	tear_down(&s);
}

TEST(fs_broken_ring)
{
	struct setup s;

	set_up(&s);
	ask(&s, REQUESTS, 'b', 16);
	until(blocked(&s) == 1);
	driver_publish(&s.d, REQUESTS, 999);
	driver_kick(&s.d, REQUESTS);
	until(driver_get(&s.d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	CHECK(s.d.v->broken_queue == REQUESTS);
	CHECK(strcmp(s.d.v->broken, "a descriptor index is beyond its table") == 0);
	release(&s, 1);
	until(blocked(&s) == 0);
	mc_virtio_fs_stop(s.device);
	CHECK(driver_used_ring(&s.d, REQUESTS)->idx == 0); /* a broken device gives nothing back */
	tear_down(&s);
}

TEST(fs_stops)
{
	struct setup s;

	set_up(&s);
	mc_virtio_fs_stop(s.device);
	mc_virtio_fs_stop(s.device);
	ask(&s, REQUESTS, 'r', 16); /* registers are still there */
	CHECK(driver_get(&s.d, VIRTIO_MMIO_STATUS) == DRIVER_READY);
	CHECK(driver_used_ring(&s.d, REQUESTS)->idx == 0);
	tear_down(&s);
}
