/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/state.c: the state directory and its mark (minicontainer/runtime.py).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>

#include "compiled/state.h"

#define DIGITS 8 /* of a mark */

void join_path(char *path, size_t size, const char *directory, const char *name)
{
	struct text t = { path, path + size - 1 };

	put(&t, directory);
	put(&t, "/");
	put(&t, name);
	*t.at = 0;
}

long make_directories(const char *path)
{
	char part[4096];
	size_t length = strlen(path);
	long r = -ENAMETOOLONG;

	if (length >= sizeof(part))
		return r;
	for (size_t i = 1; i <= length; i++)
		if (path[i] == '/' || path[i] == 0) {
			memcpy(part, path, i);
			part[i] = 0;
			r = mc_sys3(SYS_mkdirat, MC_FD(AT_FDCWD), MC_PTR(part), 0700);
		}
	return r == -EEXIST ? 0 : r;
}

/* Opens a file for locks; creates it, and the directory, where they are missing. */
long open_lock_file(const char *path)
{
	const uint64_t flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	char directory[4096];
	size_t end = strlen(path);
	long fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), flags, 0600);

	if (fd != -ENOENT || end >= sizeof(directory))
		return fd;
	memcpy(directory, path, end + 1);
	while (end > 0 && directory[end] != '/')
		end--;
	directory[end] = 0;
	make_directories(directory);
	return mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), flags, 0600);
}

static uint32_t crc32(const char *data, size_t size)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < size; i++) {
		crc ^= (unsigned char)data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* Makes the file `mark`, as the library does: another process may do so at the same time, and one of them wins. */
static long make_mark(const char *state, const char *path)
{
	char part[4096], content[DIGITS], name[32];
	struct text c = { content, content + DIGITS }, n = { name, name + sizeof(name) - 1 };
	uint64_t random[2];
	long fd, r;

	mc_sys3(SYS_getrandom, MC_PTR(random), sizeof(random), 0);
	put_hex(&c, random[0], DIGITS);
	put(&n, "mark.");
	put_hex(&n, random[1], 16);
	*n.at = 0;
	join_path(part, sizeof(part), state, name);
	make_directories(state);
	fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(part), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return fd;
	r = mc_sys3(SYS_write, fd, MC_PTR(content), DIGITS);
	if (r == DIGITS)
		r = mc_sys5(SYS_linkat, MC_FD(AT_FDCWD), MC_PTR(part), MC_FD(AT_FDCWD), MC_PTR(path), 0);
	mc_sys1(SYS_close, fd);
	mc_sys3(SYS_unlinkat, MC_FD(AT_FDCWD), MC_PTR(part), 0);
	return r == -EEXIST ? 0 : r;
}

/* The device number as Python shows it (makedev(3)). */
static uint64_t device_number(uint64_t major, uint64_t minor)
{
	return (major & ~0xfffull) << 32 | (major & 0xfff) << 8 | (minor & ~0xffull) << 12 | (minor & 0xff);
}

static long read_mark(const char *path, const struct statx *s, char mark[12])
{
	char line[64], digits[DIGITS + 2];
	struct text t = { line, line + sizeof(line) }, m = { mark, mark + DIGITS };
	long n = mc_read_at(AT_FDCWD, path, digits, sizeof(digits));

	if (n != DIGITS)
		return n < 0 ? n : -EINVAL;
	put_bytes(&t, digits, DIGITS);
	put(&t, " ");
	put_number(&t, (int64_t)device_number(s->stx_dev_major, s->stx_dev_minor));
	put(&t, " ");
	put_number(&t, (int64_t)s->stx_ino);
	put_hex(&m, crc32(line, (size_t)(t.at - line)), DIGITS);
	*m.at = 0;
	return 0;
}

static long find(const char *path, struct statx *s)
{
	return mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS,
		       MC_PTR(s));
}

static int is_known(const struct mc_compiled *c, const struct statx *s)
{
	const uint64_t time = (uint64_t)s->stx_ctime.tv_sec * 1000000000u + s->stx_ctime.tv_nsec;

	return ((uint64_t)s->stx_dev_major << 32 | s->stx_dev_minor) == c->mark_device && s->stx_ino == c->mark_inode &&
	       time == c->mark_time;
}

int state_mark(const struct mc_compiled *c, char mark[12])
{
	const char *state = at(c, c->state);
	char path[4096];
	struct statx s;
	long r;

	join_path(path, sizeof(path), state, "mark");
	r = find(path, &s);
	if (r == -ENOENT)
		r = make_mark(state, path) < 0 ? -ENOENT : find(path, &s);
	memcpy(mark, c->mark, 12);
	if (r == 0 && !is_known(c, &s))
		r = read_mark(path, &s, mark);
	return r < 0 ? complain_errno("state directory", state, r, "a state directory that can be written to") : 0;
}
