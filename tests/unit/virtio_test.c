/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test.c: runs a case of the virtio devices: `virtio_test NAME`. Exits with 0, or says what was not so; without
 * a name it prints all of them, and exits with 2.
 *
 * test_virtio.py compiles it with the virtio_test_*.c and csrc/virtio, under the sanitizers.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio_test.h"

#define TESTS 200
#define SECONDS 100

static struct {
	const char *name;
	void (*body)(void);
} tests[TESTS];
static int ntests;

void test_add(const char *name, void (*body)(void))
{
	if (ntests == TESTS)
		test_fail(__FILE__, __LINE__, "TESTS is too small");
	tests[ntests].name = name;
	tests[ntests++].body = body;
}

void test_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	abort();
}

/* pthread_cancel(3) leaves a stack without telling the sanitizer, which would then find its own variable on it poisoned
 * when it takes its signal stack down. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	alarm(SECONDS);
	for (int i = 0; i < ntests && argc == 2; i++)
		if (strcmp(tests[i].name, argv[1]) == 0) {
			tests[i].body();
			return 0;
		}
	for (int i = 0; i < ntests; i++)
		puts(tests[i].name);
	return 2;
}
