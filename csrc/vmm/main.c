/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * main.c: the monitor of a microVM, a static program.
 *
 * Theory of operation. It is the program of a container (minicontainer/container/machine/), and has that container's
 * rights and no more: its root directory is what the guest sees of the host. It makes the machine that
 * MC_VMM_MACHINE_FD describes, and runs each virtual CPU in a thread. Devices have threads of their own; no access of
 * theirs waits for another device. This thread talks to the guest's init: it gives it the plan, passes signals on, and
 * waits for the program's end. Each of them is confined to what it has to do before it sees anything of the guest
 * (confine.c). The monitor then ends with the program's status, and the kernel frees the machine, whatever the guest
 * still does.
 *
 * What the caller learns is in the memfd that both share (struct mc_vmm_run). As soon as it is known whether the
 * program runs, a pipe says so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "vmm/vmm.h"

#define STACK (256 << 10) /* bytes of each thread's */

static struct mc_vmm vmm = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *map(int fd, int protection)
{
	struct stat info;
	void *at;

	if (fstat(fd, &info) < 0)
		mc_vmm_fail(&vmm, -errno, "fstat(%d)", fd);
	at = mmap(NULL, (size_t)info.st_size, protection, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		mc_vmm_fail(&vmm, -errno, "mmap(%d)", fd);
	return at;
}

/* All signals are for the program of the guest, and are read here; threads inherit that they are blocked. */
static int take_signals(void)
{
	sigset_t all;
	int fd;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		mc_vmm_fail(&vmm, -errno, "signalfd()");
	return fd;
}

/* The file server holds a descriptor for each file that the guest knows. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* In usual ones, of 8 MiB, the kernel would give a huge page of 2 MiB at the first byte that is used. */
static void make_stacks_small(void)
{
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	pthread_setattr_default_np(&attributes);
	pthread_attr_destroy(&attributes);
}

int main(void)
{
	uint64_t entered = mc_now();
	int signals;

	vmm.run = map(MC_VMM_RUN_FD, PROT_READ | PROT_WRITE);
	vmm.machine = map(MC_VMM_MACHINE_FD, PROT_READ);
	if (vmm.run->magic != MC_VMM_RUN_MAGIC || vmm.machine->magic != MC_MACHINE_MAGIC)
		mc_vmm_fail(&vmm, -EINVAL, "the machine's data");
	mc_vmm_reset(vmm.run);
	vmm.run->entered_ns = entered;
	vmm.has_terminal = ((const struct mc_guest_start *)((char *)vmm.run + vmm.run->start))->flags & MC_GUEST_TTY;
	signals = take_signals();
	raise_descriptors();
	make_stacks_small();
	vmm.ended = eventfd(0, EFD_CLOEXEC);
	if (vmm.ended < 0)
		mc_vmm_fail(&vmm, -errno, "eventfd()");
	vmm.vm = mc_ioctl_value(MC_VMM_KVM_FD, KVM_CREATE_VM, 0);
	if (vmm.vm < 0)
		mc_vmm_fail(&vmm, vmm.vm, "KVM_CREATE_VM");
	mc_vmm_make_memory(&vmm);
	mc_vmm_make_processors(&vmm);
	mc_vmm_make_devices(&vmm);
	mc_vmm_start_processors(&vmm);
	mc_vmm_serve(&vmm, signals);
}
