/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/main.c: process 1 of a microVM's guest, /init of its initramfs.
 *
 * Theory of operation. Init mounts what it needs itself, loads the modules that lie beside it, and finds the ports of
 * the console device. From there on the host says what to do (control.h): a virtio-fs becomes the root, and a plan,
 * made by the compiler that makes those of containers, is walked by the same C (csrc/plan/) by a child, which executes
 * the program. Init moves bytes between the program and the ports, reaps, forwards signals, and reports the end. It
 * clones itself for each further process that the host wants beside the program (exec.c).
 *
 * Process 1 must not end, or the kernel panics: every way leads to finish(), which powers the machine off.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

#include "guest/guest.h"
#include "helpers/start.h"
#include "monitor/cgroup.h"
#include "plan/dumpable.h"

MC_START(guest_main);

#define PORTS_MS 10000
#define LATE_MS 1000    /* for the control port, after a failure */
#define FILES 1048576   /* descriptors: the kernel's own limit (sysctl fs.nr_open) */

static struct guest guest;

/* Init's memory holds no secret: there is no dumpable attribute to save. */
void mc_dumpable_save(void)
{
}

void mc_dumpable_restore(void)
{
}

/* ---- preparation */

/* EBUSY: the kernel has mounted it (CONFIG_DEVTMPFS_MOUNT). */
static long mount_own(struct guest *g)
{
	static const char *const own[][2] = { { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" } };

	for (int i = 0; i < 3; i++) {
		const char *type = own[i][0], *path = own[i][1];
		long r = mc_sys3(SYS_mkdirat, MC_FD(AT_FDCWD), MC_PTR(path), 0755);

		if (r < 0 && r != -EEXIST)
			return report(g, "mkdir", path, r);
		r = mc_sys5(SYS_mount, MC_PTR(type), MC_PTR(path), MC_PTR(type), MS_NOSUID | MS_NOEXEC, 0);
		if (r < 0 && r != -EBUSY)
			return report(g, "mount", path, r);
	}
	return 0;
}

static int open_if_there(const char *path, uint64_t flags)
{
	return (int)mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), flags | O_CLOEXEC, 0);
}

static long open_streams(struct guest *g)
{
	long fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/dev/console"), O_RDWR | O_NOCTTY | O_CLOEXEC, 0);

	if (fd < 0)
		fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/dev/null"), O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return report(g, "open", "/dev/null", fd);
	for (int i = 0; i < 3; i++)
		if (i != fd)
			mc_sys3(SYS_dup3, fd, i, O_CLOEXEC);
	if (fd > 2)
		mc_sys1(SYS_close, fd);
	g->kmsg = open_if_there("/dev/kmsg", O_WRONLY);
	g->caches = open_if_there("/proc/sys/vm/drop_caches", O_WRONLY);
	g->vmstat = open_if_there("/proc/vmstat", O_RDONLY);
	return 0;
}

/* A plan lowers its limits to what init may have at most. */
static long raise_limit(struct guest *g)
{
	struct rlimit64 limit;
	long r = mc_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, MC_PTR(&limit));

	if (r == 0 && limit.rlim_max < FILES) {
		limit.rlim_max = FILES;
		r = mc_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, MC_PTR(&limit), 0);
	}
	return r < 0 ? report(g, "prlimit64", "RLIMIT_NOFILE", r) : 0;
}

static long prepare(struct guest *g)
{
	long r = mount_own(g);

	if (r == 0)
		r = open_streams(g);
	if (r == 0)
		r = signals_open(g);
	if (r == 0)
		r = raise_limit(g);
	if (r == 0)
		r = modules_load(g, "/modules");
	if (r == 0)
		g->listener = vsock_listen(&(uint32_t){ MC_GUEST_PORT });
	return r;
}

/* ---- what the host asks for, as far as it is the machine's */

static long set_clock(struct guest *g)
{
	const uint64_t ns = g->start->realtime_ns;
	const struct timespec t = { (time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS)) };
	long r = ns ? mc_sys2(SYS_clock_settime, CLOCK_REALTIME, MC_PTR(&t)) : 0;

	return r < 0 ? report(g, "clock_settime", "CLOCK_REALTIME", r) : 0;
}

static long open_helper(struct guest *g)
{
	long fd;

	if (g->start->init < 0)
		return 0;
	fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/init-helper"), O_RDONLY | O_CLOEXEC, 0);
	g->helper = (int)fd;
	return fd < 0 ? report(g, "open", "/init-helper", fd) : 0;
}

static long prepare_machine(struct guest *g)
{
	long r = set_clock(g);

	if (r == 0)
		r = open_helper(g);
	if (r == 0 && g->start->tag)
		r = root_switch(g, g->start);
	return r;
}

/* ---- the end */

/* A kernel that cannot power off (without ACPI) halts, or restarts; all of them end the machine. */
__attribute__((noreturn)) static void power_off(int by_restart)
{
	const uint64_t commands[] = { LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART };

	mc_sys0(SYS_sync);
	for (int i = by_restart; i < 2; i++)
		mc_sys4(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, commands[i], 0);
	for (;;)
		mc_sys5(SYS_ppoll, 0, 0, 0, 0, 0);
}

__attribute__((noreturn)) static void finish(struct guest *g)
{
	if (g->failed.kind != MC_GUEST_NO_FAILURE && g->control.fd < 0)
		ports_open_control(g, LATE_MS);
	report_end(g);
	power_off(g->control.fd < 0); /* the host waits for the end alone; without ACPI a power off only halts */
}

__attribute__((noreturn, used)) static void guest_main(long *stack)
{
	struct guest *g = &guest;
	long r;

	(void)stack;
	guest_init(g);
	g->accept = exec_accept;
	g->entry_ns = boottime();
	r = prepare(g);
	if (r == 0)
		r = ports_open(g, PORTS_MS);
	if (r == 0)
		r = start_receive(g);
	if (r == 0)
		r = prepare_machine(g);
	if (r == 0)
		r = program_start(g);
	if (r == 0)
		serve(g);
	finish(g);
}
