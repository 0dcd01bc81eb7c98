/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * main.c: what holds in this container, measured from inside, control by control.
 *
 *     probe [NAME=VALUE...]
 *
 * Theory of operation. One line is written for each check: area, name, pass|fail|skip, what was seen, with tabs between
 * them; and "end" when all are done, so that half a report is not taken for a whole one. The words are what only the outside can know
 * (container/security.py): a check that needs one which is not there is skipped. Each check runs in a child: what it may
 * change ends with it, and a call that kills it or does not return costs no more than its line.
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
	char text[SAID];
} *seen; /* in memory that is shared with the check's process */

static char **words;

#define VERDICT(name, value)                                                                                           \
	enum verdict name(const char *format, ...)                                                                     \
	{                                                                                                              \
		va_list arguments;                                                                                     \
		va_start(arguments, format);                                                                           \
		vsnprintf(seen->text, sizeof(seen->text), format, arguments);                                          \
		va_end(arguments);                                                                                     \
		return value;                                                                                          \
	}
VERDICT(pass, PASS)
VERDICT(fail, FAIL)
VERDICT(skip, SKIP)

const char *told(const char *name)
{
	size_t length = strlen(name);

	for (char **word = words; *word; word++)
		if (!strncmp(*word, name, length) && (*word)[length] == '=')
			return *word + length + 1;
	return NULL;
}

/* 31 is SIGSYS: a filter that kills refuses too. */
static void judge_end(int status)
{
	if (!WIFSIGNALED(status))
		return;
	if (WTERMSIG(status) == SIGSYS)
		seen->verdict = pass("refused by SIGSYS");
	else if (WTERMSIG(status) == SIGALRM)
		seen->verdict = fail("did not return within %d s", SECONDS);
	else
		seen->verdict = fail("ended by signal %d", WTERMSIG(status));
}

static void run(const struct check *check)
{
	static const char *const names[] = {"fail", "pass", "skip", "fail"};
	int status = 0;
	pid_t child;

	seen->verdict = CRASHED;
	strcpy(seen->text, "gave no verdict");
	child = fork();
	if (child == 0) {
		alarm(SECONDS);
		seen->verdict = check->run(check->word);
		_exit(0);
	}
	if (child < 0)
		seen->verdict = fail("fork: %s", strerror(errno));
	else if (waitpid(child, &status, 0) == child)
		judge_end(status);
	for (char *c = seen->text; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = '?';
	printf("%s\t%s\t%s\t%s\n", check->area, check->id, names[seen->verdict], seen->text);
}

int main(int argc, char **argv)
{
	(void)argc;
	if (argv[0] && argv[1] && !strcmp(argv[1], "--effective-user")) /* for the check of set-uid files */
		return geteuid() == 0;
	words = argv + 1;
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seen == MAP_FAILED)
		return 1;
	setvbuf(stdout, NULL, _IOLBF, 0); /* nothing is left in it that a check's process could write too */
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		for (const struct check *check = tables[i]; check->area; check++)
			run(check);
	puts("end");
	return 0;
}
