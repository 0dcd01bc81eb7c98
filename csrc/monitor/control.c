/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/control.c: the socket `control` of the state directory, and what is said on it (enum mc_word). There is no
 * answer: what came of it is in `state`, and its end is ours. Who may enter the directory may speak. Input waits in the
 * socket of who has said it until the program takes it; nobody else does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "monitor/monitor.h"

/* The directory is our current one: no path is too long for an address. */
void control_open(struct control *c)
{
	const struct sockaddr_un address = { AF_UNIX, "control" };

	for (int i = 0; i < MC_CLIENTS; i++)
		c->clients[i].fd = -1;
	mc_sys3(SYS_unlinkat, MC_FD(AT_FDCWD), MC_PTR("control"), 0);
	c->listener = (int)mc_sys3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mc_sys3(SYS_bind, MC_FD(c->listener), MC_PTR(&address), sizeof(address));
	mc_sys2(SYS_listen, MC_FD(c->listener), 128);
}

/* A place for another: where there is none, or no descriptor, that of who has said nothing for longest. Who wants more of
 * us connects again; so no number of them keeps a new one from being heard, or us from writing what becomes of it. */
static struct client *make_place(struct control *c)
{
	for (;;) {
		struct client *place = NULL, *silent = NULL;

		for (int i = MC_CLIENTS - 1; i >= 0; i--) {
			struct client *client = &c->clients[i];

			if (client->fd < 0)
				place = client;
			else if (!silent || client->heard < silent->heard)
				silent = client;
		}
		if (place && (!silent || has_room(MC_OWN + 1)))
			return place;
		close_fd(&silent->fd);
	}
}

/* All of them, for what needs their descriptors more; whether there were any. */
int control_drop(struct control *c)
{
	int dropped = 0;

	for (int i = 0; i < MC_CLIENTS; i++) {
		dropped |= c->clients[i].fd >= 0;
		close_fd(&c->clients[i].fd);
	}
	return dropped;
}

int control_accept(struct control *c)
{
	struct client *client = make_place(c);
	long fd = mc_sys4(SYS_accept4, MC_FD(c->listener), 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return -1;
	*client = (struct client){ (int)fd, 0, (int64_t)mc_now() };
	return (int)(client - c->clients);
}

static void send_signal(struct mc_monitor *told, int signal)
{
	if (told->spawn.pidfd >= 0)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(told->spawn.pidfd), (uint64_t)signal, 0, 0);
}

/* What stands still hears nothing: it goes on, to heed the signal. */
void control_stop(struct control *c, struct mc_monitor *told, int signal, int64_t timeout_ms)
{
	c->stopping = 1;
	send_signal(told, signal ? signal : told->stop_signal);
	cgroup_thaw(told);
	if (timeout_ms >= 0)
		c->kill_at = (int64_t)mc_now() + timeout_ms * MS;
}

static void resize(struct streams *s, const struct mc_say *say)
{
	struct winsize size = { .ws_row = (unsigned short)say->first, .ws_col = (unsigned short)say->second };

	if (s->peer >= 0)
		mc_sys3(SYS_ioctl, MC_FD(s->out), TIOCSWINSZ, MC_PTR(&size));
}

static void obey(struct control *c, struct mc_monitor *told, struct streams *s, const struct mc_say *say)
{
	switch (say->word) {
	case MC_SAY_WINDOW:
		resize(s, say);
		break;
	case MC_SAY_SIGNAL:
		if (say->first == SIGKILL || say->first == told->stop_signal)
			c->stopping = 1;
		send_signal(told, say->first);
		break;
	case MC_SAY_STOP:
		control_stop(c, told, say->first, say->second);
		break;
	case MC_SAY_POLICY:
		told->policy = (uint32_t)say->first;
		told->retries = (uint32_t)say->second;
		break;
	}
}

/* Whether what it says next has to wait for what the program has not taken yet. All else is heard at once. */
static int has_to_wait(struct client *client, const struct streams *s)
{
	char word = 0;

	if (s->begin == s->filled)
		return 0;
	mc_sys(SYS_recvfrom, MC_FD(client->fd), MC_PTR(&word), 1, MSG_PEEK | MSG_DONTWAIT, 0, 0);
	client->holds = word == MC_SAY_INPUT || word == MC_SAY_EOF;
	return client->holds;
}

/* One message. */
void control_hear(struct control *c, struct client *client, struct mc_monitor *told, struct streams *s)
{
	_Alignas(struct mc_say) static char data[sizeof(s->input) + 1];
	long n;

	if (has_to_wait(client, s))
		return;
	n = mc_sys(SYS_recvfrom, MC_FD(client->fd), MC_PTR(data), sizeof(data), MSG_DONTWAIT, 0, 0);
	if (n == -EAGAIN || n == -EINTR)
		return;
	client->heard = (int64_t)mc_now();
	if (n <= 0) {
		close_fd(&client->fd);
	} else if (data[0] == MC_SAY_INPUT) {
		memcpy(s->input, data + 1, (size_t)n - 1);
		s->begin = 0;
		s->filled = (uint32_t)n - 1;
		streams_feed(s);
	} else if (data[0] == MC_SAY_EOF) {
		s->input_ends = 1;
		streams_feed(s);
	} else if (data[0] == MC_SAY_NAME && n - 1 < MC_NAME) {
		memcpy(told->name, data + 1, (size_t)n - 1);
		told->name[n - 1] = 0;
	} else if (n == sizeof(struct mc_say)) {
		obey(c, told, s, (const struct mc_say *)data);
	}
}
