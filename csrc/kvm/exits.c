/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * exits.c: ioctls of KVM, and the decoding of struct kvm_run after KVM_RUN (Linux Documentation/virt/kvm/api.rst, "The
 * kvm_run structure").
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kvm/vcpu.h"

int mc_ioctl(int fd, unsigned long request, void *argument)
{
	int r = ioctl(fd, request, argument);

	return r < 0 ? -errno : r;
}

int mc_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
	int r = ioctl(fd, request, argument);

	return r < 0 ? -errno : r;
}

/* ---- struct kvm_run */

/* Maps `size` bytes of a virtual CPU's pages: struct kvm_run at 0, its dirty ring behind. Returns 0, or -errno.
 * (Python's mmap would duplicate the descriptor.) */
int mc_run_map(int fd, size_t size, size_t offset, void **run)
{
	*run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	return *run == MAP_FAILED ? -errno : 0;
}

int mc_run_unmap(void *run, size_t size)
{
	return munmap(run, size) < 0 ? -errno : 0;
}

void mc_run_immediate(void *run, int on)
{
	((struct kvm_run *)run)->immediate_exit = (uint8_t)on;
}

/* The answer to KVM_EXIT_X86_RDMSR and _WRMSR, before the next run: the value read, or #GP if `fault` is not 0. */
void mc_run_answer_msr(void *run, uint64_t value, int fault)
{
	struct kvm_run *r = run;

	r->msr.data = value;
	r->msr.error = fault != 0;
}

/* Returns the offset of struct kvm_sync_regs in `run`. KVM writes its parts `valid` at each exit, and reads its parts
 * `dirty` at the next run (KVM_SYNC_X86_*). */
size_t mc_run_sync(void *run, uint64_t valid, uint64_t dirty)
{
	struct kvm_run *r = run;

	r->kvm_valid_regs = valid;
	r->kvm_dirty_regs = dirty;
	return offsetof(struct kvm_run, s.regs);
}

static void copy_words(struct mc_exit *e, const void *from, uint32_t n)
{
	e->nwords = n < MC_WORDS ? n : MC_WORDS;
	memcpy(e->words, from, e->nwords * sizeof(uint64_t));
}

static void decode_debug(const struct kvm_run *r, struct mc_exit *e)
{
	const uint64_t w[] = { r->debug.arch.exception, r->debug.arch.pc, r->debug.arch.dr6, r->debug.arch.dr7 };

	copy_words(e, w, 4);
}

static void decode_access(struct kvm_run *r, struct mc_exit *e)
{
	if (e->reason == KVM_EXIT_IO) {
		e->address = r->io.port;
		e->size = r->io.size;
		e->count = r->io.count;
		e->write = r->io.direction == KVM_EXIT_IO_OUT;
		e->data = (char *)r + r->io.data_offset;
	} else {
		e->address = r->mmio.phys_addr;
		e->size = r->mmio.len;
		e->count = 1;
		e->write = r->mmio.is_write;
		e->data = r->mmio.data;
	}
	e->offset = (uint64_t)((char *)e->data - (char *)r);
}

void mc_exit_decode(void *run, struct mc_exit *e)
{
	struct kvm_run *r = run;

	e->reason = r->exit_reason;
	e->nwords = e->flags = e->size = e->count = e->write = 0;
	e->address = e->offset = 0;
	e->data = NULL;
	switch (r->exit_reason) {
	case KVM_EXIT_IO:
	case KVM_EXIT_MMIO:
		decode_access(r, e);
		break;
	case KVM_EXIT_DEBUG:
		decode_debug(r, e);
		break;
	case KVM_EXIT_UNKNOWN:
		copy_words(e, &r->hw.hardware_exit_reason, 1);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		copy_words(e, &r->fail_entry.hardware_entry_failure_reason, 1);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		e->flags = r->internal.suberror;
		copy_words(e, r->internal.data, r->internal.ndata);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		e->flags = r->system_event.type;
		copy_words(e, r->system_event.data, r->system_event.ndata);
		break;
	case KVM_EXIT_HYPERCALL:
		e->address = r->hypercall.nr;
		copy_words(e, r->hypercall.args, 6);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		e->address = r->msr.index;
		e->write = r->exit_reason == KVM_EXIT_X86_WRMSR;
		e->flags = r->msr.reason;
		copy_words(e, &r->msr.data, 1);
		break;
	}
}
