/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/ids.c: a range of ids for a container of root (minicontainer/container/ids/ranges.py): a lock on the bytes
 * of its user ids, and a byte that says that it was given away.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "compiled/state.h"

#define DIRECTORY "/run/minicontainer/id-ranges"
#define WIDTH 65536u
#define IDS_PER_FILE (64 * WIDTH)

struct range {
	uint32_t uid, gid, count;
};

static long open_file(uint32_t number)
{
	char path[64] = DIRECTORY "/";
	struct text t = { path + sizeof(DIRECTORY), path + sizeof(path) - 1 };

	put_number(&t, number);
	*t.at = 0;
	return open_lock_file(path);
}

static long lock_file(uint32_t number, const struct range *ids, int type)
{
	struct flock lock = { .l_type = (short)type, .l_whence = SEEK_SET, .l_start = ids->uid, .l_len = ids->count };
	long fd = open_file(number), r;

	if (fd < 0)
		return fd;
	r = mc_sys3(SYS_fcntl, fd, F_OFD_SETLK, MC_PTR(&lock));
	if (r < 0)
		mc_sys1(SYS_close, fd);
	return r < 0 ? r : fd;
}

static void unlock(int fds[2])
{
	for (int i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			mc_sys1(SYS_close, MC_FD(fds[i]));
		fds[i] = -1;
	}
}

/* A range has one file, or two. */
static long lock(const struct range *ids, int type, int fds[2])
{
	const uint32_t first = ids->uid / IDS_PER_FILE, last = (ids->uid + ids->count - 1) / IDS_PER_FILE;
	long fd = 0;

	for (uint32_t number = first; number <= last && number < first + 2 && fd >= 0; number++) {
		fd = lock_file(number, ids, type);
		fds[number - first] = fd < 0 ? -1 : (int)fd;
	}
	if (fd < 0)
		unlock(fds);
	return fd < 0 ? fd : 0;
}

/* ---- whether a process has a range mapped that was not released */

static const char *number(const char *text, uint64_t *value)
{
	while (*text == ' ')
		text++;
	for (*value = 0; *text >= '0' && *text <= '9'; text++)
		*value = *value * 10 + (uint64_t)(*text - '0');
	return text;
}

static int maps(const char *map, const struct range *ids)
{
	while (*map) {
		uint64_t inside, outside, count;

		map = number(number(number(map, &inside), &outside), &count);
		if (inside != outside && outside < (uint64_t)ids->uid + ids->count && ids->uid < outside + count)
			return 1;
		while (*map && *map++ != '\n')
			;
	}
	return 0;
}

static int process_maps(int proc, const char *pid, const struct range *ids)
{
	static char map[16384];
	char path[280];
	long n;

	join_path(path, sizeof(path), pid, "uid_map");
	n = mc_read_at(proc, path, map, sizeof(map) - 1);
	map[n > 0 ? n : 0] = 0;
	return maps(map, ids);
}

static int is_mapped(const struct range *ids)
{
	static _Alignas(struct dirent64) char entries[8192];
	long proc = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/proc"), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), n;
	int found = 0;

	while (!found && (n = mc_sys3(SYS_getdents64, proc, MC_PTR(entries), sizeof(entries))) > 0)
		for (long at = 0; at < n && !found;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
				found = process_maps((int)proc, entry->d_name, ids);
			at += entry->d_reclen;
		}
	mc_sys1(SYS_close, proc);
	return found;
}

/* ---- the pool */

static int is_excluded(const struct mc_compiled *c, const struct range *ids)
{
	const uint32_t *pairs = at(c, c->excluded.at);

	for (uint32_t i = 0; i < c->excluded.count; i += 2)
		if (pairs[i] < ids->uid + ids->count && ids->uid < pairs[i + 1])
			return 1;
	return 0;
}

static long try_take(struct runner *r, const struct range *ids)
{
	const char set = 1;
	char byte = 0;
	long e = is_excluded(r->c, ids) ? -EAGAIN : lock(ids, F_WRLCK, r->ids);

	if (e < 0)
		return e;
	mc_sys4(SYS_pread64, MC_FD(r->ids[0]), MC_PTR(&byte), 1, ids->uid / WIDTH);
	if (byte && is_mapped(ids)) {
		unlock(r->ids);
		return -EAGAIN;
	}
	e = mc_sys4(SYS_pwrite64, MC_FD(r->ids[0]), MC_PTR(&set), 1, ids->uid / WIDTH);
	if (e < 0)
		unlock(r->ids);
	return e;
}

static long take_of_pool(struct runner *r, struct range *ids)
{
	const uint32_t from = (uint32_t)mc_sys0(SYS_getpid), size = r->c->id_count;
	long e = -EAGAIN;

	for (uint32_t i = 0; i < size && (e == -EAGAIN || e == -EACCES); i++) {
		const uint32_t index = (from + i) % size;

		*ids = (struct range){ r->c->uid_first + index * WIDTH, r->c->gid_first + index * WIDTH, WIDTH };
		e = try_take(r, ids);
	}
	r->ids_byte = e < 0 ? -1 : (int64_t)(ids->uid / WIDTH);
	return e;
}

/* ---- a range that other containers may have too */

/* Sets the byte of each range that overlaps these ids to 2: who takes that range for itself then looks for processes
 * that have it mapped. Returns whether a container was given one of them for itself, and has not given it back. */
static int mark_shared(const struct range *ids)
{
	const uint32_t first = ids->uid < WIDTH ? 0 : (ids->uid - WIDTH + 1) / WIDTH; /* a range may begin before it */
	const uint32_t last = (ids->uid + ids->count - 1) / WIDTH;
	const char two = 2;
	int is_exclusive = 0;

	for (uint32_t i = first; i <= last; i++) {
		long fd = open_file(i / (IDS_PER_FILE / WIDTH));
		char byte = 0;

		mc_sys4(SYS_pread64, fd, MC_PTR(&byte), 1, i);
		is_exclusive |= byte == 1;
		if (!byte)
			mc_sys4(SYS_pwrite64, fd, MC_PTR(&two), 1, i);
		mc_sys1(SYS_close, fd);
	}
	return is_exclusive;
}

static long take_shared(struct runner *r, struct range *ids)
{
	long e;

	*ids = (struct range){ r->c->uid_first, r->c->gid_first, r->c->id_count };
	e = lock(ids, F_RDLCK, r->ids);
	if (e == 0 && mark_shared(ids) && is_mapped(ids)) {
		unlock(r->ids);
		return -EAGAIN;
	}
	return e;
}

int ids_take(struct runner *r)
{
	const int is_shared = r->c->ids == MC_IDS_SHARED;
	const uint64_t start = mc_now();
	struct range ids;
	long e;

	if (r->c->ids == MC_IDS_NONE)
		return 0;
	e = is_shared ? take_shared(r, &ids) : take_of_pool(r, &ids);
	if ((e == -EAGAIN || e == -EACCES) && is_shared)
		return complain("--userns", NULL, "a running container was given some of these ids", "others, or auto");
	if (e == -EAGAIN || e == -EACCES)
		return complain("--userns", "auto", "all ranges of ids are taken", "more in /etc/subuid");
	if (e < 0)
		return complain_errno("--userns", NULL, e, DIRECTORY);
	r->uid = ids.uid, r->gid = ids.gid, r->id_count = ids.count;
	note(r, "user namespace", "lock ids", start, 0);
	return 0;
}

void ids_release(struct runner *r)
{
	const char none = 0;

	if (r->ids_byte >= 0)
		mc_sys4(SYS_pwrite64, MC_FD(r->ids[0]), MC_PTR(&none), 1, (uint64_t)r->ids_byte);
	r->ids_byte = -1;
	unlock(r->ids);
}
