/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * main.c: stands on the host for a process of `exec` in a machine: has its streams, gets its signals, ends as it does.
 *
 *     vmexec [terminal]
 *
 * Theory of operation. Python has started the process (guest/control.h, MC_GUEST_PORT), and waits for this program as
 * it would for the process. Each stream has a thread that blocks: descriptors of any kind will do, and their flags
 * stay as they are, since others may use the same open file. The main thread passes signals on, and the size of the
 * terminal. If this program is killed, the guest kills the process. The guest is not trusted: it can end this
 * program, and choose how.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/control.h"
#include "vmexec/vmexec.h"

#define FAILED 125
#define ROOM 65536

struct stream {
	int from, to;
	pthread_t thread;
	char data[ROOM];
};

static struct stream streams[3];

/* ---- streams */

static int write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EAGAIN) /* another user of the open file has made it so */
			poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
		else if (n < 0 && errno != EINTR)
			return -1;
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Each side's end is passed on to the other one. */
static void *copy(void *argument)
{
	struct stream *s = argument;
	ssize_t n;

	for (;;) {
		n = read(s->from, s->data, ROOM);
		if (n < 0 && errno == EAGAIN)
			poll(&(struct pollfd){ .fd = s->from, .events = POLLIN }, 1, -1);
		else if (n == 0 || (n < 0 && errno != EINTR) || (n > 0 && write_all(s->to, s->data, (size_t)n) < 0))
			break;
	}
	close(s->from);
	close(s->to);
	return NULL;
}

/* Returns 0, or an errno value. */
static int start_streams(int count)
{
	int error = 0;

	for (int i = 0; i < count && error == 0; i++) {
		struct stream *s = &streams[i];

		s->from = i == 0 ? 0 : MC_VMEXEC_STREAM_FD + i;
		s->to = i == 0 ? MC_VMEXEC_STREAM_FD : i;
		error = pthread_create(&s->thread, NULL, copy, s);
	}
	return error;
}

/* ---- the end */

static int ends_processes(int number)
{
	static const int others[] = { SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH };

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (number == others[i])
			return 0;
	return number > 0 && number <= SIGRTMAX;
}

__attribute__((noreturn)) static void die(int number)
{
	sigset_t none;

	sigemptyset(&none);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
	signal(number, SIG_DFL);
	kill(getpid(), number);
	sigprocmask(SIG_SETMASK, &none, NULL);
	_exit(128 + number);
}

/* As the process has ended. All that it has written is under way: the guest has closed the streams before. */
__attribute__((noreturn)) static void end(int count, int status)
{
	for (int i = 1; i < count; i++)
		pthread_join(streams[i].thread, NULL);
	if (ends_processes(-status))
		die(-status);
	_exit(status < 0 ? 128 : status & 0xff);
}

/* ---- the conversation */

static void send_frame(uint32_t type, const void *payload, uint32_t length)
{
	struct mc_guest_frame frame = { type, length };
	char whole[sizeof(frame) + 8];

	memcpy(whole, &frame, sizeof(frame));
	memcpy(whole + sizeof(frame), payload, length);
	write_all(MC_VMEXEC_CONTROL_FD, whole, sizeof(frame) + length); /* a guest that has gone is seen by a read */
}

static void send_window(void)
{
	struct winsize window = { 0 };
	struct mc_guest_size size;

	ioctl(2, TIOCGWINSZ, &window);
	size = (struct mc_guest_size){ window.ws_row, window.ws_col };
	send_frame(MC_GUEST_RESIZE, &size, sizeof(size));
}

static void pass_signals(int signals, int has_terminal)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == sizeof(info)) {
		struct mc_guest_signal message = { (int)info.ssi_signo };

		if (message.number == SIGWINCH && has_terminal)
			send_window();
		else if (message.number != SIGCHLD && message.number != SIGPIPE) /* a write of this program's own */
			send_frame(MC_GUEST_SIGNAL, &message, sizeof(message));
	}
}

/* Reads EXITED. A guest that ends without a word has killed the process, as the end of a container does. */
static void read_control(int count)
{
	static struct {
		struct mc_guest_frame frame;
		struct mc_guest_exited exited;
	} in;
	static size_t have;
	ssize_t n = read(MC_VMEXEC_CONTROL_FD, (char *)&in + have, sizeof(in) - have);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0)
		end(count, -SIGKILL);
	have += (size_t)n;
	if (have < sizeof(in))
		return;
	if (in.frame.type != MC_GUEST_EXITED || in.frame.length != sizeof(in.exited))
		_exit(FAILED);
	end(count, in.exited.status);
}

int main(int argc, char **argv)
{
	const int has_terminal = argc > 1, count = has_terminal ? 2 : 3;
	struct pollfd fds[2] = { { .fd = MC_VMEXEC_CONTROL_FD, .events = POLLIN }, { .events = POLLIN } };
	sigset_t all;

	(void)argv;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	fds[1].fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fds[1].fd < 0 || start_streams(count) != 0)
		return FAILED;
	if (has_terminal)
		send_window(); /* it may have changed */
	for (;;) {
		poll(fds, 2, -1);
		if (fds[0].revents)
			read_control(count);
		if (fds[1].revents)
			pass_signals(fds[1].fd, has_terminal);
	}
}
