/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ready.c: process 1 of a container of a pool, until it executes the program that it is handed.
 *
 *     minicontainer-ready LIMITS FILTER
 *
 * Theory of operation. Everything but the exec is done; this program waits on a socket (descriptor 4) for one request
 * (struct mc_handover in native.h): the program's paths, arguments, environment and working directory, and with it four
 * descriptors: the three streams, and the pipe of the report; with a long request a fifth, the memory that it is in.
 * Descriptors 0 to 3 and 5 are closed, so those received get these numbers. It answers with the times at which it has
 * woken and at which it executes the program (CLOCK_MONOTONIC); end of file without an answer means that it ended
 * before that, and that the program has not run. End of file before a request means that the pool's owner has ended:
 * so does this process.
 *
 * The program gets none of this: socket and report are close-on-exec, the exec replaces the memory. LIMITS and FILTER
 * are those of init.c; FILTER is 0 where the plan has loaded the filter, which is then one that permits the calls made
 * here (container/seccomp, CALLS_OF_READY). Other processes of a shared pid namespace cannot trace this process
 * (PR_SET_DUMPABLE), nor so take the streams of a program to come.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "helpers/execute.h"
#include "helpers/start.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

#define SOCKET 4
#define MEMORY 5 /* the next descriptor that is received */
#define STREAMS 4 /* descriptors 0 to 3: the streams and the report */

MC_START(ready_main);

static struct mc_handover request;
static char room[MC_HANDOVER_ROOM] __attribute__((aligned(16)));

static uint64_t now(void)
{
	struct timespec t = { 0 };

	mc_sys2(SYS_clock_gettime, CLOCK_MONOTONIC, MC_PTR(&t));
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Whether the message has brought descriptors 0 to 3; and MEMORY, with `more`. */
static int has_descriptors(struct msghdr *msg, int more)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	const int *fds = c ? (const int *)CMSG_DATA(c) : NULL;

	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN((STREAMS + more) * sizeof(int)))
		return 0;
	for (int i = 0; i < STREAMS; i++)
		if (fds[i] != i)
			return 0;
	return !more || fds[STREAMS] == MEMORY;
}

static int is_long(void)
{
	return request.room > sizeof(room);
}

/* Receives the request; its strings into `room`, unless they are in the memory that comes with it. */
static void receive(void)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE((STREAMS + 1) * sizeof(int))];
	} control = { 0 };
	struct iovec iov[] = { { &request, sizeof(request) }, { room, sizeof(room) } };
	struct msghdr msg = { .msg_iov = iov,
			      .msg_iovlen = 2,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	long n;

	do
		n = mc_sys3(SYS_recvmsg, SOCKET, MC_PTR(&msg), 0);
	while (n == -EINTR);
	if (n == 0)
		mc_end(0);
	if (n < (long)sizeof(request) || !has_descriptors(&msg, is_long()))
		mc_end(MC_INTERNAL_ERROR);
}

/* The strings, and room for the pointers to them. The pages of a long request are the owner's: the container's memory
 * limit is the program's. */
static char *strings(void)
{
	long at;

	if (!is_long())
		return room;
	at = mc_sys(SYS_mmap, 0, request.room, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0);
	mc_sys1(SYS_close, MEMORY);
	if (at < 0 && at > -4096)
		mc_end(MC_INTERNAL_ERROR);
	return (char *)at;
}

static const char *after(const char *strings, uint32_t count)
{
	while (count-- > 0)
		while (*strings++)
			;
	return strings;
}

__attribute__((noreturn)) static void serve(const char *limits)
{
	uint64_t times[2];
	const char *directory, *paths, *args, **argv, **envp;
	long r;

	receive();
	times[0] = now();
	directory = strings();
	paths = after(directory, 1);
	args = after(paths, request.npaths);
	argv = (const char **)(directory + request.pointers);
	envp = argv + request.argc + 1;
	mc_string_table(argv, args, request.argc);
	mc_string_table(envp, after(args, request.argc), request.envc);
	r = mc_enter_directory(directory);
	times[1] = now();
	mc_sys(SYS_sendto, SOCKET, MC_PTR(times), sizeof(times), MSG_NOSIGNAL, 0, 0);
	if (r < 0)
		mc_fail(MC_NO_DIRECTORY, r);
	mc_execute(limits, 0, paths, request.npaths, argv, envp);
}

__attribute__((noreturn, used)) static void ready_main(long *stack)
{
	char **argv = (char **)(stack + 1);
	long instructions = stack[0] == 3 ? mc_number(argv[2]) : -1;

	if (instructions < 0 || instructions > BPF_MAXINSNS)
		mc_end(MC_INTERNAL_ERROR);
	mc_sys2(SYS_prctl, PR_SET_DUMPABLE, 0);
	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("ready")); /* the kernel has set the memfd's name */
	mc_sys3(SYS_fcntl, SOCKET, F_SETFD, FD_CLOEXEC);
	mc_read_filter(instructions);
	serve(argv[1]);
}
