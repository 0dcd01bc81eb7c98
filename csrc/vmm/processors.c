/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * processors.c: interrupt controllers and virtual CPUs with the state that the machine's data give them, as
 * minicontainer/kvm/machine.py and processor.py do for kvm-boot; and a thread for each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/vmm.h"

/* Where Intel's processors need three pages for KVM's own use (Linux Documentation/virt/kvm/api.rst). */
#define IDENTITY_MAP_ADDRESS 0xfeffc000ull
#define TSS_ADDRESS 0xfeffd000ul
/* A local APIC after a PC's firmware: LINT0 delivers the PIC's interrupts, LINT1 NMIs (Intel SDM volume 3). */
#define APIC_LVT0 0x350
#define APIC_LVT1 0x360
#define APIC_LVT_MASK 0x10700u
#define DELIVER_NMI 0x400u
#define DELIVER_EXTINT 0x700u

struct mc_processor_thread {
	struct mc_vmm *vmm;
	struct mc_vcpu *vcpu;
};

static void call(struct mc_vmm *vmm, int fd, unsigned long request, void *argument, const char *name)
{
	int r = mc_ioctl(fd, request, argument);

	if (r < 0)
		mc_vmm_fail(vmm, r, "%s", name);
}

static const void *data(const struct mc_vmm *vmm, uint32_t offset)
{
	return (const char *)vmm->machine + offset;
}

static void make_irqchip(struct mc_vmm *vmm)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	uint64_t identity = IDENTITY_MAP_ADDRESS;
	int r;

	call(vmm, vmm->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR");
	r = mc_ioctl_value(vmm->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS);
	if (r < 0)
		mc_vmm_fail(vmm, r, "KVM_SET_TSS_ADDR");
	call(vmm, vmm->vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	call(vmm, vmm->vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
}

static void set_msrs(struct mc_vmm *vmm, int fd)
{
	const struct mc_machine_msr *from = data(vmm, vmm->machine->msrs);

	for (uint32_t i = 0; i < vmm->machine->nmsrs; i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} msrs = { .head.nmsrs = 1, .entry = { .index = (uint32_t)from[i].index, .data = from[i].value } };

		call(vmm, fd, KVM_SET_MSRS, &msrs, "KVM_SET_MSRS");
	}
}

static void set_lapic(struct mc_vmm *vmm, int fd)
{
	static const uint32_t lines[][2] = { { APIC_LVT0, DELIVER_EXTINT }, { APIC_LVT1, DELIVER_NMI } };
	struct kvm_lapic_state lapic;

	call(vmm, fd, KVM_GET_LAPIC, &lapic, "KVM_GET_LAPIC");
	for (int i = 0; i < 2; i++) {
		uint32_t value;

		memcpy(&value, lapic.regs + lines[i][0], sizeof(value));
		value = (value & ~APIC_LVT_MASK) | lines[i][1];
		memcpy(lapic.regs + lines[i][0], &value, sizeof(value));
	}
	call(vmm, fd, KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC");
}

static void set_fpu(struct mc_vmm *vmm, int fd)
{
	struct kvm_fpu fpu;

	call(vmm, fd, KVM_GET_FPU, &fpu, "KVM_GET_FPU");
	fpu.fcw = 0x37f; /* as after FNINIT */
	call(vmm, fd, KVM_SET_FPU, &fpu, "KVM_SET_FPU");
}

/* The first processor enters the kernel. The address of its local APIC, and what is pending, are KVM's own. */
static void enter_kernel(struct mc_vmm *vmm, int fd)
{
	struct kvm_sregs own, sregs = *(const struct kvm_sregs *)data(vmm, vmm->machine->sregs);
	struct kvm_regs regs = *(const struct kvm_regs *)data(vmm, vmm->machine->regs);

	call(vmm, fd, KVM_GET_SREGS, &own, "KVM_GET_SREGS");
	sregs.apic_base = own.apic_base;
	sregs.ldt = own.ldt;
	memcpy(sregs.interrupt_bitmap, own.interrupt_bitmap, sizeof(own.interrupt_bitmap));
	call(vmm, fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	call(vmm, fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

static void make_processor(struct mc_vmm *vmm, uint32_t number, int size)
{
	const struct mc_machine *m = vmm->machine;
	struct mc_vcpu *vcpu = vmm->processors + number;
	int r;

	vcpu->fd = r = mc_ioctl_value(vmm->vm, KVM_CREATE_VCPU, number);
	if (r < 0)
		mc_vmm_fail(vmm, r, "KVM_CREATE_VCPU(%u)", number);
	r = mc_run_map(vcpu->fd, (size_t)size, 0, &vcpu->run);
	if (r < 0)
		mc_vmm_fail(vmm, r, "mmap(vcpu %u)", number);
	vcpu->board = &vmm->board;
	call(vmm, vcpu->fd, KVM_SET_CPUID2, (char *)m + m->cpuid + number * m->cpuid_size, "KVM_SET_CPUID2");
	set_msrs(vmm, vcpu->fd);
	set_fpu(vmm, vcpu->fd);
	set_lapic(vmm, vcpu->fd);
	if (number == 0)
		enter_kernel(vmm, vcpu->fd);
}

void mc_vmm_make_processors(struct mc_vmm *vmm)
{
	uint32_t cpus = vmm->machine->cpus;
	int size = mc_ioctl_value(MC_VMM_KVM_FD, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (size < 0)
		mc_vmm_fail(vmm, size, "KVM_GET_VCPU_MMAP_SIZE");
	make_irqchip(vmm);
	vmm->board.vm = vmm->vm;
	vmm->board.irqchip = 1;
	vmm->board.cpus = cpus;
	vmm->board.serial = mc_serial_new(-1, vmm->vm, 1);
	vmm->processors = calloc(cpus, sizeof(*vmm->processors));
	if (!vmm->processors || !vmm->board.serial)
		mc_vmm_fail(vmm, -ENOMEM, "malloc(processors)");
	for (uint32_t i = 0; i < cpus; i++)
		make_processor(vmm, i, size);
}

/* ---- the threads */

/* Takes what the kernel has printed to the serial port. */
static void take_output(struct mc_vmm *vmm)
{
	char text[512];
	long n;

	while ((n = mc_serial_output(vmm->board.serial, text, sizeof(text))) > 0)
		mc_vmm_print(vmm, text, (size_t)n);
}

static void end(struct mc_vmm *vmm, enum mc_vmm_end why, int error, const char *what)
{
	uint64_t one = 1;

	take_output(vmm);
	pthread_mutex_lock(&vmm->lock);
	if (vmm->run->end == MC_VMM_RUNS) {
		vmm->run->end = why;
		if (error) {
			vmm->run->error = error;
			strcpy(vmm->run->what, what);
		}
	}
	pthread_mutex_unlock(&vmm->lock);
	if (write(vmm->ended, &one, sizeof(one)) < 0)
		mc_vmm_fail(vmm, -errno, "write(eventfd)");
}

static void access_device(struct mc_vmm *vmm, struct mc_exit *e)
{
	if (e->write)
		mc_vmm_device_write(vmm, e->address, e->size, e->value);
	else
		e->value = mc_vmm_device_read(vmm, e->address, e->size);
}

/* Handles one result of mc_vcpu_run. Returns whether the machine goes on. */
static int handle(struct mc_vmm *vmm, struct mc_vcpu *vcpu, int result)
{
	enum mc_vmm_end why = MC_VMM_RUNS;

	switch (result) {
	case KVM_EXIT_IO:
		why = mc_vmm_port(&vcpu->exit);
		break;
	case KVM_EXIT_MMIO:
		access_device(vmm, &vcpu->exit);
		break;
	case MC_STOP_OUTPUT:
		take_output(vmm);
		break;
	case MC_STOP_SIGNAL:
		break;
	case KVM_EXIT_SHUTDOWN:
		why = MC_VMM_TRIPLE_FAULT;
		break;
	default:
		end(vmm, MC_VMM_KVM_ERROR, result < 0 ? result : -EIO,
		    result == KVM_EXIT_INTERNAL_ERROR ? "KVM_RUN: an instruction that KVM cannot emulate" :
		    result == KVM_EXIT_FAIL_ENTRY ? "KVM_RUN: the processor refuses the state" : "KVM_RUN");
		return 0;
	}
	if (why != MC_VMM_RUNS)
		end(vmm, why, 0, "");
	return why == MC_VMM_RUNS;
}

static void *run(void *argument)
{
	struct mc_processor_thread *thread = argument;
	struct mc_vmm *vmm = thread->vmm;
	struct mc_vcpu *vcpu = thread->vcpu;
	int r = mc_vcpu_attach(vcpu);

	free(thread);
	if (r < 0)
		mc_vmm_fail(vmm, r, "mc_vcpu_attach");
	mc_vmm_confine(vmm, MC_ROLE_PROCESSOR);
	if (vcpu == vmm->processors)
		vmm->run->booted_ns = mc_now();
	while (handle(vmm, vcpu, mc_vcpu_run(vcpu)))
		;
	mc_vcpu_detach(vcpu);
	return NULL;
}

void mc_vmm_start_processors(struct mc_vmm *vmm)
{
	for (uint32_t i = 0; i < vmm->machine->cpus; i++) {
		struct mc_processor_thread *thread = malloc(sizeof(*thread));
		pthread_t id;
		int r = ENOMEM;

		if (thread) {
			*thread = (struct mc_processor_thread){ vmm, vmm->processors + i };
			r = pthread_create(&id, NULL, run, thread);
		}
		if (r)
			mc_vmm_fail(vmm, -r, "pthread_create(vcpu %u)", i);
	}
}
