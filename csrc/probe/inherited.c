/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * inherited.c: what a process gets from the one that started it, which must not be the caller's.
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
		return skip("not to be seen");
	return mask ? fail("%llx", (unsigned long long)mask) : pass("none");
}

static enum verdict safe_umask(const char *word)
{
	mode_t mask = umask(022);

	(void)word;
	return (mask & 022) == 022 ? pass("%03o", mask) : fail("%03o", mask);
}

static enum verdict niceness(const char *word)
{
	int nice;

	(void)word;
	errno = 0;
	nice = getpriority(PRIO_PROCESS, 0);
	return nice ? fail("%d", nice) : pass("0");
}

static enum verdict scheduler(const char *word)
{
	int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;

	(void)word;
	return policy == SCHED_OTHER ? pass("SCHED_OTHER") : fail("policy %d", policy);
}

static enum verdict plain_personality(const char *word)
{
	char text[32];

	(void)word;
	if (slurp("/proc/self/personality", text, sizeof(text)) <= 0)
		return skip("not to be seen");
	return strtoul(text, NULL, 16) ? fail("%.8s", text) : pass("PER_LINUX");
}

/* NAME: a number that the caller has, which no container would be given. */
static enum verdict not_the_callers(const char *name, long long here)
{
	const char *caller = told(name);

	if (!caller)
		return skip("not told of the caller's");
	return atoll(caller) == here ? fail("the caller's (%lld)", here) : pass("%lld", here);
}

static enum verdict oom_score(const char *word)
{
	char text[32];

	(void)word;
	if (slurp("/proc/self/oom_score_adj", text, sizeof(text)) <= 0)
		return skip("not to be seen");
	return not_the_callers("oom_score_adj", atoll(text));
}

static enum verdict limit(const char *name)
{
	struct rlimit limit;

	getrlimit(!strcmp(name, "nofile") ? RLIMIT_NOFILE : RLIMIT_CORE, &limit);
	return not_the_callers(name, (long long)limit.rlim_cur);
}

static enum verdict environment(const char *word)
{
	const char *mark = told("mark");

	(void)word;
	if (!mark)
		return skip("not told of a variable of the caller's");
	return getenv(mark) ? fail("has the caller's %s", mark) : pass("no variable of the caller's");
}

static enum verdict session(const char *word)
{
	const char *caller = told("session");
	pid_t here = getsid(0);

	(void)word;
	if (!caller)
		return skip("not told of the caller's");
	if (here == 0) /* its leader is of another pid namespace */
		return fail("one from outside");
	return is_the_hosts("pid") == 1 && here == atoi(caller) ? fail("the caller's") : pass("its own");
}

static enum verdict secure_bits(const char *word)
{
	int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

	(void)word;
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
