/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * privileges.c: capabilities, no_new_privs, seccomp's mode, the user namespace, set-uid files, keyrings.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <errno.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_CAPABILITIES 0xa80405fbull /* docker's, without NET_RAW */
#define NOBODY 65534

static enum verdict within_default(const char *name)
{
	uint64_t mask;

	if (!status_mask(name, &mask))
		return skip("not visible");
	if (mask & ~DEFAULT_CAPABILITIES)
		return fail("%llx, of which %llx is beyond the default", (unsigned long long)mask,
			    (unsigned long long)(mask & ~DEFAULT_CAPABILITIES));
	return pass("%llx", (unsigned long long)mask);
}

static enum verdict empty(const char *name)
{
	uint64_t mask;

	if (!status_mask(name, &mask))
		return skip("not visible");
	return mask ? fail("%llx", (unsigned long long)mask) : pass("empty");
}

static enum verdict no_new_privileges(const char *argument)
{
	(void)argument;
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? pass("set") : fail("not set");
}

static enum verdict filtered(const char *argument)
{
	char value[16] = "";

	(void)argument;
	if (!status_field("Seccomp", value, sizeof(value)))
		return skip("/proc/self/status has no Seccomp");
	return value[0] == '2' ? pass("mode 2") : fail("mode %s", value);
}

/* ---- the user namespace */

static enum verdict not_first_userns(const char *argument)
{
	(void)argument;
	if (in_first_userns() < 0)
		return skip("no /proc/self/uid_map");
	return in_first_userns() ? fail("ids are the host's") : pass("a user namespace of its own");
}

/* Lines of a map: first id inside, first id outside, count (user_namespaces(7)). */
static enum verdict root_is_not_mapped(const char *path)
{
	unsigned long inside, outside, count;
	char text[4096], *line = text;

	if (read_file(path, text, sizeof(text)) <= 0)
		return skip("no %s", path);
	while (line && sscanf(line, "%lu %lu %lu", &inside, &outside, &count) == 3) {
		if (outside == 0)
			return fail("%lu inside is the host's 0", inside);
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return sscanf(text, "%lu %lu %lu", &inside, &outside, &count) == 3
		       ? pass("%lu inside is %lu outside, and so on for %lu", inside, outside, count)
		       : pass("no id is mapped");
}

/* In a writable root file system, packages with set-uid files may be installed: there the check is skipped. */
static enum verdict no_new_set_uid(const char *argument)
{
	long fd = CALL(SYS_memfd_create, (uint64_t)(uintptr_t)"", MFD_CLOEXEC), result;

	(void)argument;
	if (fd < 0)
		return skip("%s", strerrorname_np((int)-fd));
	result = CALL(SYS_fchmod, (uint64_t)fd, 04755);
	close((int)fd);
	if (result < 0)
		return refused(result);
	return access("/", W_OK) == 0 ? skip("the root file system can be changed") : fail("a file becomes set-uid");
}

static enum verdict no_groups(const char *argument)
{
	gid_t groups[64];
	int count = getgroups(64, groups);

	(void)argument;
	return count ? fail("%d further groups, the first %u", count, count > 0 ? groups[0] : 0) : pass("none");
}

/* Executes a set-uid file as an ordinary user. */
static enum verdict set_uid_has_no_effect(const char *argument)
{
	const char *path = parameter("setuid");
	int status = 0;
	pid_t child;

	(void)argument;
	if (!path)
		return skip("no set-uid file of the root file system was given");
	child = fork();
	if (child == 0) {
		if (syscall(SYS_setgroups, 0, NULL), syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY))
			_exit(2);
		execl(path, path, "--effective-user", NULL);
		_exit(3);
	}
	waitpid(child, &status, 0);
	if (!WIFEXITED(status))
		return fail("ended by signal %d", WTERMSIG(status));
	switch (WEXITSTATUS(status)) {
	case 0:
		return pass("the program keeps its ids");
	case 1:
		return fail("the program becomes root");
	case 2:
		return skip("cannot become an ordinary user first");
	default:
		return pass("cannot be executed");
	}
}

/* ---- keyrings */

static enum verdict another_keyring(long special, const char *which)
{
	const char *caller = parameter(which);
	long id;

	if (!caller)
		return skip("the caller's was not given");
	id = CALL(SYS_keyctl, KEYCTL_GET_KEYRING_ID, (uint64_t)special);
	if (id < 0)
		return pass("%s", strerrorname_np((int)-id));
	return id == atol(caller) ? fail("the caller's (%ld)", id) : pass("its own");
}

static enum verdict session_keyring(const char *argument)
{
	(void)argument;
	return another_keyring(KEY_SPEC_SESSION_KEYRING, "session-keyring");
}

static enum verdict user_keyring(const char *argument)
{
	(void)argument;
	return another_keyring(KEY_SPEC_USER_KEYRING, "user-keyring");
}

const struct check privilege_checks[] = {
	{"capabilities", "effective", within_default, "CapEff"},
	{"capabilities", "permitted", within_default, "CapPrm"},
	{"capabilities", "bounding", within_default, "CapBnd"},
	{"capabilities", "inheritable", empty, "CapInh"},
	{"capabilities", "ambient", empty, "CapAmb"},
	{"privileges", "no_new_privs", no_new_privileges, NULL},
	{"privileges", "set-uid", set_uid_has_no_effect, NULL},
	{"privileges", "new-set-uid", no_new_set_uid, NULL},
	{"privileges", "groups", no_groups, NULL},
	{"user namespace", "own", not_first_userns, NULL},
	{"user namespace", "uid_map", root_is_not_mapped, "/proc/self/uid_map"},
	{"user namespace", "gid_map", root_is_not_mapped, "/proc/self/gid_map"},
	{"keyring", "session", session_keyring, NULL},
	{"keyring", "user", user_keyring, NULL},
	{"seccomp", "mode", filtered, NULL},
	{NULL, NULL, NULL, NULL},
};
