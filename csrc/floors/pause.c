/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pause.c: reads standard input to its end, and exits with 0; with the argument for-ever it sleeps instead, others are
 * ignored. It has no libc, so running it costs little more than its exec. With /dev/null as its input it is the program
 * of measured containers; with a pipe it lives until the pipe is closed.
 */
#include "helpers/start.h"
#include "plan/syscalls.h"

MC_START(pause_main);

__attribute__((used, noreturn)) static void pause_main(const long *stack)
{
	const char *argument = stack[0] > 1 ? (const char *)stack[2] : "", *word = "for-ever";
	char byte;

	while (*word && *argument == *word)
		argument++, word++;
	while (!*word)
		mc_sys4(SYS_ppoll, 0, 0, 0, 0);
	while (mc_sys3(SYS_read, 0, MC_PTR(&byte), 1) > 0)
		;
	for (;;)
		mc_sys1(SYS_exit_group, 0);
}
