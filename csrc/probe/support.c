/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * support.c: functions for the checks: files of /proc, system calls, namespaces.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

long read_file(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t have = 0;
	ssize_t n = 0;

	buffer[0] = 0;
	if (fd < 0)
		return -errno;
	while (have < size - 1 && (n = read(fd, buffer + have, size - 1 - have)) > 0)
		have += (size_t)n;
	buffer[have] = 0;
	n = n < 0 && !have ? -errno : (ssize_t)have;
	close(fd);
	return n;
}

int status_field(const char *name, char *value, size_t size)
{
	char text[8192], *at = text;
	size_t length = strlen(name);

	if (read_file("/proc/self/status", text, sizeof(text)) <= 0)
		return 0;
	for (; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (!strncmp(at, name, length) && at[length] == ':') {
			at += length + 1;
			at += strspn(at, " \t");
			snprintf(value, size, "%.*s", (int)strcspn(at, "\n"), at);
			return 1;
		}
	return 0;
}

int status_mask(const char *name, uint64_t *mask)
{
	char value[64];

	if (!status_field(name, value, sizeof(value)))
		return 0;
	*mask = strtoull(value, NULL, 16);
	return 1;
}

enum verdict each_process(enum verdict (*check)(int pid))
{
	DIR *proc = opendir("/proc");
	enum verdict verdict = PASS;
	int count = 0;

	if (!proc)
		return skip("/proc: %s", strerror(errno));
	for (struct dirent *entry; verdict == PASS && (entry = readdir(proc));)
		if (isdigit((unsigned char)entry->d_name[0])) {
			verdict = check(atoi(entry->d_name));
			count++;
		}
	closedir(proc);
	if (verdict != PASS)
		return verdict;
	return count ? pass("of %d processes", count) : skip("no process is visible");
}

long call(long number, const uint64_t arguments[6])
{
	return mc_sys(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

int is_refusal(long result)
{
	return result == -EPERM || result == -EACCES || result == -ENOSYS;
}

enum verdict refused(long result)
{
	if (is_refusal(result))
		return pass("%s", strerrorname_np((int)-result));
	if (result >= 0)
		return fail("permitted");
	return fail("permitted, and came as far as %s", strerrorname_np((int)-result));
}

int in_first_userns(void)
{
	unsigned long inside = 1, outside = 1, count = 0;
	char map[256];

	if (read_file("/proc/self/uid_map", map, sizeof(map)) <= 0)
		return -1;
	return sscanf(map, "%lu %lu %lu", &inside, &outside, &count) == 3 && !inside && !outside &&
	       count == 4294967295ul;
}

int is_host_namespace(const char *namespace)
{
	char path[32], name[16], link[64] = "";
	const char *host;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", namespace);
	snprintf(name, sizeof(name), "ns.%s", namespace);
	host = parameter(name);
	if (!host || readlink(path, link, sizeof(link) - 1) <= 0)
		return -1;
	return !strcmp(link, host);
}

int has_capability(int number)
{
	uint64_t mask = ~0ull;

	status_mask("CapEff", &mask);
	return mask >> number & 1;
}

int fork_sleeper(void)
{
	int child = fork();

	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, 9);
	for (;;)
		pause();
}
