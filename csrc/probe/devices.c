/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * devices.c: the devices in /dev, device nodes, terminals.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* "PATH MAJOR MINOR" */
static enum verdict is_device(const char *argument)
{
	unsigned int major, minor;
	struct stat st;
	char path[32];

	sscanf(argument, "%31s %u %u", path, &major, &minor);
	if (lstat(path, &st))
		return errno == ENOENT ? skip("no %s", path) : fail("%s", strerrorname_np(errno));
	if (!S_ISCHR(st.st_mode))
		return fail("no device");
	if (st.st_rdev != makedev(major, minor))
		return fail("device %u:%u", major(st.st_rdev), minor(st.st_rdev));
	return pass("device %u:%u", major, minor);
}

static enum verdict default_devices_only(const char *argument)
{
	static const char *const known[] = {
		".",   "..", "null",  "zero",	"full",	  "random", "urandom", "tty",	"ptmx", "pts",
		"shm", "fd", "stdin", "stdout", "stderr", "core",   "console", "mqueue",
	};
	enum verdict verdict = PASS;
	DIR *dev = opendir("/dev");

	(void)argument;
	if (!dev)
		return pass("/dev: %s", strerrorname_np(errno));
	for (struct dirent *entry; verdict == PASS && (entry = readdir(dev));) {
		size_t i = 0;

		while (i < sizeof(known) / sizeof(*known) && strcmp(known[i], entry->d_name))
			i++;
		if (i == sizeof(known) / sizeof(*known))
			verdict = fail("holds %.60s", entry->d_name);
	}
	closedir(dev);
	return verdict == PASS ? pass("nothing beyond the default") : verdict;
}

/* Directories in which a node may be created; it is removed at once. */
static const char *const places[] = {"/dev/shm", "/dev", "/tmp", "/run", "/"};

/* Devices whose opening has no effect: kmsg, mem (for reading), loop0, loop-control, kvm, fuse. */
static const struct {
	mode_t type;
	unsigned int major, minor;
} harmless[] = {{S_IFCHR, 1, 11}, {S_IFCHR, 1, 1}, {S_IFBLK, 7, 0}, {S_IFCHR, 10, 237}, {S_IFCHR, 10, 232},
		{S_IFCHR, 10, 229}};

/* The kernel denies mknod(2) in a user namespace, except for device 0:0 (overlayfs's whiteouts). */
static enum verdict no_mknod(const char *argument)
{
	char path[64];

	(void)argument;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, sizeof(path), "%s/.probe-%d", places[i], getpid());
		if (mknod(path, S_IFCHR | 0600, makedev(1, 1)) == 0) {
			unlink(path);
			return fail("created device 1:1 in %s", places[i]);
		}
	}
	return pass("%s", strerrorname_np(errno));
}

static int try_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* Tries every directory, since only some of the mounts may be nodev. */
static enum verdict made_node_is_inert(const char *argument)
{
	int made = 0, denied = 0;
	char path[64];

	(void)argument;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		for (size_t k = 0; k < sizeof(harmless) / sizeof(*harmless); k++) {
			int error;

			snprintf(path, sizeof(path), "%s/.probe-%d-%zu", places[i], getpid(), k);
			if (mknod(path, harmless[k].type | 0600, makedev(harmless[k].major, harmless[k].minor)))
				continue;
			error = try_open(path);
			unlink(path);
			if (!error)
				return fail("opened device %u:%u in %s", harmless[k].major, harmless[k].minor,
					    places[i]);
			made++;
			denied += is_refusal(error);
		}
	if (!made)
		return pass("none can be created");
	return denied ? pass("%d created, %d refused to open", made, denied) : skip("no device to try");
}

/* Opens a device node that the root file system contains. */
static enum verdict node_of_rootfs_is_inert(const char *argument)
{
	const char *path = parameter("node");
	int error;

	(void)argument;
	if (!path)
		return skip("no device node of the root file system was given");
	error = try_open(path);
	if (is_refusal(error))
		return pass("%s", strerrorname_np(-error));
	return error ? skip("%s", strerrorname_np(-error)) : fail("opened");
}

static enum verdict absent(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return pass("%s", strerrorname_np(errno));
	return try_open(path) ? pass("cannot be opened") : fail("can be opened");
}

/* ---- terminals */

/* The NULL is read last, so no byte is pushed: EFAULT means that the call is permitted (drivers/tty/tty_io.c). */
static enum verdict no_byte_pushed(const char *argument)
{
	int tried = 0;

	(void)argument;
	for (int fd = 0; fd <= 3; fd++) {
		int tty = fd == 3 ? open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC) : fd;

		if (tty < 0 || !isatty(tty))
			continue;
		tried++;
		if (ioctl(tty, TIOCSTI, NULL) && errno != EFAULT)
			continue;
		return fail("TIOCSTI of %s is permitted", fd == 3 ? "/dev/tty" : "a stream");
	}
	return tried ? pass("TIOCSTI refused") : skip("there is no terminal");
}

/* The devpts of a controlling terminal is unknown; that of a stream is known. */
static enum verdict not_the_callers_terminal(const char *argument)
{
	const char *caller = parameter("devpts");
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	(void)argument;
	if (fd < 0)
		return pass("no controlling terminal: %s", strerrorname_np(errno));
	if (!caller)
		return skip("the caller's devpts was not given");
	for (int stream = 0; stream < 3; stream++)
		if (isatty(stream) && fstat(stream, &st) == 0 && st.st_dev == strtoull(caller, NULL, 10))
			return fail("the controlling terminal is the caller's");
	return pass("a terminal of its own");
}

static enum verdict own_devpts(const char *argument)
{
	const char *caller = parameter("devpts");
	struct stat st;

	(void)argument;
	if (!caller)
		return skip("the caller's devpts was not given");
	if (stat("/dev/pts", &st))
		return pass("%s", strerrorname_np(errno));
	if (st.st_dev == strtoull(caller, NULL, 10))
		return fail("/dev/pts is the caller's");
	return pass("an instance of its own");
}

static enum verdict no_other_terminal(const char *argument)
{
	DIR *pts = opendir("/dev/pts");
	int count = 0;

	(void)argument;
	if (!pts)
		return pass("%s", strerrorname_np(errno));
	for (struct dirent *entry; (entry = readdir(pts));)
		count += isdigit((unsigned char)entry->d_name[0]) != 0;
	closedir(pts);
	return count > 1 ? fail("%d terminals", count) : pass("%d terminals", count);
}

const struct check device_checks[] = {
	{"devices", "null", is_device, "/dev/null 1 3"},
	{"devices", "zero", is_device, "/dev/zero 1 5"},
	{"devices", "full", is_device, "/dev/full 1 7"},
	{"devices", "random", is_device, "/dev/random 1 8"},
	{"devices", "urandom", is_device, "/dev/urandom 1 9"},
	{"devices", "tty", is_device, "/dev/tty 5 0"},
	{"devices", "only-the-default", default_devices_only, NULL},
	{"devices", "mknod", no_mknod, NULL},
	{"devices", "made-node", made_node_is_inert, NULL},
	{"devices", "node-in-rootfs", node_of_rootfs_is_inert, NULL},
	{"devices", "mem", absent, "/dev/mem"},
	{"devices", "kmsg", absent, "/dev/kmsg"},
	{"devices", "kvm", absent, "/dev/kvm"},
	{"devices", "fuse", absent, "/dev/fuse"},
	{"devices", "loop-control", absent, "/dev/loop-control"},
	{"terminal", "no-byte-pushed", no_byte_pushed, NULL},
	{"terminal", "not-the-callers", not_the_callers_terminal, NULL},
	{"terminal", "own-devpts", own_devpts, NULL},
	{"terminal", "no-stranger", no_other_terminal, NULL},
	{NULL, NULL, NULL, NULL},
};
