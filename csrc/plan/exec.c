/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * exec.c: execvp(3) for a child that shares its creator's memory, and for the static init: the paths are
 * given, nothing is allocated, and what stood in the way is kept so that the parent can explain it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "plan/syscalls.h"
#include "plan/walk.h"

void mc_strings(const char **table, const char *list, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		table[i] = list;
		while (*list++)
			;
	}
	table[count] = NULL;
}

static int look_at(struct mc_program *program, const char *path, int index)
{
	struct statx sx;
	long fd, n;

	if (mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), 0, STATX_MODE, MC_PTR(&sx)) < 0)
		return 0;
	program->path = index;
	program->mode = sx.stx_mode;
	program->length = 0;
	if ((sx.stx_mode & S_IFMT) != S_IFREG)
		return 1; /* to open a device can be to act on it */
	fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	if (fd < 0)
		return 1;
	n = mc_sys3(SYS_read, fd, MC_PTR(program->head), MC_HEAD);
	program->length = n > 0 ? (uint32_t)n : 0;
	mc_sys1(SYS_close, fd);
	return 1;
}

static const char *next(const char *path)
{
	while (*path++)
		;
	return path;
}

/* Whoever has a lease of a program (F_SETLEASE of fcntl(2)) has its exec wait for as long as fs.lease-break-time, in a call
 * that nothing interrupts here: -EBUSY, at once. What is open is given no such lease, so it is until the exec. */
static long hold(const char *path)
{
	struct statx sx;
	long r;

	if (mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), 0, STATX_MODE, MC_PTR(&sx)) < 0 ||
	    (sx.stx_mode & S_IFMT) != S_IFREG)
		return -ENOENT;
	r = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	return r == -EWOULDBLOCK ? -EBUSY : r;
}

int mc_look(const char *path, uint32_t count, struct mc_program *program)
{
	program->path = -1;
	for (uint32_t i = 0; i < count && !look_at(program, path, (int)i); i++)
		path = next(path);
	return program->path >= 0 && hold(path) == -EBUSY ? -EBUSY : 0; /* held until the exec */
}

/* ENOENT and ENOTDIR of a path that is not there try the next one, EACCES too; what is there is reported. */
long mc_exec(const char *path, uint32_t count, const char **argv, const char **envp, struct mc_program *program, int look)
{
	long result = -ENOENT;

	if (look)
		program->path = -1;
	for (uint32_t i = 0; i < count; i++, path = next(path)) {
		long fd = look ? hold(path) : -ENOENT, r = fd;

		if (fd != -EBUSY)
			r = mc_sys3(SYS_execve, MC_PTR(path), MC_PTR(argv), MC_PTR(envp));
		if (fd >= 0)
			mc_sys1(SYS_close, fd);
		if (look && program->path < 0)
			look_at(program, path, (int)i);
		if (program->path < 0)
			result = r == -ENOTDIR ? -ENOENT : r;
		else if (program->path == (int)i)
			result = r;
		if (r != -ENOENT && r != -ENOTDIR && r != -EACCES)
			return r;
	}
	return result;
}
