/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * kvm.h: the structures and constants of /dev/kvm that Python uses (x86_64). csrc/build.py declares the parts between
 * the marks to cffi, and the C compiler takes layouts and values from <linux/kvm.h>.
 */
#ifndef MC_KVM_H
#define MC_KVM_H

#include <asm/kvm_para.h>
#include <linux/kvm.h>

/* Of Linux 6.8 and 6.18, for the headers of older ones (include/uapi/linux/kvm.h). */
#ifndef KVM_MEM_GUEST_MEMFD
#define KVM_MEM_GUEST_MEMFD (1UL << 2)
#endif
#ifndef GUEST_MEMFD_FLAG_MMAP
#define GUEST_MEMFD_FLAG_MMAP (1ULL << 0)
#define GUEST_MEMFD_FLAG_INIT_SHARED (1ULL << 1)
#endif
#ifndef KVM_MEMORY_ATTRIBUTE_PRIVATE
#define KVM_MEMORY_ATTRIBUTE_PRIVATE (1ULL << 3)
#endif
#ifndef KVM_SET_USER_MEMORY_REGION2
struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#endif
#ifndef KVM_SET_MEMORY_ATTRIBUTES
struct kvm_memory_attributes {
	__u64 address;
	__u64 size;
	__u64 attributes;
	__u64 flags;
};
#define KVM_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, struct kvm_memory_attributes)
#endif
#ifndef KVM_CREATE_GUEST_MEMFD
struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags;
	__u64 reserved[6];
};
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif

#if 0 /* for csrc/build.py alone */
/* CDEF BEGIN */
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef int32_t __s32;
typedef unsigned long long __u64;

struct kvm_userspace_memory_region {
	__u32 slot; __u32 flags; __u64 guest_phys_addr; __u64 memory_size; __u64 userspace_addr; ...;
};
struct kvm_userspace_memory_region2 {
	__u32 slot; __u32 flags; __u64 guest_phys_addr; __u64 memory_size; __u64 userspace_addr;
	__u64 guest_memfd_offset; __u32 guest_memfd; ...;
};
struct kvm_create_guest_memfd { __u64 size; __u64 flags; ...; };
struct kvm_memory_attributes { __u64 address; __u64 size; __u64 attributes; ...; };
struct kvm_dirty_log { __u32 slot; void *dirty_bitmap; ...; };
struct kvm_clear_dirty_log { __u32 slot; __u32 num_pages; __u64 first_page; void *dirty_bitmap; ...; };
struct kvm_dirty_gfn { __u32 flags; __u32 slot; __u64 offset; ...; };
struct kvm_coalesced_mmio_zone { __u64 addr; __u32 size; __u32 pio; ...; };
struct kvm_coalesced_mmio { __u64 phys_addr; __u32 len; __u32 pio; __u8 data[8]; ...; };
struct kvm_coalesced_mmio_ring { __u32 first; __u32 last; struct kvm_coalesced_mmio coalesced_mmio[]; ...; };
struct kvm_irq_level { __u32 irq; __u32 level; ...; };
struct kvm_msi { __u32 address_lo; __u32 address_hi; __u32 data; __u32 flags; ...; };
struct kvm_irq_routing_irqchip { __u32 irqchip; __u32 pin; };
struct kvm_irq_routing_msi { __u32 address_lo; __u32 address_hi; __u32 data; __u32 pad; };
struct kvm_irq_routing_entry { /* whole: cffi takes no nameless union with "..." */
	__u32 gsi; __u32 type; __u32 flags; __u32 pad;
	union { struct kvm_irq_routing_irqchip irqchip; struct kvm_irq_routing_msi msi; __u64 pad[4]; } u;
};
struct kvm_irq_routing { __u32 nr; __u32 flags; struct kvm_irq_routing_entry entries[]; ...; };
struct kvm_msr_filter_range { __u32 flags; __u32 nmsrs; __u32 base; __u8 *bitmap; ...; };
struct kvm_msr_filter { __u32 flags; struct kvm_msr_filter_range ranges[16]; ...; };
struct kvm_device_attr { __u32 flags; __u32 group; __u64 attr; __u64 addr; ...; };
struct kvm_create_device { __u32 type; __u32 fd; __u32 flags; ...; };
struct kvm_pit_config { __u32 flags; ...; };
struct kvm_irqfd { __u32 fd; __u32 gsi; __u32 flags; __u32 resamplefd; ...; };
struct kvm_ioeventfd { __u64 datamatch; __u64 addr; __u32 len; __s32 fd; __u32 flags; ...; };
struct kvm_clock_data { __u64 clock; __u32 flags; ...; };
struct kvm_enable_cap { __u32 cap; __u32 flags; __u64 args[4]; ...; };

struct kvm_regs {
	__u64 rax; __u64 rbx; __u64 rcx; __u64 rdx; __u64 rsi; __u64 rdi; __u64 rsp; __u64 rbp;
	__u64 r8; __u64 r9; __u64 r10; __u64 r11; __u64 r12; __u64 r13; __u64 r14; __u64 r15;
	__u64 rip; __u64 rflags; ...;
};
struct kvm_segment {
	__u64 base; __u32 limit; __u16 selector; __u8 type; __u8 present; __u8 dpl; __u8 db; __u8 s; __u8 l;
	__u8 g; __u8 avl;
	__u8 unusable; ...;
};
struct kvm_dtable { __u64 base; __u16 limit; ...; };
struct kvm_sregs {
	struct kvm_segment cs; struct kvm_segment ds; struct kvm_segment es; struct kvm_segment fs;
	struct kvm_segment gs;
	struct kvm_segment ss; struct kvm_segment tr; struct kvm_segment ldt; struct kvm_dtable gdt;
	struct kvm_dtable idt;
	__u64 cr0; __u64 cr2; __u64 cr3; __u64 cr4; __u64 cr8; __u64 efer; __u64 apic_base;
	__u64 interrupt_bitmap[4]; ...;
};
struct kvm_sregs2 {
	struct kvm_segment cs; struct kvm_segment ds; struct kvm_segment es; struct kvm_segment fs;
	struct kvm_segment gs;
	struct kvm_segment ss; struct kvm_segment tr; struct kvm_segment ldt; struct kvm_dtable gdt;
	struct kvm_dtable idt;
	__u64 cr0; __u64 cr2; __u64 cr3; __u64 cr4; __u64 cr8; __u64 efer; __u64 apic_base;
	__u64 flags; __u64 pdptrs[4]; ...;
};
struct kvm_fpu {
	__u8 fpr[8][16]; __u16 fcw; __u16 fsw; __u8 ftwx; __u16 last_opcode; __u64 last_ip; __u64 last_dp;
	__u8 xmm[16][16];
	__u32 mxcsr; ...;
};
struct kvm_xsave { __u32 region[1024]; ...; };
struct kvm_xcr { __u32 xcr; __u64 value; ...; };
struct kvm_xcrs { __u32 nr_xcrs; __u32 flags; struct kvm_xcr xcrs[16]; ...; };
struct kvm_msr_entry { __u32 index; __u64 data; ...; };
struct kvm_msrs { __u32 nmsrs; struct kvm_msr_entry entries[]; ...; };
struct kvm_msr_list { __u32 nmsrs; __u32 indices[]; ...; };
struct kvm_cpuid_entry2 {
	__u32 function; __u32 index; __u32 flags; __u32 eax; __u32 ebx; __u32 ecx; __u32 edx; ...;
};
struct kvm_cpuid2 { __u32 nent; struct kvm_cpuid_entry2 entries[]; ...; };
struct kvm_lapic_state { char regs[1024]; ...; };
struct kvm_mp_state { __u32 mp_state; ...; };
struct kvm_debugregs { __u64 db[4]; __u64 dr6; __u64 dr7; __u64 flags; ...; };
struct kvm_guest_debug_arch { __u64 debugreg[8]; ...; };
struct kvm_guest_debug { __u32 control; struct kvm_guest_debug_arch arch; ...; };
struct kvm_irqchip { __u32 chip_id; ...; };
struct kvm_pit_state2 { __u32 flags; ...; };
struct kvm_vcpu_events { __u32 flags; __u32 sipi_vector; ...; };
struct kvm_sync_regs { struct kvm_regs regs; struct kvm_sregs sregs; struct kvm_vcpu_events events; ...; };
struct kvm_translation {
	__u64 linear_address; __u64 physical_address; __u8 valid; __u8 writeable; __u8 usermode; ...;
};
/* CDEF END */

/* NAMES BEGIN */
KVM_GET_API_VERSION KVM_CREATE_VM KVM_CHECK_EXTENSION KVM_GET_VCPU_MMAP_SIZE KVM_GET_SUPPORTED_CPUID
KVM_GET_MSR_INDEX_LIST
KVM_SET_USER_MEMORY_REGION2 KVM_CREATE_GUEST_MEMFD KVM_SET_MEMORY_ATTRIBUTES KVM_CLEAR_DIRTY_LOG
KVM_RESET_DIRTY_RINGS
KVM_REGISTER_COALESCED_MMIO KVM_UNREGISTER_COALESCED_MMIO KVM_SET_GSI_ROUTING KVM_X86_SET_MSR_FILTER
KVM_CREATE_DEVICE
KVM_HAS_DEVICE_ATTR KVM_GET_DEVICE_ATTR KVM_SET_DEVICE_ATTR KVM_GET_STATS_FD
KVM_GET_XSAVE2 KVM_GET_SREGS2 KVM_SET_SREGS2 KVM_KVMCLOCK_CTRL
KVM_CREATE_VCPU KVM_SET_USER_MEMORY_REGION KVM_GET_DIRTY_LOG KVM_SET_TSS_ADDR KVM_SET_IDENTITY_MAP_ADDR
KVM_CREATE_IRQCHIP
KVM_CREATE_PIT2 KVM_IRQ_LINE KVM_SIGNAL_MSI KVM_IRQFD KVM_IOEVENTFD KVM_GET_CLOCK KVM_SET_CLOCK KVM_GET_IRQCHIP
KVM_SET_IRQCHIP
KVM_GET_PIT2 KVM_SET_PIT2 KVM_ENABLE_CAP KVM_SET_BOOT_CPU_ID
KVM_RUN KVM_GET_REGS KVM_SET_REGS KVM_GET_SREGS KVM_SET_SREGS KVM_GET_FPU KVM_SET_FPU KVM_GET_XSAVE KVM_SET_XSAVE
KVM_GET_XCRS KVM_SET_XCRS KVM_GET_MSRS KVM_SET_MSRS KVM_GET_CPUID2 KVM_SET_CPUID2 KVM_GET_LAPIC KVM_SET_LAPIC
KVM_GET_VCPU_EVENTS KVM_SET_VCPU_EVENTS KVM_GET_DEBUGREGS KVM_SET_DEBUGREGS KVM_GET_MP_STATE KVM_SET_MP_STATE
KVM_SET_GUEST_DEBUG KVM_TRANSLATE KVM_INTERRUPT KVM_NMI KVM_GET_TSC_KHZ KVM_SET_TSC_KHZ
KVM_API_VERSION
KVM_MEM_LOG_DIRTY_PAGES KVM_MEM_READONLY KVM_MEM_GUEST_MEMFD KVM_MEMORY_ATTRIBUTE_PRIVATE
GUEST_MEMFD_FLAG_MMAP GUEST_MEMFD_FLAG_INIT_SHARED
KVM_DIRTY_LOG_PAGE_OFFSET KVM_DIRTY_GFN_F_DIRTY KVM_DIRTY_GFN_F_RESET
KVM_IRQ_ROUTING_IRQCHIP KVM_IRQ_ROUTING_MSI
KVM_MSR_FILTER_READ KVM_MSR_FILTER_WRITE KVM_MSR_FILTER_DEFAULT_DENY KVM_MSR_FILTER_MAX_RANGES
KVM_MSR_FILTER_MAX_BITMAP_SIZE
KVM_MSR_EXIT_REASON_INVAL KVM_MSR_EXIT_REASON_UNKNOWN KVM_MSR_EXIT_REASON_FILTER
KVM_DEV_TYPE_VFIO KVM_CREATE_DEVICE_TEST KVM_VCPU_TSC_CTRL KVM_VCPU_TSC_OFFSET KVM_X86_XCOMP_GUEST_SUPP
KVM_SREGS2_FLAGS_PDPTRS_VALID
KVM_EXIT_UNKNOWN KVM_EXIT_EXCEPTION KVM_EXIT_IO KVM_EXIT_HYPERCALL KVM_EXIT_DEBUG KVM_EXIT_HLT KVM_EXIT_MMIO
KVM_EXIT_IRQ_WINDOW_OPEN KVM_EXIT_SHUTDOWN KVM_EXIT_FAIL_ENTRY KVM_EXIT_INTR KVM_EXIT_SET_TPR KVM_EXIT_TPR_ACCESS
KVM_EXIT_NMI
KVM_EXIT_INTERNAL_ERROR KVM_EXIT_DIRTY_RING_FULL
KVM_EXIT_SYSTEM_EVENT KVM_EXIT_IOAPIC_EOI KVM_EXIT_X86_RDMSR KVM_EXIT_X86_WRMSR
KVM_INTERNAL_ERROR_EMULATION KVM_INTERNAL_ERROR_SIMUL_EX KVM_INTERNAL_ERROR_DELIVERY_EV
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON
KVM_SYSTEM_EVENT_SHUTDOWN KVM_SYSTEM_EVENT_RESET KVM_SYSTEM_EVENT_CRASH
KVM_GUESTDBG_ENABLE KVM_GUESTDBG_SINGLESTEP KVM_GUESTDBG_USE_SW_BP KVM_GUESTDBG_USE_HW_BP KVM_GUESTDBG_BLOCKIRQ
KVM_MP_STATE_RUNNABLE KVM_MP_STATE_UNINITIALIZED KVM_MP_STATE_INIT_RECEIVED KVM_MP_STATE_HALTED
KVM_MP_STATE_SIPI_RECEIVED
KVM_IRQCHIP_PIC_MASTER KVM_IRQCHIP_PIC_SLAVE KVM_IRQCHIP_IOAPIC KVM_PIT_SPEAKER_DUMMY
KVM_IRQFD_FLAG_DEASSIGN KVM_IRQFD_FLAG_RESAMPLE KVM_IOEVENTFD_FLAG_DATAMATCH KVM_IOEVENTFD_FLAG_PIO
KVM_IOEVENTFD_FLAG_DEASSIGN
KVM_SYNC_X86_REGS KVM_SYNC_X86_SREGS KVM_SYNC_X86_EVENTS KVM_CPUID_FLAG_SIGNIFCANT_INDEX
/* NAMES END */
#endif

#endif
