/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/failpoint.c: tests make the monitor die as by kill -9 at the point NAME that the environment variable
 * MINICONTAINER_FAILPOINT=monitor:NAME selects.
 */
#include <signal.h>

#include "monitor/monitor.h"

static const char *failpoint_selected;

/* `stack` is the initial stack: argc, argv, NULL, the environment, NULL. */
void failpoint_init(long *stack)
{
	static const char variable[] = "MINICONTAINER_FAILPOINT=monitor:";

	for (char **env = (char **)(stack + stack[0] + 2); *env; env++) {
		const char *text = *env, *wanted = variable;

		while (*wanted && *text == *wanted)
			text++, wanted++;
		if (!*wanted)
			failpoint_selected = text;
	}
}

void failpoint(const char *name)
{
	const char *selected = failpoint_selected;

	if (!selected)
		return;
	while (*name && *name == *selected)
		name++, selected++;
	if (*name == *selected)
		mc_sys2(SYS_kill, (uint64_t)mc_sys0(SYS_getpid), SIGKILL);
}
