/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * confined.c: what threads of the monitor may still do. For each role a process is confined as such a thread is, and
 * makes one of the system calls below, whose arguments do nothing. Prints "ROLE CALL" for those that it survives; a
 * process that ends by another signal than SIGSYS is an error. Linked with csrc/vmm/confine.c.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/confine.h"

#define X32 0x40000000
#define NO_FD -1

static const char *const ROLES[] = {
	[MC_ROLE_WORKER] = "worker",
	[MC_ROLE_FILES] = "files",
	[MC_ROLE_DISK] = "disk",
	[MC_ROLE_NETWORK] = "network",
	[MC_ROLE_VSOCK] = "vsock",
	[MC_ROLE_PROCESSOR] = "processor",
	[MC_ROLE_MAIN] = "main",
};

static const struct {
	const char *name;
	long number, arguments[4];
} CALLS[] = {
	{ "write", SYS_write, { NO_FD } },
	{ "read", SYS_read, { NO_FD } },
	{ "writev", SYS_writev, { NO_FD } },
	{ "poll", SYS_poll },
	{ "epoll_wait", SYS_epoll_wait, { NO_FD } },
	{ "preadv", SYS_preadv, { NO_FD } },
	{ "futex", SYS_futex },
	{ "openat", SYS_openat, { NO_FD } },
	{ "open", SYS_open },
	{ "openat2", SYS_openat2, { NO_FD } },
	{ "mknodat", SYS_mknodat, { NO_FD } },
	{ "open_by_handle_at", SYS_open_by_handle_at, { NO_FD } },
	{ "execve", SYS_execve },
	{ "execveat", SYS_execveat, { NO_FD } },
	{ "clone", SYS_clone, { ~0l } },
	{ "clone3", SYS_clone3 },
	{ "fork in x32", SYS_fork | X32 },
	{ "socket", SYS_socket, { NO_FD } },
	{ "accept4", SYS_accept4, { NO_FD } },
	{ "connect", SYS_connect, { NO_FD } },
	{ "sendto", SYS_sendto, { NO_FD } },
	{ "recvfrom", SYS_recvfrom, { NO_FD } },
	{ "sendmsg", SYS_sendmsg, { NO_FD } },
	{ "recvmsg", SYS_recvmsg, { NO_FD } },
	{ "ptrace", SYS_ptrace, { NO_FD } },
	{ "process_vm_writev", SYS_process_vm_writev },
	{ "kill", SYS_kill, { 0, 0 } },
	{ "tgkill", SYS_tgkill },
	{ "mount", SYS_mount },
	{ "open_tree", SYS_open_tree, { NO_FD } },
	{ "chroot", SYS_chroot },
	{ "setns", SYS_setns, { NO_FD } },
	{ "unshare what is of the file system", SYS_unshare, { CLONE_FS } },
	{ "unshare a user namespace", SYS_unshare, { CLONE_NEWUSER } },
	{ "bpf", SYS_bpf },
	{ "io_uring_setup", SYS_io_uring_setup },
	{ "userfaultfd", SYS_userfaultfd, { ~0l } },
	{ "keyctl", SYS_keyctl, { ~0l } },
	{ "perf_event_open", SYS_perf_event_open },
	{ "init_module", SYS_init_module },
	{ "setuid", SYS_setuid, { NO_FD } },
	{ "setfsuid", SYS_setfsuid, { NO_FD } },
	{ "capset", SYS_capset },
	{ "seccomp", SYS_seccomp, { ~0l } },
	{ "prctl(PR_GET_DUMPABLE)", SYS_prctl, { PR_GET_DUMPABLE } },
	{ "prctl(PR_GET_NAME)", SYS_prctl, { PR_GET_NAME } },
	{ "ioctl(KVM_RUN)", SYS_ioctl, { NO_FD, KVM_RUN } },
	{ "ioctl(KVM_CREATE_VM)", SYS_ioctl, { NO_FD, KVM_CREATE_VM } },
	{ "ioctl(KVM_SET_USER_MEMORY_REGION)", SYS_ioctl, { NO_FD, (long)KVM_SET_USER_MEMORY_REGION } },
	{ "ioctl(TIOCGWINSZ)", SYS_ioctl, { NO_FD, TIOCGWINSZ } },
	{ "ioctl(TIOCSTI)", SYS_ioctl, { NO_FD, TIOCSTI } },
	{ "fcntl(F_DUPFD_CLOEXEC)", SYS_fcntl, { NO_FD, F_DUPFD_CLOEXEC } },
	{ "fcntl(F_SETFL)", SYS_fcntl, { NO_FD, F_SETFL } },
	{ "mmap to read", SYS_mmap, { 0, 0, PROT_READ } },
	{ "mmap to execute", SYS_mmap, { 0, 0, PROT_READ | PROT_EXEC } },
	{ "mprotect to execute", SYS_mprotect, { 0, 0, PROT_WRITE | PROT_EXEC } },
	{ "madvise(MADV_DONTNEED)", SYS_madvise, { 0, 0, MADV_DONTNEED } },
	{ "madvise(MADV_HWPOISON)", SYS_madvise, { 0, 0, MADV_HWPOISON } },
};

/* The status of a process that is confined and makes the call. */
static int status_of(enum mc_vmm_role role, size_t call)
{
	const long *a = CALLS[call].arguments;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (mc_confine(role) < 0)
			_exit(1);
		syscall(CALLS[call].number, a[0], a[1], a[2], a[3], 0, 0);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		err(2, "fork");
	return status;
}

int main(void)
{
	for (int role = 0; role < MC_VMM_ROLES; role++) {
		for (size_t i = 0; i < sizeof(CALLS) / sizeof(CALLS[0]); i++) {
			int status = status_of((enum mc_vmm_role)role, i);

			if (status == 0)
				printf("%s\t%s\n", ROLES[role], CALLS[i].name);
			else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
				errx(1, "%s %s: status %#x", ROLES[role], CALLS[i].name, status);
		}
	}
	return 0;
}
