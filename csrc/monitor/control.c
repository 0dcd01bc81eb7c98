/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/control.c: the socket `control` of the state directory, and the requests that clients send on it (enum
 * mc_request_type). There is no reply: the result is in `state`, and the connection ends with the monitor. Every
 * process with access to the directory may send requests. Input stays in its client's socket until the program has read
 * the input before it; other requests do not wait.
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

/* The state directory is the working directory, so the socket's name fits into sun_path (unix(7)). */
int control_open(struct control *c)
{
	const struct sockaddr_un address = { AF_UNIX, "control" };
	long r;

	for (int i = 0; i < MC_CLIENTS; i++)
		c->clients[i].fd = -1;
	mc_sys3(SYS_unlinkat, MC_FD(AT_FDCWD), MC_PTR("control"), 0);
	c->listener = (int)mc_sys3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0)
		return c->listener;
	r = mc_sys3(SYS_bind, MC_FD(c->listener), MC_PTR(&address), sizeof(address));
	return (int)(r < 0 ? r : mc_sys2(SYS_listen, MC_FD(c->listener), 128));
}

/* Returns the entry for a new client. If the table is full, or descriptors run out, the client that has been idle for
 * the longest time is disconnected (it may connect again). So no number of clients keeps out a new client, or keeps the
 * monitor from writing its files. */
static struct client *take_client_entry(struct control *c)
{
	for (;;) {
		struct client *unused = NULL, *idle = NULL;

		for (int i = MC_CLIENTS - 1; i >= 0; i--) {
			struct client *client = &c->clients[i];

			if (client->fd < 0)
				unused = client;
			else if (!idle || client->active_at < idle->active_at)
				idle = client;
		}
		if (unused && (!idle || fds_available(MC_SPARE_FDS + 1)))
			return unused;
		close_fd(&idle->fd);
	}
}

/* Disconnects all clients, to free their descriptors. Returns whether there were any. */
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
	struct client *client = take_client_entry(c);
	long fd = mc_sys4(SYS_accept4, MC_FD(c->listener), 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return -1;
	*client = (struct client){ (int)fd, 0, (int64_t)mc_now() };
	return (int)(client - c->clients);
}

static void send_signal(struct mc_monitor *shared, int signal)
{
	if (shared->spawn.pidfd >= 0)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(shared->spawn.pidfd), (uint64_t)signal, 0, 0);
}

/* A frozen process does not handle signals, so the cgroup is thawed. */
void control_stop(struct control *c, struct mc_monitor *shared, int signal, int64_t timeout_ms)
{
	c->stopping = 1;
	send_signal(shared, signal ? signal : shared->stop_signal);
	cgroup_thaw(shared->cgroup);
	if (timeout_ms >= 0)
		c->kill_at = (int64_t)mc_now() + timeout_ms * MS;
}

static void resize(struct streams *s, const struct mc_request *request)
{
	struct winsize size = { .ws_row = (unsigned short)request->first, .ws_col = (unsigned short)request->second };

	if (s->peer >= 0)
		mc_sys3(SYS_ioctl, MC_FD(s->out), TIOCSWINSZ, MC_PTR(&size));
}

static void handle_request(struct control *c, struct mc_monitor *shared, struct streams *s,
			   const struct mc_request *request)
{
	switch (request->type) {
	case MC_REQUEST_WINDOW:
		resize(s, request);
		break;
	case MC_REQUEST_SIGNAL:
		if (request->first == SIGKILL || request->first == shared->stop_signal)
			c->stopping = 1;
		send_signal(shared, request->first);
		break;
	case MC_REQUEST_STOP:
		control_stop(c, shared, request->first, request->second);
		break;
	case MC_REQUEST_POLICY:
		shared->policy = (uint32_t)request->first;
		shared->retries = (uint32_t)request->second;
		break;
	}
}

/* Whether the client's next request is input and the program has not read the last input yet. */
static int is_blocked(struct client *client, const struct streams *s)
{
	char type = 0;

	if (s->input_start == s->input_end)
		return 0;
	mc_sys(SYS_recvfrom, MC_FD(client->fd), MC_PTR(&type), 1, MSG_PEEK | MSG_DONTWAIT, 0, 0);
	client->blocked = type == MC_REQUEST_INPUT || type == MC_REQUEST_EOF;
	return client->blocked;
}

/* Receives one request. */
void control_receive(struct control *c, struct client *client, struct mc_monitor *shared, struct streams *s)
{
	_Alignas(struct mc_request) static char data[sizeof(s->input) + 1];
	long n;

	if (is_blocked(client, s))
		return;
	n = mc_sys(SYS_recvfrom, MC_FD(client->fd), MC_PTR(data), sizeof(data), MSG_DONTWAIT, 0, 0);
	if (n == -EAGAIN || n == -EINTR)
		return;
	client->active_at = (int64_t)mc_now();
	if (n <= 0) {
		close_fd(&client->fd);
	} else if (data[0] == MC_REQUEST_INPUT) {
		memcpy(s->input, data + 1, (size_t)n - 1);
		s->input_start = 0;
		s->input_end = (uint32_t)n - 1;
		streams_write_input(s);
	} else if (data[0] == MC_REQUEST_EOF) {
		s->input_eof = 1;
		streams_write_input(s);
	} else if (data[0] == MC_REQUEST_NAME && n - 1 < MC_NAME) {
		memcpy(shared->name, data + 1, (size_t)n - 1);
		shared->name[n - 1] = 0;
	} else if (n == sizeof(struct mc_request)) {
		handle_request(c, shared, s, (const struct mc_request *)data);
	}
}
