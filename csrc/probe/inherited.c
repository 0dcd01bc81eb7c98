/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * inherited.c: attributes that a process inherits, which must not be the caller's.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static enum verdict no_signal(const char *field)
{
	uint64_t mask;

	if (!status_mask(field, &mask))
		return skip("not visible");
	return mask ? fail("%llx", (unsigned long long)mask) : pass("none");
}

static enum verdict safe_umask(const char *argument)
{
	mode_t mask = umask(022);

	(void)argument;
	return (mask & 022) == 022 ? pass("%03o", mask) : fail("%03o", mask);
}

static enum verdict niceness(const char *argument)
{
	int nice;

	(void)argument;
	errno = 0;
	nice = getpriority(PRIO_PROCESS, 0);
	return nice ? fail("%d", nice) : pass("0");
}

static enum verdict scheduler(const char *argument)
{
	int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;

	(void)argument;
	return policy == SCHED_OTHER ? pass("SCHED_OTHER") : fail("policy %d", policy);
}

static enum verdict plain_personality(const char *argument)
{
	char text[32];

	(void)argument;
	if (read_file("/proc/self/personality", text, sizeof(text)) <= 0)
		return skip("not visible");
	return strtoul(text, NULL, 16) ? fail("%.8s", text) : pass("PER_LINUX");
}

/* `name`: a parameter with the caller's number, which differs from that of every container. */
static enum verdict not_the_callers(const char *name, long long own)
{
	const char *caller = parameter(name);

	if (!caller)
		return skip("the caller's was not given");
	return atoll(caller) == own ? fail("the caller's (%lld)", own) : pass("%lld", own);
}

static enum verdict oom_score(const char *argument)
{
	char text[32];

	(void)argument;
	if (read_file("/proc/self/oom_score_adj", text, sizeof(text)) <= 0)
		return skip("not visible");
	return not_the_callers("oom_score_adj", atoll(text));
}

static enum verdict limit(const char *name)
{
	struct rlimit limit;

	getrlimit(!strcmp(name, "nofile") ? RLIMIT_NOFILE : RLIMIT_CORE, &limit);
	return not_the_callers(name, (long long)limit.rlim_cur);
}

static enum verdict environment(const char *argument)
{
	const char *mark = parameter("mark");

	(void)argument;
	if (!mark)
		return skip("no variable of the caller was given");
	return getenv(mark) ? fail("has the caller's %s", mark) : pass("no variable of the caller's");
}

static enum verdict session(const char *argument)
{
	const char *caller = parameter("session");
	pid_t own = getsid(0);

	(void)argument;
	if (!caller)
		return skip("the caller's was not given");
	if (own == 0) /* the leader is in another pid namespace */
		return fail("one from outside");
	return is_host_namespace("pid") == 1 && own == atoi(caller) ? fail("the caller's") : pass("its own");
}

static enum verdict secure_bits(const char *argument)
{
	int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

	(void)argument;
	return bits > 0 && bits & 0x15 ? fail("%x", bits) : pass("%x", bits); /* KEEP_CAPS, NO_SETUID_FIXUP, NOROOT */
}

const struct check inherited_checks[] = {
	{"inherited", "blocked-signals", no_signal, "SigBlk"},
	{"inherited", "ignored-signals", no_signal, "SigIgn"},
	{"inherited", "umask", safe_umask, NULL},
	{"inherited", "nice", niceness, NULL},
	{"inherited", "scheduler", scheduler, NULL},
	{"inherited", "personality", plain_personality, NULL},
	{"inherited", "oom_score_adj", oom_score, NULL},
	{"inherited", "rlimit-nofile", limit, "nofile"},
	{"inherited", "rlimit-core", limit, "core"},
	{"inherited", "environment", environment, NULL},
	{"inherited", "session", session, NULL},
	{"inherited", "securebits", secure_bits, NULL},
	{NULL, NULL, NULL, NULL},
};
