/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/events.c: what happens to the container, as a line of the file `events` of the state directory, which is two
 * above the container's own (minicontainer/events.py, which keeps it short). One write(2) to the end of a file is whole,
 * whoever else writes there. What cannot be written is lost: nobody waits for it.
 */
#include <fcntl.h>
#include <string.h>

#include "monitor/monitor.h"

void event_write(const struct mc_monitor *told, const char *action, const char *key, int64_t number)
{
	char line[512];
	struct text t = { line, line + sizeof(line) };
	long fd = mc_sys4(SYS_openat, MC_FD(told->directory), MC_PTR("../../events"),
			  O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);

	if (fd < 0)
		return;
	put_time(&t, realtime());
	put(&t, " container ");
	put(&t, action);
	put(&t, " ");
	put(&t, told->id);
	put(&t, " (");
	if (key) {
		put(&t, key);
		put(&t, "=");
		put_number(&t, number);
		put(&t, told->name[0] ? ", " : "");
	}
	if (told->name[0]) {
		put(&t, "name=");
		put(&t, told->name);
	}
	put(&t, ")\n");
	mc_sys3(SYS_write, fd, MC_PTR(line), (size_t)(t.at - line));
	mc_sys1(SYS_close, fd);
}
