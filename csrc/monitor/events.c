/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/events.c: appends an event of the container, one line, to the file `events` of the runtime's state directory,
 * two levels above the container's own (minicontainer/events.py, which limits its size). One write(2) with O_APPEND is
 * atomic, also while other processes write to the file. An event that cannot be written is lost: the container does not
 * wait.
 */
#include <fcntl.h>
#include <string.h>

#include "monitor/monitor.h"

void event_write(const struct mc_monitor *shared, const char *action, const char *key, int64_t number)
{
	char line[512];
	struct text t = { line, line + sizeof(line) };
	long fd = mc_sys4(SYS_openat, MC_FD(shared->directory), MC_PTR("../../events"),
			  O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);

	if (fd < 0)
		return;
	put_time(&t, realtime());
	put(&t, " container ");
	put(&t, action);
	put(&t, " ");
	put(&t, shared->id);
	put(&t, " (");
	if (key) {
		put(&t, key);
		put(&t, "=");
		put_number(&t, number);
		put(&t, shared->name[0] ? ", " : "");
	}
	if (shared->name[0]) {
		put(&t, "name=");
		put(&t, shared->name);
	}
	put(&t, ")\n");
	mc_sys3(SYS_write, fd, MC_PTR(line), (size_t)(t.at - line));
	mc_sys1(SYS_close, fd);
}
