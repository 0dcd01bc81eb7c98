/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * paths.c: masked and read-only paths of /proc and /sys; mount options; escapes from the root.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static enum verdict empty_directory(const char *path)
{
	DIR *directory = opendir(path);
	enum verdict verdict = PASS;

	if (!directory)
		return pass("%s", strerrorname_np(errno));
	for (struct dirent *entry; verdict == PASS && (entry = readdir(directory));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			verdict = fail("holds %.60s", entry->d_name);
	closedir(directory);
	return verdict == PASS ? pass("an empty directory") : verdict;
}

/* A mask other than the null device may be a file of the host (CVE-2025-31133). */
static enum verdict masked(const char *path)
{
	struct stat st;
	char text[64];
	long n;

	if (lstat(path, &st))
		return errno == ENOENT ? skip("this kernel has none") : pass("%s", strerrorname_np(errno));
	if (S_ISDIR(st.st_mode))
		return empty_directory(path);
	if (S_ISCHR(st.st_mode))
		return st.st_rdev == makedev(1, 3) ? pass("the null device") : fail("another device");
	n = read_file(path, text, sizeof(text));
	if (n < 0)
		return pass("%s", strerrorname_np((int)-n));
	return n ? fail("can be read") : pass("reads empty");
}

/* faccessat(2) with AT_EACCESS checks like open(2): with capabilities and read-only mounts. */
static enum verdict not_writable(const char *path)
{
	if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
		return fail("can be written");
	return errno == ENOENT ? skip("this kernel has none") : pass("%s", strerrorname_np(errno));
}

/* Opens and closes the file, without writing. */
static enum verdict not_opened_for_writing(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fail("opened for writing");
	return errno == ENOENT ? skip("this kernel has none") : pass("%s", strerrorname_np(errno));
}

/* Addresses are zero for processes that may not read them (kernel.kptr_restrict). */
static enum verdict no_addresses(const char *path)
{
	char text[256];
	long n = read_file(path, text, sizeof(text));

	if (n <= 0)
		return pass("%s", n ? strerrorname_np((int)-n) : "reads empty");
	return strtoull(text, NULL, 16) ? fail("kernel addresses can be read") : pass("addresses are zero");
}

/* ---- mounts */

/* Calls `check` with the fields of each line of mountinfo (proc(5)) until a verdict is not PASS. */
static enum verdict each_mount(enum verdict (*check)(const char *at, const char *type, const char *line))
{
	static char text[1 << 18];
	enum verdict verdict = PASS;
	char *line = text;

	if (read_file("/proc/self/mountinfo", text, sizeof(text)) <= 0)
		return skip("no mountinfo");
	while (verdict == PASS && line && *line) {
		char at[512], type[64] = "", *next = strchr(line, '\n'), *dash;

		if (next)
			*next++ = 0;
		dash = strstr(line, " - ");
		if (dash && sscanf(line, "%*s %*s %*s %*s %511s", at) == 1 && sscanf(dash, " - %63s", type) == 1)
			verdict = check(at, type, line);
		line = next;
	}
	return verdict;
}

static int roots;

static enum verdict count_root(const char *at, const char *type, const char *line)
{
	(void)type, (void)line;
	roots += !strcmp(at, "/");
	return PASS;
}

static enum verdict one_root(const char *argument)
{
	(void)argument;
	if (each_mount(count_root) == SKIP)
		return SKIP;
	return roots == 1 ? pass("one mount at /") : fail("%d mounts at /", roots);
}

static enum verdict check_propagation(const char *at, const char *type, const char *line)
{
	(void)type;
	return strstr(line, " shared:") ? fail("%.100s is shared with a peer", at) : PASS;
}

static enum verdict not_shared(const char *argument)
{
	enum verdict verdict = each_mount(check_propagation);

	(void)argument;
	return verdict == PASS ? pass("no mount is shared") : verdict;
}

/* The options of the mount are the sixth field. */
static enum verdict check_nosuid(const char *at, const char *type, const char *line)
{
	char options[256];

	(void)type;
	if (sscanf(line, "%*s %*s %*s %*s %*s %255s", options) != 1)
		return PASS;
	return strstr(options, "nosuid") ? PASS : fail("%.100s is not", at);
}

static enum verdict all_nosuid(const char *argument)
{
	enum verdict verdict = each_mount(check_nosuid);

	(void)argument;
	return verdict == PASS ? pass("every mount is") : verdict;
}

static enum verdict check_cgroup_files(const char *at, const char *type, const char *line)
{
	static const char *const files[] = {"", "/cgroup.procs", "/release_agent", "/notify_on_release", "/tasks"};
	char path[600];

	(void)line;
	if (strncmp(type, "cgroup", 6))
		return PASS;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		snprintf(path, sizeof(path), "%s%s", at, files[i]);
		if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
			return fail("%.100s can be written", path);
	}
	return PASS;
}

static enum verdict cgroups_not_writable(const char *argument)
{
	enum verdict verdict = each_mount(check_cgroup_files);

	(void)argument;
	return verdict == PASS ? pass("no cgroup file can be written") : verdict;
}

/* The kernel runs the release agent of cgroup v1 as root, outside (CVE-2022-0492). */
static enum verdict no_release_agent(const char *path)
{
	char agent[128];
	DIR *directory = opendir(path);
	enum verdict verdict = PASS;

	if (!directory)
		return pass("no %s", path);
	for (struct dirent *entry; verdict == PASS && (entry = readdir(directory));) {
		snprintf(agent, sizeof(agent), "%s/%.80s/release_agent", path, entry->d_name);
		if (access(agent, F_OK) == 0)
			verdict = faccessat(AT_FDCWD, agent, W_OK, AT_EACCESS) ? PASS : fail("%s", agent);
	}
	closedir(directory);
	return verdict == PASS ? pass("none that can be written") : verdict;
}

/* "PATH FLAG": the topmost mount at PATH has the flag (statvfs(3)). */
static enum verdict has_flag(const char *argument)
{
	static const struct {
		const char *name;
		unsigned long bit;
	} flags[] = {{"nosuid", ST_NOSUID}, {"nodev", ST_NODEV}, {"noexec", ST_NOEXEC}, {"ro", ST_RDONLY}};
	char path[64], name[16];
	struct statvfs fs;

	sscanf(argument, "%63s %15s", path, name);
	if (statvfs(path, &fs))
		return errno == ENOENT ? skip("no %s", path) : pass("%s", strerrorname_np(errno));
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		if (!strcmp(flags[i].name, name))
			return fs.f_flag & flags[i].bit ? pass("%s is %s", path, name)
							: fail("%s is not %s", path, name);
	return fail("%s is no flag", name);
}

/* ---- the root */

/* The classic escape from a chroot: a root below the working directory, then "..". */
static enum verdict no_chroot_escape(const char *argument)
{
	struct stat before, after;

	(void)argument;
	if (stat("/", &before) || chdir("/"))
		return fail("/: %s", strerrorname_np(errno));
	if (chroot("/proc") && chroot("/dev"))
		return pass("chroot: %s", strerrorname_np(errno));
	for (int i = 0; i < 64; i++)
		if (chdir(".."))
			break;
	if (chroot(".") || stat("/", &after))
		return fail("stat: %s", strerrorname_np(errno));
	if (before.st_dev != after.st_dev || before.st_ino != after.st_ino)
		return fail("chroot and .. lead out of the root");
	return pass("chroot and .. end at the root");
}

static enum verdict root_links_stay_inside(const char *argument)
{
	struct stat own, linked;

	(void)argument;
	if (stat("/", &own))
		return fail("/: %s", strerrorname_np(errno));
	if (stat("/proc/1/root/", &linked))
		return pass("/proc/1/root: %s", strerrorname_np(errno));
	return own.st_dev == linked.st_dev && own.st_ino == linked.st_ino
		       ? pass("/proc/1/root is the container's root")
		       : fail("/proc/1/root is another root");
}

static enum verdict no_outside_path(const char *argument)
{
	const char *path = parameter("outside");

	(void)argument;
	if (!path)
		return skip("no path of the host was given");
	return access(path, F_OK) ? pass("%s", strerrorname_np(errno)) : fail("%.100s is visible", path);
}

#define MASKED(id, path) {"masked", id, masked, path}
#define READ_ONLY(id, path) {"read-only", id, not_writable, path}
#define NOT_OPENED(id, path) {"read-only", id, not_opened_for_writing, path}
#define FLAG(path, flag) {"mounts", path "-" flag, has_flag, path " " flag}

const struct check path_checks[] = {
	MASKED("acpi", "/proc/acpi"),
	MASKED("asound", "/proc/asound"),
	MASKED("interrupts", "/proc/interrupts"),
	MASKED("kcore", "/proc/kcore"),
	MASKED("keys", "/proc/keys"),
	MASKED("latency_stats", "/proc/latency_stats"),
	MASKED("sched_debug", "/proc/sched_debug"),
	MASKED("scsi", "/proc/scsi"),
	MASKED("timer_list", "/proc/timer_list"),
	MASKED("timer_stats", "/proc/timer_stats"),
	MASKED("firmware", "/sys/firmware"),
	MASKED("powercap", "/sys/devices/virtual/powercap"),
	MASKED("thermal_throttle", "/sys/devices/system/cpu/cpu0/thermal_throttle"),
	{"masked", "kallsyms", no_addresses, "/proc/kallsyms"},
	READ_ONLY("proc-bus", "/proc/bus"),
	READ_ONLY("proc-fs", "/proc/fs"),
	READ_ONLY("proc-irq", "/proc/irq"),
	READ_ONLY("proc-sys", "/proc/sys"),
	READ_ONLY("sys", "/sys"),
	READ_ONLY("sys-kernel", "/sys/kernel"),
	NOT_OPENED("sysrq-trigger", "/proc/sysrq-trigger"),
	NOT_OPENED("core_pattern", "/proc/sys/kernel/core_pattern"),
	NOT_OPENED("modprobe", "/proc/sys/kernel/modprobe"),
	NOT_OPENED("drop_caches", "/proc/sys/vm/drop_caches"),
	NOT_OPENED("hostname", "/proc/sys/kernel/hostname"),
	NOT_OPENED("uevent_helper", "/sys/kernel/uevent_helper"),
	NOT_OPENED("irq-affinity", "/proc/irq/default_smp_affinity"),
	{"root", "one-in-mountinfo", one_root, NULL},
	{"root", "chroot-escape", no_chroot_escape, NULL},
	{"root", "links-of-process-1", root_links_stay_inside, NULL},
	{"root", "host-path", no_outside_path, NULL},
	{"mounts", "not-shared", not_shared, NULL},
	{"mounts", "all-nosuid", all_nosuid, NULL},
	FLAG("/", "nodev"),
	FLAG("/", "nosuid"),
	FLAG("/proc", "nosuid"),
	FLAG("/proc", "nodev"),
	FLAG("/proc", "noexec"),
	FLAG("/sys", "nosuid"),
	FLAG("/sys", "nodev"),
	FLAG("/sys", "noexec"),
	FLAG("/dev", "nosuid"),
	FLAG("/dev/shm", "nodev"),
	FLAG("/dev/shm", "noexec"),
	FLAG("/dev/pts", "noexec"),
	{"cgroups", "not-writable", cgroups_not_writable, NULL},
	{"cgroups", "release_agent", no_release_agent, "/sys/fs/cgroup"},
	{NULL, NULL, NULL, NULL},
};
