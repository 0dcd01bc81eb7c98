/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * confine.c: the seccomp filter and the capabilities of each thread of the monitor.
 *
 * Theory of operation. A thread that serves the guest is confined before it sees anything of it. What a role needs is
 * a list of system calls, some with a value of an argument. The list becomes a classic BPF program (seccomp(2)) that
 * compares one after the other, so the most frequent comes first. It applies beside the filter of the monitor's
 * container: both have to allow a call. Capabilities and filters belong to a thread, since the raw system calls are
 * used; threads that it would start have them too, but no role may start one.
 *
 * A thread that cannot go on calls _exit or returns. abort(3) ends by SIGSYS instead of SIGABRT, since no role may send
 * signals.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/confine.h"
#include "vmm/vmm.h"

/* What an argument has to be; arguments are compared by their lower 32 bits, which are all that the kernel takes of
 * those here. */
enum how { ALWAYS, EQUALS, WITHOUT };

struct rule {
	int call;
	enum how how;
	int argument;           /* its index */
	uint32_t value;         /* EQUALS: the argument's; WITHOUT: bits that it has not */
};

/* Locks, eventfds and reports, the clock (where the vDSO has none), the end of a thread and of the process. A thread
 * that is stopped in poll(2), by SIGSTOP or the cgroup freezer, goes on by restart_syscall(2). */
#define COMMON \
	{ SYS_futex }, { SYS_write }, { SYS_clock_gettime }, { SYS_restart_syscall }, { SYS_close }, \
	{ SYS_rt_sigprocmask }, { SYS_madvise, EQUALS, 2, MADV_DONTNEED }, { SYS_exit }, { SYS_exit_group }

/* kvm/vcpu.c and kvm/serial.c. rt_sigreturn: the handler of vcpu.c. */
static const struct rule PROCESSOR[] = {
	{ SYS_ioctl, EQUALS, 1, KVM_RUN },
	{ SYS_ioctl, EQUALS, 1, KVM_IRQ_LINE },
	COMMON,
	{ SYS_rt_sigreturn },
};

/* Devices that move bytes between rings and descriptors that they were given. */
static const struct rule WORKER[] = {
	{ SYS_poll }, { SYS_epoll_wait }, { SYS_read }, { SYS_writev }, COMMON, { SYS_sched_yield }, { SYS_shutdown },
	{ SYS_getrandom },
};

/* virtio/block.c */
static const struct rule DISK[] = {
	{ SYS_epoll_wait }, { SYS_read }, { SYS_preadv }, { SYS_pwritev2 }, { SYS_fdatasync }, COMMON,
};

/* serve.c */
static const struct rule MAIN[] = {
	{ SYS_poll }, { SYS_recvfrom }, { SYS_sendto }, { SYS_read }, COMMON,
	{ SYS_ioctl, EQUALS, 1, TIOCGWINSZ },
};

/* virtio/fs.c and virtio/fs/. The calls of memory are malloc's. */
static const struct rule FILES[] = {
	{ SYS_epoll_wait }, { SYS_read }, COMMON,
	{ SYS_preadv2 }, { SYS_pwritev2 }, { SYS_statx }, { SYS_openat }, { SYS_getdents64 }, { SYS_lseek },
	{ SYS_getxattr }, { SYS_listxattr }, { SYS_setxattr }, { SYS_removexattr }, { SYS_readlinkat },
	{ SYS_mkdirat }, { SYS_mknodat }, { SYS_symlinkat }, { SYS_linkat }, { SYS_unlinkat }, { SYS_renameat },
	{ SYS_renameat2 },
	{ SYS_fchmodat }, { SYS_fchownat }, { SYS_ftruncate }, { SYS_fallocate }, { SYS_utimensat },
	{ SYS_copy_file_range }, { SYS_fsync }, { SYS_fdatasync }, { SYS_syncfs }, { SYS_fstatfs },
	{ SYS_fcntl, EQUALS, 1, F_DUPFD_CLOEXEC },
	{ SYS_umask }, { SYS_fchdir }, { SYS_unshare, EQUALS, 0, CLONE_FS },
	{ SYS_setfsuid }, { SYS_setfsgid }, { SYS_capget }, { SYS_capset },
	{ SYS_prctl, EQUALS, 0, PR_GET_PDEATHSIG }, { SYS_prctl, EQUALS, 0, PR_SET_PDEATHSIG },
	{ SYS_prctl, EQUALS, 0, PR_GET_DUMPABLE }, { SYS_prctl, EQUALS, 0, PR_SET_DUMPABLE },
	{ SYS_brk }, { SYS_munmap }, { SYS_mmap, WITHOUT, 2, PROT_EXEC }, { SYS_mprotect, WITHOUT, 2, PROT_EXEC },
};

/* virtio/net.c */
static const struct rule NETWORK[] = {
	{ SYS_recvmsg }, { SYS_sendmsg }, { SYS_poll }, { SYS_read }, COMMON,
};

/* virtio/vsock.c */
static const struct rule VSOCK[] = {
	{ SYS_epoll_wait }, { SYS_read }, { SYS_recvfrom }, { SYS_sendto }, { SYS_shutdown }, { SYS_accept4 },
	{ SYS_epoll_ctl }, COMMON,
};

#define RULES(rules) rules, sizeof(rules) / sizeof((rules)[0])

static const struct role {
	const char *name;       /* of its threads (ps -L) */
	int acts_for_users;     /* keeps the capabilities */
	const struct rule *rules;
	size_t nrules;
} ROLES[MC_VMM_ROLES] = {
	[MC_ROLE_WORKER] = { "vmm-device", 0, RULES(WORKER) },
	[MC_ROLE_VSOCK] = { "vmm-vsock", 0, RULES(VSOCK) },
	[MC_ROLE_NETWORK] = { "vmm-network", 0, RULES(NETWORK) },
	[MC_ROLE_DISK] = { "vmm-disk", 0, RULES(DISK) },
	[MC_ROLE_FILES] = { "vmm-files", 1, RULES(FILES) },
	[MC_ROLE_PROCESSOR] = { "vmm-processor", 0, RULES(PROCESSOR) },
	[MC_ROLE_MAIN] = { "vmm", 0, RULES(MAIN) },
};

/* ---- the filter */

#define INSTRUCTIONS 512
#define PER_RULE 5 /* at most */
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(field))
#define SKIP_UNLESS(compare, value, n) BPF_JUMP(BPF_JMP | (compare) | BPF_K, value, 0, n)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)

struct filter {
	unsigned short count;
	struct sock_filter code[INSTRUCTIONS];
};
_Static_assert((sizeof(FILES) / sizeof(FILES[0]) + 1) * PER_RULE <= INSTRUCTIONS, "the longest list");

static void add(struct filter *f, const struct sock_filter *code, size_t count)
{
	for (size_t i = 0; i < count; i++)
		f->code[f->count++] = code[i];
}
#define ADD(f, ...) \
	add(f, (const struct sock_filter[]){ __VA_ARGS__ }, \
	    sizeof((const struct sock_filter[]){ __VA_ARGS__ }) / sizeof(struct sock_filter))

/* The number of the system call is in the accumulator, before and after. */
static void add_rule(struct filter *f, const struct rule *rule)
{
	const uint32_t call = (uint32_t)rule->call, value = rule->value;
	const size_t argument = offsetof(struct seccomp_data, args[rule->argument]);

	switch (rule->how) {
	case ALWAYS:
		ADD(f, SKIP_UNLESS(BPF_JEQ, call, 1), RETURN(SECCOMP_RET_ALLOW));
		break;
	case EQUALS:
		ADD(f, SKIP_UNLESS(BPF_JEQ, call, 4), LOAD(argument), SKIP_UNLESS(BPF_JEQ, value, 1),
		    RETURN(SECCOMP_RET_ALLOW), LOAD(offsetof(struct seccomp_data, nr)));
		break;
	case WITHOUT:
		ADD(f, SKIP_UNLESS(BPF_JEQ, call, 4), LOAD(argument),
		    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, value, 1, 0), RETURN(SECCOMP_RET_ALLOW),
		    LOAD(offsetof(struct seccomp_data, nr)));
		break;
	}
}

/* System calls of x32 have numbers that no list has. */
static void make(struct filter *f, const struct role *role)
{
	f->count = 0;
	ADD(f, LOAD(offsetof(struct seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
	    RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(offsetof(struct seccomp_data, nr)));
	for (size_t i = 0; i < role->nrules; i++)
		add_rule(f, role->rules + i);
	ADD(f, RETURN(SECCOMP_RET_KILL_PROCESS));
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

int mc_confine(enum mc_vmm_role which)
{
	const struct role *role = &ROLES[which];
	struct filter filter;
	struct sock_fprog program = { .filter = filter.code };
	int r = 0;

	make(&filter, role);
	program.len = filter.count;
	if (prctl(PR_SET_NAME, role->name) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	if (!role->acts_for_users)
		r = drop_capabilities();
	if (r == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		r = -errno;
	return r;
}

uint32_t mc_confine_calls(enum mc_vmm_role which)
{
	const struct role *role = &ROLES[which];
	uint32_t count = 0;

	for (size_t i = 0; i < role->nrules; i++) {
		size_t first = 0;

		while (role->rules[first].call != role->rules[i].call)
			first++;
		count += first == i;
	}
	return count;
}

void mc_vmm_confine(struct mc_vmm *vmm, enum mc_vmm_role role)
{
	int r = mc_confine(role);

	if (r < 0)
		mc_vmm_fail(vmm, r, "the seccomp filter of a thread: %s", ROLES[role].name);
	vmm->run->calls[role] = mc_confine_calls(role);
}
