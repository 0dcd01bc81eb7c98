/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/ports.c: finds the virtio-console ports by their names, and opens them.
 *
 * A port has a device node (in devtmpfs) before it has a name, which comes with a message of the host; and it is closed
 * at the host's side until another message (handle_control_message() of Linux's drivers/char/virtio_console.c). All
 * are opened nonblocking: a blocking write to a port spins until the host has taken it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"
#include "monitor/text.h"

#define CLASS "/sys/class/virtio-ports"
#define OPEN (O_NONBLOCK | O_CLOEXEC)

enum { CONTROL = ERR + 1, PORTS };

static const struct {
	const char *line; /* the content of the file `name` */
	const char *name;
	int flags;
} ports[PORTS] = {
	[IN] = { "stdin\n", "stdin", OPEN | O_RDONLY },
	[OUT] = { "stdout\n", "stdout", OPEN | O_WRONLY },
	[ERR] = { "stderr\n", "stderr", OPEN | O_WRONLY },
	[CONTROL] = { "control\n", "control", OPEN | O_RDWR },
};

struct found {
	char node[PORTS][32]; /* "/dev/vport0p1"; "": not found */
};

static int is_same(const char *line, const char *text, long length)
{
	for (long i = 0; i < length; i++)
		if (!line[i] || line[i] != text[i])
			return 0;
	return length > 0 && line[length] == 0;
}

static void look_at(int class, const char *device, struct found *found)
{
	char path[280], name[64];
	struct text t = { path, path + sizeof(path) - 1 };
	long n;

	put(&t, device);
	put(&t, "/name");
	*t.at = 0;
	n = mc_read_at(class, path, name, sizeof(name));
	for (int i = 0; i < PORTS; i++) {
		struct text node = { found->node[i], found->node[i] + sizeof(found->node[i]) - 1 };

		if (!is_same(ports[i].line, name, n))
			continue;
		put(&node, "/dev/");
		put(&node, device);
		*node.at = 0;
	}
}

/* Returns how many ports have names. */
static int look(struct found *found)
{
	_Alignas(struct dirent64) char entries[2048];
	int class = open_directory(AT_FDCWD, CLASS), count = 0;
	long n;

	while (class >= 0 && (n = next_entries(class, entries, sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (entry->d_name[0] != '.')
				look_at(class, entry->d_name, found);
			at += entry->d_reclen;
		}
	close_fd(&class);
	for (int i = 0; i < PORTS; i++)
		count += found->node[i][0] != 0;
	return count;
}

static long open_port(struct guest *g, const struct found *found, int i, int *fd)
{
	long r = -ENXIO;

	if (found->node[i][0])
		r = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(found->node[i]), (uint64_t)ports[i].flags, 0);
	if (r < 0)
		return report(g, "port", ports[i].name, r);
	*fd = (int)r;
	return 0;
}

/* Until the host has opened its side, a write would look as one to a host that has gone. */
static long await_host(struct guest *g, struct patience *patience)
{
	struct pollfd polled;

	do {
		polled = (struct pollfd){ g->control.fd, 0, 0 };
		mc_sys5(SYS_ppoll, MC_PTR(&polled), 1, MC_PTR(&(struct timespec){ 0 }), 0, 0);
	} while (polled.revents & POLLHUP && patience_sleep(patience));
	return polled.revents & POLLHUP ? report(g, "port", "control: the host has not opened it", -ENOTCONN) : 0;
}

long ports_open(struct guest *g, int64_t ms)
{
	struct found found = { 0 };
	struct patience patience;
	long r;

	patience_begin(&patience, (int64_t)mc_now() + ms * MS);
	while (look(&found) < PORTS && patience_sleep(&patience))
		;
	r = open_port(g, &found, CONTROL, &g->control.fd);
	for (int i = 0; i < 3 && r == 0; i++)
		r = open_port(g, &found, i, &g->ports[i]);
	g->opened = (int64_t)mc_now();
	return r < 0 ? r : await_host(g, &patience);
}

/* For a report of an earlier failure. */
long ports_open_control(struct guest *g, int64_t ms)
{
	struct found found = { 0 };
	struct patience patience;
	long r;

	patience_begin(&patience, (int64_t)mc_now() + ms * MS);
	while (look(&found) >= 0 && !found.node[CONTROL][0] && patience_sleep(&patience))
		;
	r = open_port(g, &found, CONTROL, &g->control.fd);
	return r < 0 ? r : await_host(g, &patience);
}
