/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/modules.c: loads every kernel module of a directory, in order of their names, which the host has given them in
 * order of their dependencies.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <string.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"

#define MOST 256
#define ROOM 16384

struct names {
	const char *sorted[MOST];
	uint32_t count;
	char text[ROOM];
	size_t used;
};

static int is_before(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (unsigned char)*a < (unsigned char)*b;
}

static long add(struct names *names, const char *name)
{
	const size_t size = strlen(name) + 1;
	uint32_t i = names->count;

	if (i == MOST || size > ROOM - names->used)
		return -E2BIG;
	memcpy(names->text + names->used, name, size);
	for (; i > 0 && is_before(name, names->sorted[i - 1]); i--)
		names->sorted[i] = names->sorted[i - 1];
	names->sorted[i] = names->text + names->used;
	names->used += size;
	names->count++;
	return 0;
}

static long list(int directory, struct names *names)
{
	_Alignas(struct dirent64) char entries[4096];
	long n, r = 0;

	while ((n = next_entries(directory, entries, sizeof(entries))) > 0 && r == 0)
		for (long at = 0; at < n && r == 0;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (entry->d_name[0] != '.')
				r = add(names, entry->d_name);
			at += entry->d_reclen;
		}
	return n < 0 ? n : r;
}

static int ends_with(const char *name, const char *ending)
{
	const size_t length = strlen(name), tail = strlen(ending);

	if (length < tail)
		return 0;
	for (size_t i = 0; i < tail; i++)
		if (name[length - tail + i] != ending[i])
			return 0;
	return 1;
}

/* The kernel unpacks the one format that it was built for (CONFIG_MODULE_COMPRESS_*). */
static int is_compressed(const char *name)
{
	return ends_with(name, ".xz") || ends_with(name, ".zst") || ends_with(name, ".gz");
}

/* EEXIST: it is built in, or loaded. */
static long load(int directory, const char *name)
{
	const uint64_t flags = is_compressed(name) ? MODULE_INIT_COMPRESSED_FILE : 0;
	long fd = mc_sys4(SYS_openat, MC_FD(directory), MC_PTR(name), O_RDONLY | O_CLOEXEC, 0), r;

	if (fd < 0)
		return fd;
	r = mc_sys3(SYS_finit_module, fd, MC_PTR(""), flags);
	mc_sys1(SYS_close, fd);
	return r == -EEXIST ? 0 : r;
}

long modules_load(struct guest *g, const char *path)
{
	static struct names names;
	int directory = open_directory(AT_FDCWD, path);
	long r;

	if (directory == -ENOENT)
		return 0;
	if (directory < 0)
		return report(g, "open", path, directory);
	r = list(directory, &names);
	if (r < 0)
		report(g, "getdents64", path, r);
	for (uint32_t i = 0; i < names.count && r == 0; i++) {
		r = load(directory, names.sorted[i]);
		if (r < 0)
			report(g, "finit_module", names.sorted[i], r);
	}
	close_fd(&directory);
	return r;
}
