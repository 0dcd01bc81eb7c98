/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_fuzz.c: random rings and random drivers, the same each time. No ring whatever makes a device touch
 * anything outside the guest's memory, hang or crash; it is taken, or ends with a reason.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#include "virtio/console.h"
#include "virtio/fs.h"
#include "virtio/vsock.h"
#include "virtio_driver.h"

#define SIZE 4096u
#define GAP 8192u

static uint64_t random_state = 1;

static uint32_t below(uint32_t n)
{
	return (uint32_t)((test_random(&random_state) >> 32) % n);
}

static uint64_t pick(const uint64_t *values, uint32_t n)
{
	return values[below(n)];
}
#define PICK(...) pick((const uint64_t[]){ __VA_ARGS__ }, sizeof((const uint64_t[]){ __VA_ARGS__ }) / 8)

/* ---- memory: two regions on the heap, so that the sanitizer sees each access beyond */

static void make_memory(struct mc_memory *m)
{
	m->count = 2;
	for (uint32_t i = 0; i < 2; i++) {
		m->regions[i] = (struct mc_region){ DRIVER_BASE + i * (SIZE + GAP), SIZE, aligned_alloc(SIZE, SIZE) };
		CHECK(m->regions[i].host);
	}
}

static void free_memory(struct mc_memory *m)
{
	free(m->regions[0].host);
	free(m->regions[1].host);
}

static uint64_t some_address(void)
{
	uint64_t base = DRIVER_BASE + below(2) * (SIZE + GAP);

	if (below(40) == 0)
		return PICK(0, UINT64_MAX, UINT64_MAX - 15, base - 1, base + SIZE - 1, base + SIZE,
			    test_random(&random_state));
	return base + below(SIZE - 64);
}

static struct vring_desc some_descriptor(uint32_t n)
{
	struct vring_desc d = { some_address(), 1 + below(64), 0, (uint16_t)below(n) };

	d.flags = (uint16_t)PICK(0, 0, VRING_DESC_F_NEXT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
				 VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, VRING_DESC_F_INDIRECT);
	if (d.flags & VRING_DESC_F_INDIRECT)
		d.len = 16 * (1 + below(8));
	if (below(60) == 0)
		d.len = (uint32_t)PICK(0, UINT32_MAX, SIZE, SIZE + 1, 17, 16 * 300);
	if (below(60) == 0)
		d.next = (uint16_t)PICK(n, n - 1, UINT16_MAX);
	if (below(60) == 0)
		d.flags = (uint16_t)test_random(&random_state);
	return d;
}

/* Descriptors everywhere, which are also what indirect tables are made of, and an available ring of a few chains. */
static void fill(const struct mc_memory *m, const struct mc_ring *r)
{
	struct vring_avail *avail = mc_memory_at(m, r->driver, 6 + 2 * MC_RING_SIZE);
	const uint32_t n = r->size ? r->size : 1;

	for (uint32_t i = 0; i < m->count; i++)
		for (uint32_t at = 0; at < SIZE; at += 16)
			*(struct vring_desc *)(m->regions[i].host + at) = some_descriptor(n);
	if (!avail || r->driver % 2)
		return;
	avail->flags = (uint16_t)below(2);
	avail->idx = (uint16_t)(below(50) ? below(n + 1) : test_random(&random_state));
	for (uint32_t i = 0; i < n && i < MC_RING_SIZE; i++)
		avail->ring[i] = (uint16_t)(below(50) ? below(n) : test_random(&random_state));
}

static int is_inside(const struct mc_memory *m, const struct iovec *part)
{
	const unsigned char *at = part->iov_base;

	for (uint32_t i = 0; i < m->count; i++)
		if (at >= m->regions[i].host && part->iov_len <= SIZE &&
		    at + part->iov_len <= m->regions[i].host + SIZE)
			return 1;
	return 0;
}

/* Takes what there is, and uses all of it: what is written may be the ring itself. */
static uint32_t use(struct mc_ring *r, struct mc_chain *c)
{
	static char bytes[MC_RING_PARTS * SIZE];
	uint32_t taken = 0;

	for (; taken < 2u * MC_RING_SIZE && mc_ring_take(r, c) == 1; taken++) {
		CHECK(c->nread + c->nwrite >= 1 && c->nread + c->nwrite <= MC_RING_PARTS);
		for (uint32_t i = 0; i < (uint32_t)c->nread + c->nwrite; i++)
			CHECK(is_inside(r->memory, &c->parts[i]));
		CHECK(mc_chain_read(c, bytes, sizeof(bytes)) == c->readable);
		if (below(4) == 0)
			mc_chain_write(c, bytes, sizeof(bytes));
		mc_ring_give(r, c, (uint32_t)c->writable);
		mc_ring_interrupts(r);
		mc_ring_waiting(r);
	}
	return taken;
}

static void some_ring(struct mc_ring *r, const struct mc_memory *m)
{
	*r = (struct mc_ring){ .memory = m, .size_max = MC_RING_SIZE, .indirect = below(8) != 0 };
	r->size = (uint16_t)PICK(1, 2, 4, 8, 16, 32, 64);
	r->descriptors = DRIVER_BASE + 16 * below(32);
	r->driver = DRIVER_BASE + 2048 + 2 * below(64);
	r->device = DRIVER_BASE + SIZE + GAP + 4 * below(64);
	if (below(30) == 0)
		r->size = (uint16_t)PICK(0, 3, 128, 256, 512, UINT16_MAX);
	if (below(30) == 0)
		*(below(2) ? &r->descriptors : below(2) ? &r->driver : &r->device) = some_address();
}

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

/* ---- whole devices */

/* Sets the queues up over random memory, and starts the device. */
static void some_driver(struct driver *d)
{
	driver_negotiate(d);
	for (uint32_t i = 0; i < d->v->type->nqueues; i++) {
		struct mc_ring r;

		some_ring(&r, &d->memory);
		driver_set(d, VIRTIO_MMIO_QUEUE_SEL, i);
		driver_set(d, VIRTIO_MMIO_QUEUE_NUM, r.size < d->v->type->sizes[i] ? r.size : d->v->type->sizes[i]);
		driver_address(d, VIRTIO_MMIO_QUEUE_DESC_LOW, r.descriptors);
		driver_address(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, r.driver);
		driver_address(d, VIRTIO_MMIO_QUEUE_USED_LOW, r.device);
		driver_set(d, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	if (below(20))
		driver_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
}

/* What a bad driver does to a running device: notifies, writes registers, changes the memory. */
static void drive(struct driver *d)
{
	static const struct virtio_console_control ready = { 0, VIRTIO_CONSOLE_DEVICE_READY, 1 };

	for (uint32_t i = 0, n = below(60); i < n; i++) {
		if (below(8) == 0) {
			struct mc_ring r;

			some_ring(&r, &d->memory);
			fill(&d->memory, &r);
		}
		if (below(4) == 0)
			memcpy(d->memory.regions[below(2)].host + 8 * below(SIZE / 8), &ready, 8);
		if (below(20) == 0)
			driver_set(d, 4 * below(64), (uint32_t)PICK(0, 1, 2, test_random(&random_state)));
		driver_kick(d, below(d->v->type->nqueues));
	}
}

static void check_device(struct mc_virtio *v, struct mc_memory *m, int rounds)
{
	struct driver d = { .v = v, .memory = *m };
	uint32_t broken = 0;

	for (int i = 0; i < rounds; i++) {
		struct mc_ring r;

		some_ring(&r, m);
		fill(m, &r);
		some_driver(&d);
		drive(&d);
		broken += (driver_get(&d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) != 0;
	}
	CHECK(broken > (uint32_t)rounds / 20 && v->broken);
}

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static void *empty_socket(void *argument)
{
	char data[4096];
	const int fd = *(int *)argument;

	while (read(fd, data, sizeof(data)) > 0)
		if (write(fd, data, 7) < 0)
			break;
	return NULL;
}

TEST(fuzz_console)
{
	struct mc_memory m;
	struct mc_console *console;
	pthread_t thread;
	int pair[2];

	make_memory(&m);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	console = mc_console_new(&m, (const int[MC_PORTS]){ pair[0], open_device("/dev/zero"),
							    open_device("/dev/null"), open_device("/dev/null") });
	CHECK(console && mc_console_start(console) == 0);
	CHECK(pthread_create(&thread, NULL, empty_socket, &pair[1]) == 0);
	check_device(mc_console_virtio(console), &m, 1500);
	mc_console_drain(console, 1);
	mc_console_free(console);
	CHECK(pthread_join(thread, NULL) == 0);
	close(pair[1]);
	free_memory(&m);
}

TEST(fuzz_fs)
{
	struct mc_memory m;
	struct mc_virtio_fs *device;

	make_memory(&m);
	device = mc_virtio_fs_new(&m, NULL, "fuzz");
	CHECK(device && mc_virtio_fs_start(device) == 0);
	check_device(mc_virtio_fs_virtio(device), &m, 1500);
	mc_virtio_fs_free(device);
	free_memory(&m);
}

static void *call(void *argument)
{
	const struct sockaddr *address = argument;

	for (int i = 0; i < 300; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (connect(fd, address, sizeof(sa_family_t) + 6) == 0) /* an address of autobind, unix(7) */
			send(fd, "CONNECT 1\nbytes", 15, MSG_NOSIGNAL);
		usleep(1000);
		close(fd);
	}
	return NULL;
}

TEST(fuzz_vsock)
{
	struct sockaddr_storage address = { .ss_family = AF_UNIX };
	socklen_t size = sizeof(address);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct mc_memory m;
	struct mc_vsock *device;
	pthread_t thread;

	make_memory(&m);
	CHECK(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0 && listen(listener, 99) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
	device = mc_vsock_new(&m, listener);
	CHECK(device && mc_vsock_start(device) == 0);
	CHECK(pthread_create(&thread, NULL, call, &address) == 0);
	check_device(mc_vsock_virtio(device), &m, 1500);
	CHECK(pthread_join(thread, NULL) == 0);
	mc_vsock_free(device);
	free_memory(&m);
}
