/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * exec.c: execvp(3) for a child that shares its creator's memory, and for the static init. It does not allocate
 * memory or search PATH: the caller passes all paths. After a failure it records the executable (struct mc_program),
 * from which the parent derives the error message.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/stat.h>

#include "plan/syscalls.h"
#include "plan/walk.h"

/* chdir(2) follows magic links, so a path can leave the root through a descriptor; getcwd(2) detects it. */
long mc_enter_directory(const char *path)
{
	char cwd[PATH_MAX];
	long r = mc_sys1(SYS_chdir, MC_PTR(path));

	if (r < 0)
		return r;
	r = mc_sys2(SYS_getcwd, MC_PTR(cwd), sizeof(cwd));
	if (r < 0)
		return r;
	return cwd[0] == '/' ? 0 : -EXDEV; /* outside the root it is "(unreachable)/..." */
}

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

#define HEAD 1024  /* bytes: where linkers put the program headers of an ELF file */
#define NAME 256   /* bytes of an interpreter's path: those of a script's line (BINPRM_BUF_SIZE) */
#define CHAIN 7    /* files: a program, the 5 interpreters that the kernel follows (exec_binprm()), an ELF loader */

static int script_interpreter(const char *line, const char *end, char *name)
{
	char *to = name;

	while (line < end && (*line == ' ' || *line == '\t'))
		line++;
	while (line < end && to < name + NAME - 1 && *line && *line != ' ' && *line != '\t' && *line != '\n')
		*to++ = *line++;
	*to = 0;
	return to > name;
}

static int elf_interpreter(int fd, const char *head, long length, char *name)
{
	const ElfW(Ehdr) *elf = (const void *)head;
	long n = 0;

	for (unsigned i = 0; i < elf->e_phnum; i++) {
		uint64_t at = elf->e_phoff + i * sizeof(ElfW(Phdr));
		const ElfW(Phdr) *part = (const void *)(head + at);

		if (elf->e_phoff > HEAD || elf->e_phoff % sizeof(long) || at + sizeof(*part) > (uint64_t)length)
			break;
		if (part->p_type == PT_INTERP)
			n = mc_sys4(SYS_pread64, MC_FD(fd), MC_PTR(name), NAME - 1, part->p_offset);
	}
	name[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* Writes the path of the interpreter that the kernel opens to execute the file `fd` to `name`; 0: there is none. */
static int interpreter(int fd, char *name)
{
	_Alignas(ElfW(Ehdr)) char head[HEAD];
	long n = mc_sys4(SYS_pread64, MC_FD(fd), MC_PTR(head), sizeof(head), 0);

	if (n > 2 && head[0] == '#' && head[1] == '!')
		return script_interpreter(head + 2, head + n, name);
	if (n > (long)sizeof(ElfW(Ehdr)) && head[0] == ELFMAG0 && head[1] == ELFMAG1 && head[2] == ELFMAG2 &&
	    head[3] == ELFMAG3)
		return elf_interpreter(fd, head, n, name);
	return 0;
}

/* Opens the program, and the interpreters that its exec would open, at most CHAIN files. */
static long open_chain(const char *path, int *fds, int *count)
{
	char name[NAME];
	long fd = 0;

	for (*count = 0; *count < CHAIN; path = name) {
		fd = open_or_busy(path);
		if (fd < 0)
			break;
		fds[(*count)++] = (int)fd;
		if (!interpreter((int)fd, name))
			break;
	}
	return fd;
}

int mc_program_inspect(const char *path, uint32_t count, struct mc_program *program)
{
	int fds[CHAIN], opened; /* they stay open until the exec: see open_or_busy() */

	program->path = -1;
	for (uint32_t i = 0; i < count && !inspect_path(program, path, (int)i); i++)
		path = next(path);
	return program->path >= 0 && open_chain(path, fds, &opened) == -EBUSY ? -EBUSY : 0;
}

/* After ENOENT, ENOTDIR and EACCES it tries the next path. It returns the error of the first path that exists. */
long mc_exec(const char *path, uint32_t count, const char **argv, const char **envp, struct mc_program *program,
	     int inspect)
{
	long result = -ENOENT;

	if (inspect)
		program->path = -1;
	for (uint32_t i = 0; i < count; i++, path = next(path)) {
		int fds[CHAIN], opened = 0;
		long r = inspect ? open_chain(path, fds, &opened) : 0;

		if (r != -EBUSY)
			r = mc_sys3(SYS_execve, MC_PTR(path), MC_PTR(argv), MC_PTR(envp));
		while (opened > 0)
			mc_sys1(SYS_close, MC_FD(fds[--opened]));
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
