/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * floor.c: starts a container with nothing but the necessary system calls: the floor of `compare startup`.
 *
 *     floor ROOTFS CGROUP PROGRAM INIT OWNERS MARK
 *           [-m d/MASKED/DIRECTORY | -m f/MASKED/FILE | -r READ-ONLY | -u USAGE-FILE | -p PING-GROUPS]...
 *
 * Theory of operation. Hand-written, without a plan, records and error messages: the system calls that `minicontainer
 * run --userns host --timens host --security-opt seccomp=unconfined ROOTFS PROGRAM` makes as root, in the same order
 * (a test compares them by strace). Values that depend on the host are arguments. For each line on standard input it
 * starts one container, and prints the nanoseconds from the choice of its id to the removal of its cgroup, so its runs
 * can be interleaved with those of other programs. A call that fails ends the program: a floor must not skip work.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "floors/floor.h"
#include "plan/clone.h"

static struct floor config;
static int devices;
static int null; /* the container's standard input */
static const char *usage[MANY];

static void read_usage(long directory)
{
	char buffer[16384];

	for (int i = 0; usage[i]; i++) {
		long fd = mc_sys4(SYS_openat, directory, MC_PTR(usage[i]), O_RDONLY | O_CLOEXEC, 0);

		if (fd < 0)
			continue;
		CALL(read, fd, buffer, sizeof(buffer), 0, 0);
		CALL(close, fd, 0, 0, 0, 0);
	}
}

/* The default pids limit of containers, if there is a pids controller. */
static void bound_processes(long directory)
{
	long fd = mc_sys4(SYS_openat, directory, MC_PTR("pids.max"), O_WRONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	CALL(write, fd, "2048", 4, 0, 0);
	CALL(close, fd, 0, 0, 0, 0);
}

/* The shortest device program for the cgroup. It is loaded once, as in the library. */
static int device_program(void)
{
	const struct bpf_insn allow[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insn_cnt = 2,
		.insns = MC_PTR(allow),
		.license = MC_PTR("GPL"),
		.expected_attach_type = BPF_CGROUP_DEVICE,
	};

	return (int)CALL(bpf, BPF_PROG_LOAD, &attr, sizeof(attr), 0, 0);
}

static void restrict_devices(long directory)
{
	union bpf_attr attr = {
		.target_fd = (uint32_t)directory,
		.attach_bpf_fd = (uint32_t)devices,
		.attach_type = BPF_CGROUP_DEVICE,
		.attach_flags = BPF_F_ALLOW_MULTI,
	};

	CALL(bpf, BPF_PROG_ATTACH, &attr, sizeof(attr), 0, 0);
}

static long clone_child(long cgroup, int *pidfd)
{
	_Alignas(16) char stack[32768];
	const uint64_t all = ~0ull;
	uint64_t before;
	int pid;
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CLEAR_SIGHAND |
			 CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC |
			 CLONE_NEWCGROUP,
		.pidfd = MC_PTR(pidfd),
		.parent_tid = MC_PTR(&pid),
		.exit_signal = SIGCHLD,
		.stack = MC_PTR(stack),
		.stack_size = sizeof(stack),
		.cgroup = (uint64_t)cgroup,
	};
	long r;

	CALL(rt_sigprocmask, SIG_SETMASK, &all, &before, 8, 0);
	for (int i = 1; i < 3; i++) {
		CALL(fcntl, i, F_GETFD, 0, 0, 0);
		config.streams[i] = (int)CALL(fcntl, i, F_DUPFD_CLOEXEC, 3, 0, 0);
	}
	r = must(mc_clone3_call(&args, sizeof(args), floor_child, &config));
	for (int i = 1; i < 3; i++)
		CALL(close, config.streams[i], 0, 0, 0, 0);
	CALL(rt_sigprocmask, SIG_SETMASK, &before, 0, 8, 0);
	return r;
}

/* Chooses an id of 12 digits, and takes its ownership lock (minicontainer/container/registry/ownership.py). */
static long take_ownership(const char *owners)
{
	struct flock byte = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	unsigned char random[6];
	char path[PATH_MAX];
	long fd;

	CALL(getrandom, random, sizeof(random), 0, 0, 0);
	for (int i = 0; i < 6; i++) {
		sprintf(config.id + 2 * i, "%02x", random[i]);
		byte.l_start = byte.l_start << 8 | random[i];
	}
	snprintf(path, sizeof(path), "%s/%02x", owners, random[5]);
	fd = CALL(openat, FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600, 0);
	CALL(fcntl, fd, F_OFD_SETLK, &byte, 0, 0);
	return fd;
}

/* Reads init.c's report: end of file after a successful exec. */
static void read_report(int pipe)
{
	struct pollfd p = { .fd = pipe }; /* POLLHUP alone */
	char report[2048];

	must(poll(&p, 1, -1));
	if (CALL(read, pipe, report, sizeof(report), 0, 0) != 0)
		must(-1);
	CALL(close, pipe, 0, 0, 0, 0);
}

static void container(long parent, const char *owners, const char *mark)
{
	struct rusage rusage;
	siginfo_t info;
	int pidfd, pipe[2];
	struct pollfd p = { .events = POLLIN };
	char name[64];
	long cgroup, owner = take_ownership(owners);

	snprintf(name, sizeof(name), "%s-%s", config.id, mark);
	CALL(mkdirat, parent, name, 0755, 0, 0);
	cgroup = CALL(openat, parent, name, O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0, 0);
	bound_processes(cgroup);
	restrict_devices(cgroup);
	config.streams[0] = null;
	CALL(pipe2, pipe, O_CLOEXEC, 0, 0, 0);
	config.report = (int)CALL(fcntl, pipe[1], F_DUPFD_CLOEXEC, 6, 0, 0);
	CALL(close, pipe[1], 0, 0, 0, 0);
	clone_child(cgroup, &pidfd);
	CALL(close, config.report, 0, 0, 0, 0);
	read_report(pipe[0]);
	p.fd = pidfd;
	CALL(ppoll, &p, 1, 0, 0, 0);
	CALL(waitid, P_PIDFD, pidfd, &info, WEXITED, &rusage);
	if (info.si_code != CLD_EXITED || info.si_status != 0)
		must(-1);
	read_usage(cgroup);
	CALL(unlinkat, parent, name, AT_REMOVEDIR, 0, 0);
	CALL(close, cgroup, 0, 0, 0, 0);
	CALL(close, owner, 0, 0, 0, 0);
	CALL(close, pidfd, 0, 0, 0, 0);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int parse(int argc, char **argv)
{
	const char **lists[] = { config.masked, config.read_only, usage, config.ping };
	const char *letters = "mrup";
	const int most[] = { MANY, MANY, MANY, 2 };
	int counts[4] = { 0 };

	for (int i = 7; i + 1 < argc; i += 2) {
		const char *letter = argv[i][0] == '-' && argv[i][1] ? strchr(letters, argv[i][1]) : NULL;

		if (!letter || counts[letter - letters] == most[letter - letters] - 1)
			return -1;
		lists[letter - letters][counts[letter - letters]++] = argv[i + 1];
	}
	config.rootfs = argv[1];
	config.program = argv[3];
	return 0;
}

/* Copies a file to a memfd; its descriptor is above those that the child uses. */
static int copy_to_memfd(const char *path)
{
	char buffer[1 << 16];
	long file = CALL(openat, FDCWD, path, O_RDONLY | O_CLOEXEC, 0, 0);
	long memory = CALL(memfd_create, "minicontainer-init", MFD_CLOEXEC, 0, 0, 0), n;

	while ((n = CALL(read, file, buffer, sizeof(buffer), 0, 0)) > 0)
		CALL(write, memory, buffer, n, 0, 0);
	return (int)CALL(fcntl, memory, F_DUPFD_CLOEXEC, 6, 0, 0);
}

int main(int argc, char **argv)
{
	char line[64];
	long parent;

	if (argc < 7 || parse(argc, argv) < 0) {
		fprintf(stderr, "usage: floor ROOTFS CGROUP PROGRAM INIT OWNERS MARK "
				"[-m [d|f]MASKED | -r READ-ONLY | -u USAGE-FILE | -p PING-GROUPS]...\n");
		return 2;
	}
	parent = must(mc_sys4(SYS_openat, FDCWD, MC_PTR(argv[2]), O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0));
	config.init = copy_to_memfd(argv[4]);
	devices = device_program();
	null = (int)must(mc_sys4(SYS_openat, FDCWD, MC_PTR("/dev/null"), O_RDONLY | O_CLOEXEC, 0));
	while (fgets(line, sizeof(line), stdin)) {
		uint64_t start = now();

		container(parent, argv[5], argv[6]);
		printf("%llu\n", (unsigned long long)(now() - start));
		fflush(stdout);
	}
	return 0;
}
