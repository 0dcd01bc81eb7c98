/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/failpoint.c: where the monitor can be made to die as by kill -9, to see what is left then: at the point that
 * the variable MINICONTAINER_FAILPOINT=monitor:NAME names.
 */
#include <signal.h>

#include "monitor/monitor.h"

static const char *failpoint_named;

/* `stack` is that of the entry: argc, argv, NULL, the environment, NULL. */
void failpoint_begin(long *stack)
{
	static const char variable[] = "MINICONTAINER_FAILPOINT=monitor:";

	for (char **env = (char **)(stack + stack[0] + 2); *env; env++) {
		const char *text = *env, *wanted = variable;

		while (*wanted && *text == *wanted)
			text++, wanted++;
		if (!*wanted)
			failpoint_named = text;
	}
}

void failpoint(const char *name)
{
	const char *named = failpoint_named;

	if (!named)
		return;
	while (*name && *name == *named)
		name++, named++;
	if (*name == *named)
		mc_sys2(SYS_kill, (uint64_t)mc_sys0(SYS_getpid), SIGKILL);
}
