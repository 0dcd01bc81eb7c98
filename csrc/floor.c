/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * floor.c: what a container costs when nothing is done but its system calls: the floor of `compare startup`.
 *
 *     floor ROOTFS CGROUP PROGRAM [-m d/MASKED/DIRECTORY | -m f/MASKED/FILE | -r READ-ONLY | -u USAGE-FILE]...
 *
 * Theory of operation. Written by hand, straight down, with no plan, no records and no errors: the calls that
 * `minicontainer run --userns host --security-opt seccomp=unconfined ROOTFS PROGRAM` makes as root, in their order (a
 * test compares the two by strace). What depends on the host comes as arguments. Each line on standard input asks for one container, and is
 * answered with its nanoseconds, from before the cgroup is made until after it is removed; so runs can be interleaved
 * with others'. A call that fails ends the program: a floor that skips work would be none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifndef MOUNT_ATTR_RDONLY /* glibc before 2.36 */
#include <linux/mount.h>
#endif

#include "clone.h"
#include "syscalls.h"

#define MANY 32
#define FDCWD MC_FD(AT_FDCWD)
#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV)
#define CAPABILITIES 0xa80425fbull /* docker's fourteen */

static const char *rootfs, *program;
static int null; /* the container's standard input: ours brings the requests */
static const char *masked[MANY], *read_only[MANY], *usage[MANY]; /* masked: "d/PATH" or "f/PATH" */

/* In the child, and in the parent: nothing goes on after a failure. */
static long must(long result)
{
	if (result < 0)
		mc_sys1(SYS_exit_group, 120);
	return result;
}

#define CALL(nr, a, b, c, d, e) must(mc_sys5(SYS_##nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e)))

static void set(long fs, const char *key, const char *value)
{
	CALL(fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
}

static long made(long fs, unsigned attrs)
{
	CALL(fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
	return CALL(fsmount, fs, FSMOUNT_CLOEXEC, attrs, 0, 0);
}

static long open_fs(const char *type)
{
	return CALL(fsopen, type, FSOPEN_CLOEXEC, 0, 0, 0);
}

static void make(long at, const char *path, unsigned mode)
{
	long r = mc_sys3(SYS_mkdirat, at, MC_PTR(path), mode);

	if (r < 0 && r != -EEXIST)
		must(r);
}

static void node(long at, const char *name, unsigned major, unsigned minor)
{
	CALL(mknodat, at, name, S_IFCHR | 0666, makedev(major, minor), 0);
}

static void attach(long tree, long at, const char *path)
{
	CALL(move_mount, tree, "", at, path, MOVE_MOUNT_F_EMPTY_PATH);
}

static long copy(long of, const char *path, unsigned flags)
{
	return CALL(open_tree, of, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags, 0, 0);
}

static void restrict_mount(long tree, uint64_t attributes)
{
	struct mount_attr attr = { .attr_set = attributes };

	CALL(mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr));
}

/* ---- the child, as compiler.py's phases */

static void populate_dev(long dev, long pts, long shm, long mqueue)
{
	make(FDCWD, "/dev", 0755);
	attach(dev, FDCWD, "/dev");
	node(dev, "null", 1, 3);
	node(dev, "zero", 1, 5);
	node(dev, "full", 1, 7);
	node(dev, "random", 1, 8);
	node(dev, "urandom", 1, 9);
	node(dev, "tty", 5, 0);
	CALL(symlinkat, "/proc/self/fd", dev, "fd", 0, 0);
	CALL(symlinkat, "/proc/self/fd/0", dev, "stdin", 0, 0);
	CALL(symlinkat, "/proc/self/fd/1", dev, "stdout", 0, 0);
	CALL(symlinkat, "/proc/self/fd/2", dev, "stderr", 0, 0);
	CALL(symlinkat, "/proc/kcore", dev, "core", 0, 0);
	CALL(symlinkat, "pts/ptmx", dev, "ptmx", 0, 0);
	make(dev, "pts", 0755);
	attach(pts, dev, "pts");
	make(dev, "shm", 0755);
	attach(shm, dev, "shm");
	make(dev, "mqueue", 0755);
	attach(mqueue, dev, "mqueue");
}

static void no_oom_score(long proc)
{
	long fd = CALL(openat, proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0, 0);

	CALL(write, fd, "0", 1, 0, 0);
	CALL(close, fd, 0, 0, 0, 0);
}

/* What lies below `top`, a prefix with its "/", of the mount `at`. */
static void mask(const char *top, long at, long empty, long null_device)
{
	size_t length = strlen(top);
	int seen[2] = { 0, 0 }; /* the first of a kind is attached itself */

	for (int i = 0; masked[i]; i++) {
		int directory = masked[i][0] == 'd';
		long tree = directory ? empty : null_device;

		if (strncmp(masked[i] + 1, top, length) == 0)
			attach(seen[directory] ? copy(tree, "", AT_EMPTY_PATH) : tree, at, masked[i] + 1 + length);
		seen[directory] = 1;
	}
}

static void attach_proc_and_sys(long proc, long sys, long cgroup, long empty, long null_device)
{
	make(FDCWD, "/proc", 0555);
	attach(proc, FDCWD, "/proc");
	no_oom_score(proc);
	mask("/proc/", proc, empty, null_device);
	for (int i = 0; read_only[i]; i++) {
		const char *name = read_only[i] + strlen("/proc/");
		long tree = copy(proc, name, AT_RECURSIVE);

		restrict_mount(tree, MOUNT_ATTR_RDONLY);
		attach(tree, proc, name);
	}
	make(FDCWD, "/sys", 0555);
	attach(sys, FDCWD, "/sys");
	attach(cgroup, sys, "fs/cgroup");
	mask("/sys/", sys, empty, null_device);
}

static void loopback_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	long sock = CALL(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0);

	CALL(ioctl, sock, SIOCSIFFLAGS, &lo, 0, 0);
	CALL(close, sock, 0, 0, 0, 0);
}

static void limit_resources(void)
{
	const uint64_t none = RLIM64_INFINITY;
	struct rlimit64 wish[RLIM_NLIMITS], now;

	for (int i = 0; i < RLIM_NLIMITS; i++)
		wish[i] = (struct rlimit64){ none, none };
	wish[RLIMIT_STACK].rlim_cur = 8 << 20;
	wish[RLIMIT_CORE].rlim_cur = 0;
	wish[RLIMIT_NOFILE] = (struct rlimit64){ 1024, 524288 };
	wish[RLIMIT_MEMLOCK] = (struct rlimit64){ 8 << 20, 8 << 20 };
	wish[RLIMIT_MSGQUEUE] = (struct rlimit64){ 819200, 819200 };
	wish[RLIMIT_NICE] = wish[RLIMIT_RTPRIO] = (struct rlimit64){ 0, 0 };
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		CALL(prlimit64, 0, i, 0, &now, 0);
		wish[i].rlim_max = wish[i].rlim_max < now.rlim_max ? wish[i].rlim_max : now.rlim_max;
		wish[i].rlim_cur = wish[i].rlim_cur < wish[i].rlim_max ? wish[i].rlim_cur : wish[i].rlim_max;
		CALL(prlimit64, 0, i, &wish[i], 0, 0);
	}
}

static void confine(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { (uint32_t)CAPABILITIES, (uint32_t)CAPABILITIES, 0 }, { 0, 0, 0 } };

	limit_resources();
	CALL(setpriority, PRIO_PROCESS, 0, 0, 0, 0);
	CALL(personality, PER_LINUX, 0, 0, 0, 0);
	CALL(keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0);
	for (int cap = 0; cap < 64; cap++)
		if (!(CAPABILITIES >> cap & 1) && mc_sys5(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) == -EINVAL)
			break;
	CALL(setgroups, 0, &header, 0, 0, 0); /* none */
	CALL(setresgid, 0, 0, 0, 0, 0);
	CALL(setresuid, 0, 0, 0, 0, 0);
	CALL(capset, &header, data, 0, 0, 0);
	CALL(umask, 022, 0, 0, 0, 0);
	CALL(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void reset_signals(void)
{
	const uint64_t dfl[4] = { 0 }, none = 0;

	for (int sig = 1; sig < _NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			mc_sys4(SYS_rt_sigaction, sig, MC_PTR(dfl), 0, 8);
	CALL(rt_sigprocmask, SIG_SETMASK, &none, 0, 8, 0);
}

static void execute(void)
{
	const char *argv[] = { program, NULL };
	const char *envp[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=minicontainer",
			       "HOME=/root", NULL };
	char cwd[PATH_MAX];

	CALL(close_range, 3, 0xffffffff, 0, 0, 0);
	CALL(chdir, "/", 0, 0, 0, 0);
	CALL(getcwd, cwd, sizeof(cwd), 0, 0, 0);
	reset_signals();
	CALL(execve, program, argv, envp, 0, 0);
}

static int child(void *arg)
{
	const int *streams = arg;
	long dev, pts, shm, mqueue, proc, sys, cgroup, root, empty, null_device;

	CALL(umask, 0, 0, 0, 0, 0);
	CALL(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0);
	proc = made(open_fs("proc"), SAFE);
	sys = made(open_fs("sysfs"), SAFE | MOUNT_ATTR_RDONLY);
	cgroup = made(open_fs("cgroup2"), SAFE | MOUNT_ATTR_RDONLY);
	root = copy(FDCWD, rootfs, AT_RECURSIVE);
	restrict_mount(root, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID);
	set(dev = open_fs("tmpfs"), "mode", "755");
	set(dev, "size", "65536k");
	dev = made(dev, MOUNT_ATTR_NOSUID);
	set(pts = open_fs("devpts"), "mode", "0620");
	set(pts, "ptmxmode", "0666");
	set(pts, "gid", "5");
	pts = made(pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	set(shm = open_fs("tmpfs"), "mode", "1777");
	set(shm, "size", "67108864");
	shm = made(shm, SAFE);
	mqueue = made(open_fs("mqueue"), SAFE);
	null_device = copy(FDCWD, "/dev/null", 0);
	set(empty = open_fs("tmpfs"), "mode", "0");
	empty = made(empty, SAFE | MOUNT_ATTR_RDONLY);
	attach(root, FDCWD, "/");
	CALL(fchdir, root, 0, 0, 0, 0);
	CALL(pivot_root, ".", ".", 0, 0, 0);
	CALL(umount2, ".", MNT_DETACH, 0, 0, 0);
	CALL(chdir, "/", 0, 0, 0, 0);
	populate_dev(dev, pts, shm, mqueue);
	attach_proc_and_sys(proc, sys, cgroup, empty, null_device);
	CALL(sethostname, "minicontainer", 13, 0, 0, 0);
	loopback_up();
	CALL(setsid, 0, 0, 0, 0, 0);
	for (int i = 0; i < 3; i++)
		CALL(dup3, streams[i], i, 0, 0, 0);
	confine();
	execute();
	return 121;
}

/* ---- the parent */

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

static long clone_child(long cgroup, int *pidfd, int *streams)
{
	_Alignas(16) char stack[32768];
	const uint64_t all = ~0ull;
	uint64_t before;
	int pid;
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP |
			 CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP,
		.pidfd = MC_PTR(pidfd),
		.parent_tid = MC_PTR(&pid),
		.exit_signal = SIGCHLD,
		.stack = MC_PTR(stack),
		.stack_size = sizeof(stack),
		.cgroup = (uint64_t)cgroup,
	};
	long r;

	CALL(rt_sigprocmask, SIG_SETMASK, &all, &before, 8, 0);
	r = must(mc_clone3_call(&args, sizeof(args), child, streams));
	CALL(rt_sigprocmask, SIG_SETMASK, &before, 0, 8, 0);
	return r;
}

static void container(long parent, const char *name)
{
	struct rusage rusage;
	siginfo_t info;
	int pidfd, streams[3];
	struct pollfd p = { .events = POLLIN };
	long cgroup;

	CALL(mkdirat, parent, name, 0755, 0, 0);
	cgroup = CALL(openat, parent, name, O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0, 0);
	streams[0] = null;
	for (int i = 1; i < 3; i++)
		streams[i] = (int)CALL(fcntl, i, F_DUPFD_CLOEXEC, 3, 0, 0);
	clone_child(cgroup, &pidfd, streams);
	for (int i = 2; i > 0; i--)
		CALL(close, streams[i], 0, 0, 0, 0);
	p.fd = pidfd;
	CALL(ppoll, &p, 1, 0, 0, 0);
	CALL(waitid, P_PIDFD, pidfd, &info, WEXITED, &rusage);
	if (info.si_code != CLD_EXITED || info.si_status != 0)
		must(-1);
	read_usage(cgroup);
	CALL(unlinkat, parent, name, AT_REMOVEDIR, 0, 0);
	CALL(close, cgroup, 0, 0, 0, 0);
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
	const char **lists[] = { masked, read_only, usage };
	const char *letters = "mru";
	int counts[3] = { 0 };

	for (int i = 4; i + 1 < argc; i += 2) {
		const char *found = argv[i][0] == '-' && argv[i][1] ? strchr(letters, argv[i][1]) : NULL;

		if (!found || counts[found - letters] == MANY - 1)
			return -1;
		lists[found - letters][counts[found - letters]++] = argv[i + 1];
	}
	rootfs = argv[1];
	program = argv[3];
	return 0;
}

int main(int argc, char **argv)
{
	char line[64], name[64];
	long parent;

	if (argc < 4 || parse(argc, argv) < 0) {
		fprintf(stderr, "usage: floor ROOTFS CGROUP PROGRAM [-d DIR | -f FILE | -r READ-ONLY | -u USAGE-FILE]...\n");
		return 2;
	}
	parent = must(mc_sys4(SYS_openat, FDCWD, MC_PTR(argv[2]), O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0));
	null = (int)must(mc_sys4(SYS_openat, FDCWD, MC_PTR("/dev/null"), O_RDONLY | O_CLOEXEC, 0));
	for (unsigned n = 0; fgets(line, sizeof(line), stdin); n++) {
		uint64_t start;

		snprintf(name, sizeof(name), "floor-%d-%u", getpid(), n);
		start = now();
		container(parent, name);
		printf("%llu\n", (unsigned long long)(now() - start));
		fflush(stdout);
	}
	return 0;
}
