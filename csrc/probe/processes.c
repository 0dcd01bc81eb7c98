/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * processes.c: descriptors, executables and working directories must not refer to the host.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Descriptors above 2 of another process. */
static enum verdict check_descriptors(int pid)
{
	char path[64], link[64], target[PATH_MAX];
	enum verdict verdict = PASS;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	directory = opendir(path);
	if (!directory)
		return PASS; /* not permitted */
	for (struct dirent *entry; verdict == PASS && (entry = readdir(directory));) {
		ssize_t n;

		if (atoi(entry->d_name) <= 2 || pid == getpid())
			continue;
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", pid, atoi(entry->d_name));
		n = readlink(link, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = 0;
		verdict = fail("process %d has %s: %.100s", pid, entry->d_name, target);
	}
	closedir(directory);
	return verdict;
}

static enum verdict descriptors_of_all(const char *argument)
{
	(void)argument;
	return each_process(check_descriptors);
}

/* Tries the numbers, since /proc may be missing. */
static enum verdict own_descriptors(const char *argument)
{
	(void)argument;
	for (int fd = 3; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			return fail("descriptor %d is open", fd);
	return pass("none above 2");
}

static enum verdict no_directory(const char *argument)
{
	struct stat st;

	(void)argument;
	for (int fd = 0; fd < 4096; fd++)
		if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
			return fail("descriptor %d is a directory", fd);
	return pass("no descriptor is a directory");
}

/* CVE-2019-5736: an executable that is neither in the container nor sealed, on a writable mount. */
static enum verdict check_executable(int pid)
{
	char path[64], target[PATH_MAX];
	struct stat program, inside;
	struct statvfs fs;
	ssize_t n;
	int fd, seals, same;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return PASS; /* a kernel thread, or not permitted */
	target[n] = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return PASS;
	seals = fcntl(fd, F_GET_SEALS);
	same = fstat(fd, &program) == 0 && stat(target, &inside) == 0 && program.st_dev == inside.st_dev &&
	       program.st_ino == inside.st_ino;
	n = fstatvfs(fd, &fs) == 0 && (fs.f_flag & ST_RDONLY);
	close(fd);
	if (same || n || (seals > 0 && (seals & F_SEAL_WRITE)))
		return PASS;
	return fail("process %d runs %.100s, which is not the container's", pid, target);
}

static enum verdict programs(const char *argument)
{
	(void)argument;
	return each_process(check_executable);
}

/* The name of an environment variable of the caller. */
static const char *mark;

static enum verdict check_environment(int pid)
{
	static char text[65536];
	char path[64];
	long n;

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	n = read_file(path, text, sizeof(text));
	if (n > 0 && memmem(text, (size_t)n, mark, strlen(mark)))
		return fail("process %d has the caller's %s", pid, mark);
	return PASS;
}

static enum verdict environments(const char *argument)
{
	(void)argument;
	mark = parameter("mark");
	return mark ? each_process(check_environment) : skip("no variable of the caller was given");
}

static enum verdict first_environment(const char *argument)
{
	(void)argument;
	mark = parameter("mark");
	if (!mark)
		return skip("no variable of the caller was given");
	return check_environment(1) == PASS ? pass("process 1 has no variable of the caller's") : FAIL;
}

static enum verdict cwd(const char *argument)
{
	struct stat dot, named;
	char path[PATH_MAX];

	(void)argument;
	if (!getcwd(path, sizeof(path)))
		return fail("getcwd: %s", strerrorname_np(errno));
	if (path[0] != '/')
		return fail("outside: %.100s", path);
	if (stat(".", &dot) || stat(path, &named) || dot.st_ino != named.st_ino || dot.st_dev != named.st_dev)
		return fail("%.100s is another directory", path);
	return pass("%.100s", path);
}

/* CVE-2024-21626: a directory of the host through a leaked descriptor. */
static enum verdict cwd_by_descriptor(const char *argument)
{
	char path[64];

	(void)argument;
	for (int fd = 3; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (chdir(path) == 0)
			return fail("%s leads to a directory", path);
	}
	return pass("no /proc/self/fd/N leads anywhere");
}

static enum verdict host_processes(const char *argument)
{
	char name[64] = "";

	(void)argument;
	read_file("/proc/2/comm", name, sizeof(name));
	return strncmp(name, "kthreadd", 8) ? pass("no kernel thread is visible") : fail("process 2 is kthreadd");
}

const struct check process_checks[] = {
	{"descriptors", "own", own_descriptors, NULL},
	{"descriptors", "of-every-process", descriptors_of_all, NULL},
	{"descriptors", "no-directory", no_directory, NULL},
	{"descriptors", "cwd-inside", cwd, NULL},
	{"descriptors", "cwd-by-descriptor", cwd_by_descriptor, NULL},
	{"programs", "none-of-the-host", programs, NULL},
	{"programs", "first-environment", first_environment, NULL},
	{"programs", "environments", environments, NULL},
	{"programs", "no-host-process", host_processes, NULL},
	{NULL, NULL, NULL, NULL},
};
