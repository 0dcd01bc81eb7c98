/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_fuzz_devices.c: no driver whatever makes a device touch anything outside the guest's memory, hang or crash.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "virtio/balloon.h"
#include "virtio/block.h"
#include "virtio/console.h"
#include "virtio/fs.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "virtio_fuzz.h"

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

/* Messages that some devices understand. */
static void plant(const struct mc_memory *m)
{
	const struct virtio_console_control ready = { 0, VIRTIO_CONSOLE_DEVICE_READY, 1 };
	const struct virtio_blk_outhdr request = { (uint32_t)below(3), 0, below(20) };
	unsigned char *host = m->regions[below(2)].host;

	memcpy(host + 8 * below(SIZE / 8), &ready, sizeof(ready));
	memcpy(host + 8 * below(SIZE / 8 - 1), &request, sizeof(request));
}

/* What a bad driver does to a running device: notifies, writes registers, changes the memory. */
static void drive(struct driver *d)
{
	for (uint32_t i = 0, n = below(60); i < n; i++) {
		if (below(8) == 0) {
			struct mc_ring r;

			some_ring(&r, &d->memory);
			fill(&d->memory, &r);
		}
		if (below(4) == 0)
			plant(&d->memory);
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
	CHECK(broken && v->broken); /* on a busy processor most rounds end before the worker sees the ring */
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

/* On the heap: a page that is discarded reads as zeros, as if it had been changed. */
TEST(fuzz_balloon)
{
	struct mc_memory m;
	struct mc_balloon *balloon;

	make_memory(&m);
	balloon = mc_balloon_new(&m);
	CHECK(balloon && mc_balloon_start(balloon) == 0);
	check_device(mc_balloon_virtio(balloon), &m, 1500);
	mc_balloon_free(balloon);
	free_memory(&m);
}

TEST(fuzz_rng)
{
	struct mc_memory m;
	struct mc_rng *device;

	make_memory(&m);
	device = mc_rng_new(&m);
	CHECK(device && mc_rng_start(device) == 0);
	check_device(mc_rng_virtio(device), &m, 1500);
	mc_rng_free(device);
	free_memory(&m);
}

static uint64_t sum_of(int fd)
{
	unsigned char data[SIZE];
	uint64_t sum = 0;

	CHECK(pread(fd, data, sizeof(data), 0) == sizeof(data));
	for (uint32_t i = 0; i < sizeof(data); i++)
		sum += data[i];
	return sum;
}

/* Buffers of whole sectors, with the headers of requests before them: else hardly a request would reach the file. */
static void send_requests(struct driver *d, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		const uint64_t at = DRIVER_BASE + SIZE + GAP + 16 * below(100);
		const uint32_t is_in = below(2), size = 512 * below(4);
		const struct driver_buffer b[3] = {
			{ DRIVER_BASE + 3000, 16, 0 }, { at, size + is_in, (int)is_in }, { DRIVER_BASE + 3100, 1, 1 },
		};
		const struct virtio_blk_outhdr header = { is_in ? 0 : 1, 0, below(10) };

		memcpy(driver_at(d, DRIVER_BASE + 3000, 16), &header, sizeof(header));
		memset(driver_at(d, at, size), i, size);
		driver_add(d, 0, size || is_in ? b : (struct driver_buffer[]){ b[0], b[2] }, size || is_in ? 3 : 2);
		driver_wait(d, 0);
	}
}

TEST(fuzz_block)
{
	struct mc_memory m;
	struct mc_block *device;
	struct driver d = { .top = DRIVER_BASE };
	const int fd = memfd_create("fuzz", MFD_CLOEXEC);

	make_memory(&m);
	CHECK(fd >= 0 && ftruncate(fd, SIZE) == 0);
	device = mc_block_new(&m, fd, "fuzz");
	CHECK(device && mc_block_start(device) == 0);
	check_device(mc_block_virtio(device), &m, 1500);
	d.memory = m;
	memset(d.queues, 0, sizeof(d.queues));
	d.v = mc_block_virtio(device);
	driver_negotiate(&d);
	driver_queue(&d, 0, 32);
	driver_status(&d, VIRTIO_CONFIG_S_DRIVER_OK);
	send_requests(&d, 500);
	CHECK(sum_of(fd) > 0);
	mc_block_free(device);
	CHECK(lseek(fd, 0, SEEK_END) == SIZE); /* no write went beyond */
	close(fd);
	free_memory(&m);
}

/* Messages of any size for the device to receive; what it sends is read. */
static void *busy_socket(void *argument)
{
	static char data[4096];
	const int fd = *(int *)argument;
	uint64_t state = 3;

	for (;;) {
		const ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

		if (n == 1)
			return NULL;
		test_fill(data, 12, test_random(&state));
		if (send(fd, data, (size_t)(test_random(&state) >> 40) % sizeof(data), MSG_DONTWAIT) < 0 && n < 0)
			usleep(100);
	}
}

TEST(fuzz_net)
{
	static const uint8_t mac[ETH_ALEN];
	struct mc_memory m;
	struct mc_virtio_net *device;
	pthread_t thread;
	int pair[2];

	make_memory(&m);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	device = mc_virtio_net_new(&m, pair[0], mac, 1500);
	CHECK(device && mc_virtio_net_start(device) == 0);
	CHECK(pthread_create(&thread, NULL, busy_socket, &pair[1]) == 0);
	check_device(mc_virtio_net_virtio(device), &m, 1500);
	mc_virtio_net_free(device);
	CHECK(write(pair[0], "", 1) == 1);
	CHECK(pthread_join(thread, NULL) == 0);
	close(pair[0]);
	close(pair[1]);
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
