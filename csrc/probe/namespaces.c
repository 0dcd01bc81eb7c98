/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * namespaces.c: the container has its own namespaces, and cannot create or join others; cgroups.
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
	int same = is_host_namespace(kind);

	if (same < 0)
		return skip(parameter("ns.pid") ? "not visible" : "the host's was not given");
	return same ? fail("the host's") : pass("its own");
}

static enum verdict not_unshared(const char *flag)
{
	return refused(CALL(SYS_unshare, strtoull(flag, NULL, 16)));
}

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define UNSHARE(kind, flag) {"calls", "unshare-" kind, not_unshared, TEXT(flag)}

/* Joins its own namespace: nothing changes if this is permitted. */
static enum verdict not_joined(const char *argument)
{
	int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);

	(void)argument;
	if (fd < 0)
		return skip("/proc/self/ns/uts: %s", strerrorname_np(errno));
	return refused(CALL(SYS_setns, (uint64_t)fd, CLONE_NEWUTS));
}

static enum verdict own_hostname(const char *argument)
{
	const char *host = parameter("hostname");
	struct utsname system;

	(void)argument;
	uname(&system);
	if (!host)
		return skip("the host's was not given");
	return strcmp(system.nodename, host) ? pass("%.60s", system.nodename) : fail("the host's");
}

static enum verdict no_shared_memory(const char *argument)
{
	const char *key = parameter("shm");

	(void)argument;
	if (!key)
		return skip("no segment of the host was given");
	if (shmget((key_t)strtol(key, NULL, 10), 0, 0) >= 0)
		return fail("a segment of the host is visible");
	return errno == EACCES ? fail("a segment of the host is there") : pass("%s", strerrorname_np(errno));
}

/* ---- cgroups */

static enum verdict paths_hidden(const char *argument)
{
	char text[8192], *line = text;

	(void)argument;
	if (read_file("/proc/self/cgroup", text, sizeof(text)) <= 0)
		return pass("not visible");
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

/* pids.max of cgroup v2 or v1, if it is visible. */
static enum verdict processes_limited(const char *argument)
{
	static const char *const files[] = {"/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"};
	char text[32];

	(void)argument;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (read_file(files[i], text, sizeof(text)) > 0) {
			text[strcspn(text, "\n")] = 0;
			return !strcmp(text, "max") ? fail("no limit") : pass("%s", text);
		}
	return skip("no pids.max is visible");
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
	UNSHARE("user", CLONE_NEWUSER),
	UNSHARE("mnt", CLONE_NEWNS),
	UNSHARE("pid", CLONE_NEWPID),
	UNSHARE("net", CLONE_NEWNET),
	UNSHARE("ipc", CLONE_NEWIPC),
	UNSHARE("uts", CLONE_NEWUTS),
	UNSHARE("cgroup", CLONE_NEWCGROUP),
	UNSHARE("time", CLONE_NEWTIME),
	{"calls", "setns-own", not_joined, NULL},
	{"cgroups", "paths-hidden", paths_hidden, NULL},
	{"cgroups", "pids.max", processes_limited, NULL},
	{NULL, NULL, NULL, NULL},
};
