/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * place.c: takes a container's ownership lock (minicontainer/container/registry/ownership.py), and makes its cgroup
 * (minicontainer/container/cgroup/placement.py). The lock is taken before the cgroup is visible.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <string.h>
#include <unistd.h>

#include "plan/syscalls.h"
#include "start/start.h"

static int digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* A container's place from that of others, whose `name` is what follows the id in the names of their cgroups. */
void mc_place_like(struct mc_place *place, const struct mc_place *like, const char *id)
{
	*place = *like;
	place->lock = place->cgroup = -1;
	memcpy(place->id, id, MC_ID_DIGITS);
	memcpy(place->name, id, MC_ID_DIGITS);
	memcpy(place->name + MC_ID_DIGITS, like->name, sizeof(place->name) - MC_ID_DIGITS);
}

/* A lock on bytes of a file that belongs to its open file description (fcntl(2), F_OFD_SETLK): 0, or -EAGAIN where
 * another has it. `type` is F_WRLCK or F_RDLCK. */
int mc_lock(int fd, int type, uint64_t start, uint64_t length)
{
	struct flock bytes = { .l_type = (short)type, .l_whence = SEEK_SET };

	bytes.l_start = (off_t)start;
	bytes.l_len = (off_t)length;
	return (int)mc_sys3(SYS_fcntl, MC_FD(fd), F_OFD_SETLK, MC_PTR(&bytes));
}

/* 1: another open file description has a lock on the byte; 0: none has; or -errno. */
int mc_is_locked(int fd, uint64_t start)
{
	struct flock byte = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	long r;

	byte.l_start = (off_t)start;
	r = mc_sys3(SYS_fcntl, MC_FD(fd), F_OFD_GETLK, MC_PTR(&byte));
	return r < 0 ? (int)r : byte.l_type != F_UNLCK;
}

/* The lock's file is named after the last two digits of the id; its byte is the one whose offset is the id. */
static long take_lock(struct mc_place *place)
{
	char path[PATH_MAX];
	size_t n = strlen(place->owners);
	uint64_t id = 0;
	long fd, r;

	if (n + 4 > sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, place->owners, n);
	path[n] = '/';
	memcpy(path + n + 1, place->id + MC_ID_DIGITS - 2, 2);
	path[n + 3] = 0;
	for (int i = 0; i < MC_ID_DIGITS; i++)
		id = id << 4 | (uint64_t)digit(place->id[i]);
	fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path),
		     O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return fd;
	r = mc_lock((int)fd, F_WRLCK, id, 1);
	if (r < 0)
		mc_sys1(SYS_close, MC_FD(fd));
	return r < 0 ? r : fd;
}

static long attach(const struct mc_place *place)
{
	union bpf_attr attr = { 0 };

	attr.target_fd = (uint32_t)place->cgroup;
	attr.attach_bpf_fd = (uint32_t)place->devices;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	return mc_sys3(SYS_bpf, BPF_PROG_ATTACH, MC_PTR(&attr), sizeof(attr));
}

static long perform(struct mc_place *place, enum mc_placing what)
{
	switch (what) {
	case MC_PLACE_LOCK:
		return take_lock(place);
	case MC_PLACE_MKDIR:
		return mc_sys3(SYS_mkdirat, MC_FD(place->parent), MC_PTR(place->name), 0755);
	case MC_PLACE_OPEN:
		return mc_sys4(SYS_openat, MC_FD(place->parent), MC_PTR(place->name),
			       O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	case MC_PLACE_PIDS:
		return mc_write_at(place->cgroup, "pids.max", place->pids, strlen(place->pids));
	case MC_PLACE_DEVICES:
		return attach(place);
	case MC_PLACINGS:
		break;
	}
	return -EINVAL;
}

static long timed(struct mc_place *place, enum mc_placing what)
{
	struct mc_record *record = &place->records[what];

	record->start_ns = mc_now();
	record->result = perform(place, what);
	record->end_ns = mc_now();
	return record->result;
}

static long undo(struct mc_place *place, long error)
{
	if (place->lock >= 0)
		mc_sys1(SYS_close, MC_FD(place->lock));
	place->lock = -1;
	return error;
}

/* 0, or -errno of the lock or the cgroup; the caller looks at the results of pids.max and of the devices. */
int mc_place(struct mc_place *place)
{
	long r;

	place->lock = place->cgroup = -1;
	if (place->owners) {
		r = timed(place, MC_PLACE_LOCK);
		if (r < 0)
			return (int)r;
		place->lock = (int32_t)r;
	}
	r = timed(place, MC_PLACE_MKDIR);
	if (r < 0)
		return (int)undo(place, r);
	r = timed(place, MC_PLACE_OPEN);
	if (r < 0) {
		mc_sys3(SYS_unlinkat, MC_FD(place->parent), MC_PTR(place->name), AT_REMOVEDIR);
		return (int)undo(place, r);
	}
	place->cgroup = (int32_t)r;
	if (place->pids)
		timed(place, MC_PLACE_PIDS);
	if (place->devices >= 0)
		timed(place, MC_PLACE_DEVICES);
	return 0;
}
