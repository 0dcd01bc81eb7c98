/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * namespaces.c: each is the container's own; none can be made or joined; cgroups.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/utsname.h>
#include <unistd.h>

static enum verdict own(const char *kind)
{
	int same = is_the_hosts(kind);

	if (same < 0)
		return skip(told("ns.pid") ? "not to be seen" : "not told of the host's");
	return same ? fail("the host's") : pass("its own");
}

static enum verdict not_unshared(const char *flag)
{
	return refused(CALL(SYS_unshare, strtoull(flag, NULL, 16)));
}

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define MADE(kind, flag) {"calls", "unshare-" kind, not_unshared, TEXT(flag)}

/* Ours: so nothing is changed where it is permitted. */
static enum verdict not_joined(const char *word)
{
	int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);

	(void)word;
	if (fd < 0)
		return skip("/proc/self/ns/uts: %s", strerrorname_np(errno));
	return refused(CALL(SYS_setns, (uint64_t)fd, CLONE_NEWUTS));
}

static enum verdict own_hostname(const char *word)
{
	const char *host = told("hostname");
	struct utsname system;

	(void)word;
	uname(&system);
	if (!host)
		return skip("not told of the host's");
	return strcmp(system.nodename, host) ? pass("%.60s", system.nodename) : fail("the host's");
}

static enum verdict no_shared_memory(const char *word)
{
	const char *key = told("shm");

	(void)word;
	if (!key)
		return skip("not told of a segment of the host's");
	if (shmget((key_t)strtol(key, NULL, 10), 0, 0) >= 0)
		return fail("a segment of the host's is to be seen");
	return errno == EACCES ? fail("a segment of the host's is there") : pass("%s", strerrorname_np(errno));
}

/* ---- cgroups */

static enum verdict paths_hidden(const char *word)
{
	char text[8192], *line = text;

	(void)word;
	if (slurp("/proc/self/cgroup", text, sizeof(text)) <= 0)
		return pass("not to be seen");
	while (line && *line) {
		char *next = strchr(line, '\n'), *path = strchr(line, '/');

		if (next)
			*next++ = 0;
		if (path && path[1])
			return fail("%.120s", line);
		line = next;
	}
	return pass("every path is /");
}

/* pids.max of either version, where it is to be seen. */
static enum verdict processes_limited(const char *word)
{
	static const char *const files[] = {"/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"};
	char text[32];

	(void)word;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (slurp(files[i], text, sizeof(text)) > 0) {
			text[strcspn(text, "\n")] = 0;
			return !strcmp(text, "max") ? fail("no limit") : pass("%s", text);
		}
	return skip("no pids.max is to be seen");
}

const struct check namespace_checks[] = {
	{"namespaces", "mnt", own, "mnt"},
	{"namespaces", "pid", own, "pid"},
	{"namespaces", "net", own, "net"},
	{"namespaces", "ipc", own, "ipc"},
	{"namespaces", "uts", own, "uts"},
	{"namespaces", "cgroup", own, "cgroup"},
	{"namespaces", "user", own, "user"},
	{"namespaces", "time", own, "time"},
	{"namespaces", "hostname", own_hostname, NULL},
	{"namespaces", "shared-memory", no_shared_memory, NULL},
	MADE("user", CLONE_NEWUSER),
	MADE("mnt", CLONE_NEWNS),
	MADE("pid", CLONE_NEWPID),
	MADE("net", CLONE_NEWNET),
	MADE("ipc", CLONE_NEWIPC),
	MADE("uts", CLONE_NEWUTS),
	MADE("cgroup", CLONE_NEWCGROUP),
	MADE("time", CLONE_NEWTIME),
	{"calls", "setns-own", not_joined, NULL},
	{"cgroups", "paths-hidden", paths_hidden, NULL},
	{"cgroups", "pids.max", processes_limited, NULL},
	{NULL, NULL, NULL, NULL},
};
