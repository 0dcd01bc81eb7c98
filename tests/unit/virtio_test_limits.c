/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test_limits.c: devices that cannot be made for want of descriptors leave none, and say so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "virtio/block.h"
#include "virtio/console.h"
#include "virtio/fs.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio_driver.h"

/* The descriptor that is opened next: all below it are in use. */
static int next_descriptor(void)
{
	int fd = dup(STDERR_FILENO);

	CHECK(fd >= 0 && close(fd) == 0);
	return fd;
}

static void limit(rlim_t count)
{
	struct rlimit r;

	CHECK(getrlimit(RLIMIT_NOFILE, &r) == 0);
	r.rlim_cur = count;
	CHECK(setrlimit(RLIMIT_NOFILE, &r) == 0);
}

static int make_console(const struct mc_memory *memory)
{
	struct mc_console *console = mc_console_new(memory, (const int[MC_PORTS]){ -1, -1, -1, -1 });

	if (console)
		mc_console_free(console);
	return console != NULL;
}

static int make_fs(const struct mc_memory *memory)
{
	struct mc_virtio_fs *device = mc_virtio_fs_new(memory, NULL, "tag");

	if (device)
		mc_virtio_fs_free(device);
	return device != NULL;
}

static int make_block(const struct mc_memory *memory)
{
	struct mc_block *device = mc_block_new(memory, STDIN_FILENO, "serial");

	if (device)
		mc_block_free(device);
	return device != NULL;
}

static int make_rng(const struct mc_memory *memory)
{
	struct mc_rng *device = mc_rng_new(memory);

	if (device)
		mc_rng_free(device);
	return device != NULL;
}

static int make_net(const struct mc_memory *memory)
{
	struct mc_virtio_net *device = mc_virtio_net_new(memory, -1, (const uint8_t[ETH_ALEN]){ 0 }, 1500);

	if (device)
		mc_virtio_net_free(device);
	return device != NULL;
}

static void check_limits(int (*make)(const struct mc_memory *), int need)
{
	const int first = 3;
	struct driver d;

	CHECK(close_range(first, ~0u, 0) == 0);
	driver_memory(&d, 4096);
	for (int left = 0; left <= need; left++) {
		limit((rlim_t)(first + left));
		errno = 0;
		CHECK(make(&d.memory) == (left == need) && (left == need || errno == EMFILE));
		limit(1000);
		CHECK(next_descriptor() == first);
	}
	driver_free(&d);
}

TEST(console_for_want_of_descriptors)
{
	check_limits(make_console, 10); /* one for each queue */
}

TEST(fs_for_want_of_descriptors)
{
	check_limits(make_fs, 2 + 1 + 5); /* queues, to stop, threads */
}

TEST(rng_for_want_of_descriptors)
{
	check_limits(make_rng, 1 + 1 + 1); /* queue, to stop, thread */
}

TEST(block_for_want_of_descriptors)
{
	const int fd = memfd_create("block", 0);

	CHECK(fd >= 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO);
	check_limits(make_block, 1 + 1 + 4); /* queue, to stop, threads */
}

TEST(net_for_want_of_descriptors)
{
	check_limits(make_net, 2 + 1); /* queues, to stop */
}
