/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * calls.c: tries system calls that a container does not need.
 *
 * The arguments do no harm if the call is permitted, and the kernel checks them after the permission, so a refusal
 * (EPERM, EACCES, ENOSYS) differs from an error of the arguments. Anything that a call may create ends with the
 * check's process.
 */
#define _GNU_SOURCE
#include "probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <unistd.h>

#define NONE MC_PTR("minicontainer-none") /* the name of no file system, key type or file */
#define CWD MC_FD(AT_FDCWD)
#define WRONG (~0ull)

/* Defines a check that makes one call. */
#define TRY(name, ...)                                                                                         \
	static enum verdict name(const char *argument)                                                         \
	{                                                                                                      \
		(void)argument;                                                                                \
		return refused(CALL(__VA_ARGS__));                                                             \
	}

/* mounts: no such file system; no mount point (can_umount in fs/namespace.c checks the permission first) */
TRY(try_mount, SYS_mount, NONE, MC_PTR("/"), NONE)
TRY(try_umount2, SYS_umount2, MC_PTR("/proc/self"))
TRY(try_pivot_root, SYS_pivot_root)
TRY(try_open_tree, SYS_open_tree, CWD, MC_PTR("/"), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
TRY(try_move_mount, SYS_move_mount, MC_FD(-1), MC_PTR(""), MC_FD(-1), MC_PTR(""), 0xffffffff)
TRY(try_fsopen, SYS_fsopen, NONE)
TRY(try_fspick, SYS_fspick, MC_FD(-1), 0, 0xffffffff)
TRY(try_fsmount, SYS_fsmount, MC_FD(-1), 0xffffffff, 0xffffffff)
TRY(try_mount_setattr, SYS_mount_setattr, CWD, MC_PTR("/"), 0, 0, 32)

/* kernel modules, kexec, the machine: kexec_load with invalid flags, reboot without its magic number */
TRY(try_init_module, SYS_init_module)
TRY(try_finit_module, SYS_finit_module, MC_FD(-1))
TRY(try_delete_module, SYS_delete_module)
TRY(try_kexec_load, SYS_kexec_load, 0, WRONG, 0, 0xffff)
TRY(try_reboot, SYS_reboot)
TRY(try_swapon, SYS_swapon)
TRY(try_swapoff, SYS_swapoff)
TRY(try_acct, SYS_acct, NONE)
TRY(try_quotactl, SYS_quotactl, 0x80ffff00, NONE)
TRY(try_sethostname, SYS_sethostname, 0, WRONG)
TRY(try_setdomainname, SYS_setdomainname, 0, WRONG)
TRY(try_fanotify_init, SYS_fanotify_init)
TRY(try_add_key, SYS_add_key, NONE, MC_PTR("none"), 0, 0, MC_FD(-2))
TRY(try_request_key, SYS_request_key, NONE, MC_PTR("none"))
TRY(try_keyctl, SYS_keyctl, 0, MC_FD(-3))
TRY(try_userfaultfd, SYS_userfaultfd, UFFD_USER_MODE_ONLY | O_CLOEXEC)
TRY(try_settimeofday, SYS_settimeofday)
TRY(try_kcmp, SYS_kcmp, (uint64_t)getpid(), (uint64_t)getpid(), 0, 0, 1)
TRY(try_personality, SYS_personality, ADDR_NO_RANDOMIZE)
#ifdef SYS_iopl
TRY(try_iopl, SYS_iopl, 3)
TRY(try_ioperm, SYS_ioperm, 0x80, 1, 1)
#endif

static enum verdict try_kexec_file_load(const char *argument)
{
	(void)argument;
#ifdef SYS_kexec_file_load
	return refused(CALL(SYS_kexec_file_load, MC_FD(-1), MC_FD(-1), 0, 0, WRONG));
#else
	return skip("this kernel has none");
#endif
}

/* clone3(2) must not bypass a filter of clone(2)'s flags, which seccomp cannot read in clone3. */
static enum verdict try_clone3(const char *argument)
{
	struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	long result = CALL(SYS_clone3, MC_PTR(&arguments), sizeof(arguments));

	(void)argument;
	if (result == 0)
		_exit(0);
	return refused(result);
}

static enum verdict try_clone(const char *argument)
{
	long result = CALL(SYS_clone, CLONE_NEWUSER | SIGCHLD);

	(void)argument;
	if (result == 0)
		_exit(0);
	return refused(result);
}

/* Other system call tables: i386 and x32. */
#ifdef __x86_64__
static enum verdict try_unshare_i386(const char *argument)
{
	long result;

	(void)argument;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(310l), "b"((long)CLONE_NEWUSER)
			 : "memory", "r8", "r9", "r10", "r11");
	return refused(result);
}

TRY(try_unshare_x32, 0x40000000 | SYS_unshare, CLONE_NEWUSER)
#endif

/* Creates an array map of one entry. */
static enum verdict try_bpf(const char *argument)
{
	union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

	(void)argument;
	return refused(CALL(SYS_bpf, BPF_MAP_CREATE, MC_PTR(&attributes), sizeof(attributes)));
}

/* Counts the processor time of its own process. */
static enum verdict try_perf_event_open(const char *argument)
{
	struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attributes), .disabled = 1};

	(void)argument;
	attributes.config = PERF_COUNT_SW_CPU_CLOCK;
	attributes.exclude_kernel = attributes.exclude_hv = 1;
	return refused(CALL(SYS_perf_event_open, MC_PTR(&attributes), 0, MC_FD(-1), MC_FD(-1)));
}

static enum verdict try_io_uring_setup(const char *argument)
{
	char parameters[256] = {0};

	(void)argument;
	return refused(CALL(SYS_io_uring_setup, 1, MC_PTR(parameters)));
}

/* ADJ_TICK with an invalid tick: the permission is checked first (kernel/time/timekeeping.c). */
static enum verdict try_adjtimex(const char *argument)
{
	struct timex adjustment = {.modes = ADJ_TICK};

	(void)argument;
	return refused(CALL(SYS_adjtimex, MC_PTR(&adjustment)));
}

/* The kernel checks the time before the permission. */
static enum verdict try_clock_settime(const char *argument)
{
	const int64_t wrong[2] = {0, -1};
	long result = CALL(SYS_clock_settime, 0, MC_PTR(wrong));

	(void)argument;
	if (result == -EINVAL && !(has_capability(CAP_SYS_TIME) && in_first_userns()))
		return pass("without the capability");
	return refused(result);
}

/* A handle of no file (ESTALE). */
static enum verdict try_open_by_handle_at(const char *argument)
{
	struct {
		uint32_t bytes, type;
		char handle[8];
	} handle = {8, 1, {0}};
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)argument;
	return refused(CALL(SYS_open_by_handle_at, MC_FD(root), MC_PTR(&handle), O_PATH));
}

/* Reads one byte of the kernel log. */
static enum verdict try_syslog(const char *argument)
{
	char byte[2];

	(void)argument;
	return refused(CALL(SYS_syslog, 3, MC_PTR(byte), 1));
}

/* In a new session, which has no terminal to hang up. */
static enum verdict try_vhangup(const char *argument)
{
	(void)argument;
	if (setsid() < 0)
		return skip("no session of its own");
	return refused(CALL(SYS_vhangup));
}

/* ---- other processes: a child of this one */

static enum verdict try_ptrace(const char *argument)
{
	int child = fork_sleeper();
	long result = CALL(SYS_ptrace, PTRACE_SEIZE, (uint64_t)child);

	(void)argument;
	kill(child, SIGKILL);
	return refused(result);
}

static enum verdict try_process_vm(const char *argument)
{
	char remote_byte = 1, local_byte = 0;
	struct iovec remote = {&remote_byte, 1}, local = {&local_byte, 1};
	int child = fork_sleeper();
	long number = argument ? SYS_process_vm_writev : SYS_process_vm_readv;
	long result = CALL(number, (uint64_t)child, MC_PTR(&local), 1, MC_PTR(&remote), 1);

	kill(child, SIGKILL);
	return refused(result);
}

static enum verdict try_pidfd_getfd(const char *argument)
{
	int child = fork_sleeper();
	long pidfd = CALL(SYS_pidfd_open, (uint64_t)child), result;

	(void)argument;
	result = pidfd < 0 ? pidfd : CALL(SYS_pidfd_getfd, (uint64_t)pidfd, 0);
	kill(child, SIGKILL);
	return refused(result);
}

#define CALLED(name) {"calls", #name, try_##name, NULL}

const struct check call_checks[] = {
	CALLED(mount),
	CALLED(umount2),
	CALLED(pivot_root),
	CALLED(open_tree),
	CALLED(move_mount),
	CALLED(fsopen),
	CALLED(fspick),
	CALLED(fsmount),
	CALLED(mount_setattr),
	CALLED(init_module),
	CALLED(finit_module),
	CALLED(delete_module),
	CALLED(kexec_load),
	CALLED(kexec_file_load),
	CALLED(reboot),
	CALLED(swapon),
	CALLED(swapoff),
	CALLED(acct),
	CALLED(quotactl),
	CALLED(sethostname),
	CALLED(setdomainname),
	CALLED(fanotify_init),
	CALLED(add_key),
	CALLED(request_key),
	CALLED(keyctl),
	CALLED(userfaultfd),
	CALLED(settimeofday),
	CALLED(clock_settime),
	CALLED(adjtimex),
	CALLED(kcmp),
	CALLED(personality),
#ifdef SYS_iopl
	CALLED(iopl),
	CALLED(ioperm),
#endif
	CALLED(clone),
	CALLED(clone3),
#ifdef __x86_64__
	CALLED(unshare_i386),
	CALLED(unshare_x32),
#endif
	CALLED(bpf),
	CALLED(perf_event_open),
	CALLED(io_uring_setup),
	CALLED(open_by_handle_at),
	CALLED(syslog),
	CALLED(vhangup),
	CALLED(ptrace),
	{"calls", "process_vm_readv", try_process_vm, NULL},
	{"calls", "process_vm_writev", try_process_vm, "write"},
	CALLED(pidfd_getfd),
	{NULL, NULL, NULL, NULL},
};
