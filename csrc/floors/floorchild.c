/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * floorchild.c: the child side of floor.c: the phases of minicontainer/container/compiler.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#ifndef MOUNT_ATTR_RDONLY /* glibc before 2.36 */
#include <linux/mount.h>
#endif

#include "floors/floor.h"

#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV)
#define CAPABILITIES 0xa80405fbull /* docker's, without NET_RAW */

static void set(long fs, const char *key, const char *value)
{
	CALL(fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
}

static long create_mount(long fs, unsigned attrs)
{
	CALL(fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
	return CALL(fsmount, fs, FSMOUNT_CLOEXEC, attrs, 0, 0);
}

static long open_fs(const char *type)
{
	return CALL(fsopen, type, FSOPEN_CLOEXEC, 0, 0, 0);
}

static void make_directory(long at, const char *path, unsigned mode)
{
	long r = mc_sys3(SYS_mkdirat, at, MC_PTR(path), mode);

	if (r < 0 && r != -EEXIST)
		must(r);
}

static void make_device(long at, const char *name, unsigned major, unsigned minor)
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

static void restrict_mount(long tree, unsigned flags, uint64_t attributes)
{
	struct mount_attr attr = { .attr_set = attributes };

	CALL(mount_setattr, tree, "", AT_EMPTY_PATH | flags, &attr, sizeof(attr));
}

static void populate_dev(long dev, long pts, long shm, long mqueue)
{
	make_directory(FDCWD, "/dev", 0755);
	attach(dev, FDCWD, "/dev");
	make_device(dev, "null", 1, 3);
	make_device(dev, "zero", 1, 5);
	make_device(dev, "full", 1, 7);
	make_device(dev, "random", 1, 8);
	make_device(dev, "urandom", 1, 9);
	make_device(dev, "tty", 5, 0);
	CALL(symlinkat, "/proc/self/fd", dev, "fd", 0, 0);
	CALL(symlinkat, "/proc/self/fd/0", dev, "stdin", 0, 0);
	CALL(symlinkat, "/proc/self/fd/1", dev, "stdout", 0, 0);
	CALL(symlinkat, "/proc/self/fd/2", dev, "stderr", 0, 0);
	CALL(symlinkat, "/proc/kcore", dev, "core", 0, 0);
	CALL(symlinkat, "pts/ptmx", dev, "ptmx", 0, 0);
	make_directory(dev, "pts", 0755);
	attach(pts, dev, "pts");
	make_directory(dev, "shm", 0755);
	attach(shm, dev, "shm");
	make_directory(dev, "mqueue", 0755);
	attach(mqueue, dev, "mqueue");
}

static void write_at(long proc, const char *path, const char *text)
{
	long fd = CALL(openat, proc, path, O_WRONLY | O_CLOEXEC, 0, 0);

	CALL(write, fd, text, strlen(text), 0, 0);
	CALL(close, fd, 0, 0, 0, 0);
}

/* Masks the paths below `top`, a prefix with its "/", in the mount `at`. */
static void mask(const struct floor *floor, const char *top, long at, long empty, long null_device)
{
	size_t length = strlen(top);
	int attached[2] = { 0, 0 }; /* the first path gets the mount itself, the others copies of it */

	for (int i = 0; floor->masked[i]; i++) {
		int directory = floor->masked[i][0] == 'd';
		long tree = directory ? empty : null_device;

		if (strncmp(floor->masked[i] + 1, top, length) == 0)
			attach(attached[directory] ? copy(tree, "", AT_EMPTY_PATH) : tree, at,
			       floor->masked[i] + 1 + length);
		attached[directory] = 1;
	}
}

static void attach_proc_and_sys(const struct floor *floor, long proc, long sys, long cgroup, long empty,
				long null_device)
{
	make_directory(FDCWD, "/proc", 0555);
	attach(proc, FDCWD, "/proc");
	for (int i = 0; floor->ping[i]; i++)
		write_at(proc, "sys/net/ipv4/ping_group_range", floor->ping[i]);
	write_at(proc, "self/oom_score_adj", "0");
	mask(floor, "/proc/", proc, empty, null_device);
	for (int i = 0; floor->read_only[i]; i++) {
		const char *name = floor->read_only[i] + strlen("/proc/");
		long tree = copy(proc, name, AT_RECURSIVE);

		restrict_mount(tree, AT_RECURSIVE, MOUNT_ATTR_RDONLY);
		attach(tree, proc, name);
	}
	make_directory(FDCWD, "/sys", 0555);
	attach(sys, FDCWD, "/sys");
	attach(cgroup, sys, "fs/cgroup");
	mask(floor, "/sys/", sys, empty, null_device);
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
	struct rlimit64 limits[RLIM_NLIMITS], current;

	for (int i = 0; i < RLIM_NLIMITS; i++)
		limits[i] = (struct rlimit64){ none, none };
	limits[RLIMIT_STACK].rlim_cur = 8 << 20;
	limits[RLIMIT_CORE].rlim_cur = 0;
	limits[RLIMIT_NOFILE] = (struct rlimit64){ 1024, 524288 };
	limits[RLIMIT_MEMLOCK] = (struct rlimit64){ 8 << 20, 8 << 20 };
	limits[RLIMIT_MSGQUEUE] = (struct rlimit64){ 819200, 819200 };
	limits[RLIMIT_NICE] = limits[RLIMIT_RTPRIO] = (struct rlimit64){ 0, 0 };
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit64 *limit = &limits[i];

		CALL(prlimit64, 0, i, 0, &current, 0);
		limit->rlim_max = limit->rlim_max < current.rlim_max ? limit->rlim_max : current.rlim_max;
		limit->rlim_cur = limit->rlim_cur < limit->rlim_max ? limit->rlim_cur : limit->rlim_max;
		CALL(prlimit64, 0, i, limit, 0, 0);
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

static void execute(const struct floor *floor)
{
	const char *argv[] = { "minicontainer-exec", "", "0", "1", floor->program, floor->program, NULL };
	char hostname[32] = "HOSTNAME=", cwd[PATH_MAX];
	const char *envp[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", hostname,
			       "HOME=/root", NULL };

	memcpy(hostname + strlen(hostname), floor->id, sizeof(floor->id));
	CALL(dup3, floor->report, 3, 0, 0, 0);
	CALL(dup3, floor->init, 4, O_CLOEXEC, 0, 0);
	CALL(close_range, 5, 0xffffffff, 0, 0, 0);
	CALL(chdir, "/", 0, 0, 0, 0);
	CALL(getcwd, cwd, sizeof(cwd), 0, 0, 0);
	reset_signals();
	CALL(execveat, 4, "", argv, envp, AT_EMPTY_PATH);
}

int floor_child(void *arg)
{
	const struct floor *floor = arg;
	long dev, pts, shm, mqueue, proc, sys, cgroup, root, empty, null_device;

	CALL(sethostname, floor->id, strlen(floor->id), 0, 0, 0);
	loopback_up();
	CALL(umask, 0, 0, 0, 0, 0);
	CALL(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0);
	proc = create_mount(open_fs("proc"), SAFE);
	sys = create_mount(open_fs("sysfs"), SAFE | MOUNT_ATTR_RDONLY);
	cgroup = create_mount(open_fs("cgroup2"), SAFE | MOUNT_ATTR_RDONLY);
	root = copy(FDCWD, floor->rootfs, AT_RECURSIVE);
	restrict_mount(root, AT_RECURSIVE, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID);
	set(dev = open_fs("tmpfs"), "mode", "755");
	set(dev, "size", "65536k");
	dev = create_mount(dev, MOUNT_ATTR_NOSUID);
	set(pts = open_fs("devpts"), "mode", "0620");
	set(pts, "ptmxmode", "0666");
	set(pts, "gid", "5");
	pts = create_mount(pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	set(shm = open_fs("tmpfs"), "mode", "1777");
	set(shm, "size", "67108864");
	shm = create_mount(shm, SAFE);
	mqueue = create_mount(open_fs("mqueue"), SAFE);
	null_device = copy(FDCWD, "/dev/null", 0);
	restrict_mount(null_device, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	set(empty = open_fs("tmpfs"), "mode", "0");
	empty = create_mount(empty, SAFE | MOUNT_ATTR_RDONLY);
	attach(root, FDCWD, "/");
	CALL(fchdir, root, 0, 0, 0, 0);
	CALL(pivot_root, ".", ".", 0, 0, 0);
	CALL(umount2, ".", MNT_DETACH, 0, 0, 0);
	CALL(chdir, "/", 0, 0, 0, 0);
	populate_dev(dev, pts, shm, mqueue);
	attach_proc_and_sys(floor, proc, sys, cgroup, empty, null_device);
	CALL(setsid, 0, 0, 0, 0, 0);
	for (int i = 0; i < 3; i++)
		CALL(dup3, floor->streams[i], i, 0, 0, 0);
	confine();
	execute(floor);
	return 121;
}
