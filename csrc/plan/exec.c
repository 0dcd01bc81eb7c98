/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * exec.c: execvp(3) for a child that shares its creator's memory, and for the static init. It allocates
 * nothing; the paths are arguments. After a failure it records the executable (struct mc_program), from which
 * the parent derives the error message.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "plan/syscalls.h"
#include "plan/walk.h"

void mc_string_table(const char **table, const char *list, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		table[i] = list;
		while (*list++)
			;
	}
	table[count] = NULL;
}

static int inspect_path(struct mc_program *program, const char *path, int index)
{
	struct statx sx;
	long fd, n;

	if (mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), 0, STATX_MODE, MC_PTR(&sx)) < 0)
		return 0;
	program->path = index;
	program->mode = sx.stx_mode;
	program->length = 0;
	if ((sx.stx_mode & S_IFMT) != S_IFREG)
		return 1; /* opening a device can have side effects */
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

/* While another process has a lease on a file (F_SETLEASE of fcntl(2)), its exec waits for up to
 * /proc/sys/fs/lease-break-time, and no signal interrupts it here: -EBUSY, at once. No lease is granted on an open
 * file, so the descriptor stays open until the exec. */
static long open_or_busy(const char *path)
{
	struct statx sx;
	long r;

	if (mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), 0, STATX_MODE, MC_PTR(&sx)) < 0 ||
	    (sx.stx_mode & S_IFMT) != S_IFREG)
		return -ENOENT;
	r = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	return r == -EWOULDBLOCK ? -EBUSY : r;
}

int mc_program_inspect(const char *path, uint32_t count, struct mc_program *program)
{
	program->path = -1;
	for (uint32_t i = 0; i < count && !inspect_path(program, path, (int)i); i++)
		path = next(path);
	return program->path >= 0 && open_or_busy(path) == -EBUSY ? -EBUSY : 0; /* stays open until the exec */
}

/* After ENOENT, ENOTDIR and EACCES the next path is tried. The result is that of the first path that exists. */
long mc_exec(const char *path, uint32_t count, const char **argv, const char **envp, struct mc_program *program,
	     int inspect)
{
	long result = -ENOENT;

	if (inspect)
		program->path = -1;
	for (uint32_t i = 0; i < count; i++, path = next(path)) {
		long fd = inspect ? open_or_busy(path) : -ENOENT, r = fd;

		if (fd != -EBUSY)
			r = mc_sys3(SYS_execve, MC_PTR(path), MC_PTR(argv), MC_PTR(envp));
		if (fd >= 0)
			mc_sys1(SYS_close, fd);
		if (inspect && program->path < 0)
			inspect_path(program, path, (int)i);
		if (program->path < 0)
			result = r == -ENOTDIR ? -ENOENT : r;
		else if (program->path == (int)i)
			result = r;
		if (r != -ENOENT && r != -ENOTDIR && r != -EACCES)
			return r;
	}
	return result;
}
