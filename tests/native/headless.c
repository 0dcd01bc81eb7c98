/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * headless.c: a process whose main thread exits while another one sleeps.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, sleep_for_ever, NULL))
		return 1;
	syscall(SYS_exit, 0);
	return 1;
}
