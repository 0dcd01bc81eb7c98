/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * main.c: checks the security controls of a container from inside.
 *
 *     probe [NAME=VALUE...]
 *
 * Theory of operation. Each check writes one line: area, name, pass|fail|skip, text, separated by tabs; "end" follows
 * the last, so that a truncated report is detected. The arguments are facts about the outside
 * (container/security.py); a check whose fact is missing is skipped. Each check runs in a child: its changes end with
 * the child, and a call that kills the child or does not return affects only the line of this check.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 5 /* for one check */

static const struct check *const tables[] = {process_checks, path_checks, device_checks, privilege_checks,
					     call_checks, socket_checks, namespace_checks, inherited_checks};

static struct {
	enum verdict verdict;
	char text[TEXT_MAX];
} *result; /* in memory that is shared with the check's process */

static char **parameters;

#define VERDICT(name, value)                                                                                   \
	enum verdict name(const char *format, ...)                                                             \
	{                                                                                                      \
		va_list arguments;                                                                             \
		va_start(arguments, format);                                                                   \
		vsnprintf(result->text, sizeof(result->text), format, arguments);                              \
		va_end(arguments);                                                                             \
		return value;                                                                                  \
	}
VERDICT(pass, PASS)
VERDICT(fail, FAIL)
VERDICT(skip, SKIP)

const char *parameter(const char *name)
{
	size_t length = strlen(name);

	for (char **p = parameters; *p; p++)
		if (!strncmp(*p, name, length) && (*p)[length] == '=')
			return *p + length + 1;
	return NULL;
}

/* SIGSYS is a refusal too: the seccomp filter kills the process. */
static void judge_end(int status)
{
	if (!WIFSIGNALED(status))
		return;
	if (WTERMSIG(status) == SIGSYS)
		result->verdict = pass("refused by SIGSYS");
	else if (WTERMSIG(status) == SIGALRM)
		result->verdict = fail("did not return within %d s", SECONDS);
	else
		result->verdict = fail("ended by signal %d", WTERMSIG(status));
}

static void run(const struct check *check)
{
	static const char *const names[] = {"fail", "pass", "skip", "fail"};
	int status = 0;
	pid_t child;

	result->verdict = CRASHED;
	strcpy(result->text, "gave no verdict");
	child = fork();
	if (child == 0) {
		alarm(SECONDS);
		result->verdict = check->run(check->argument);
		_exit(0);
	}
	if (child < 0)
		result->verdict = fail("fork: %s", strerror(errno));
	else if (waitpid(child, &status, 0) == child)
		judge_end(status);
	for (char *c = result->text; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = '?';
	printf("%s\t%s\t%s\t%s\n", check->area, check->id, names[result->verdict], result->text);
}

int main(int argc, char **argv)
{
	(void)argc;
	if (argv[0] && argv[1] && !strcmp(argv[1], "--effective-user")) /* executed by the check of set-uid files */
		return geteuid() == 0;
	parameters = argv + 1;
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (result == MAP_FAILED)
		return 1;
	setvbuf(stdout, NULL, _IOLBF, 0); /* a child must not inherit buffered output, and write it again */
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		for (const struct check *check = tables[i]; check->area; check++)
			run(check);
	puts("end");
	return 0;
}
