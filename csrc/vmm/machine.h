/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * machine.h: the contract between Python and the monitor of a microVM (csrc/vmm/main.c). A machine is data: struct
 * mc_machine in a sealed memfd, which any number of monitors can use at the same time, and struct mc_vmm_run in a
 * memfd that the caller shares with one of them. Offsets count from the beginning of the memfd.
 */
#ifndef MC_MACHINE_H
#define MC_MACHINE_H

#include "guest/control.h"

/* CDEF BEGIN */
#define MC_MACHINE_MAGIC 0x6863616d
#define MC_VMM_RUN_MAGIC 0x6e75726d

/* The descriptors of the monitor, beside the three streams. */
#define MC_VMM_REPORT_FD 3  /* a pipe for struct mc_vmm_report                                          */
#define MC_VMM_KVM_FD 4     /* /dev/kvm                                                                 */
#define MC_VMM_MACHINE_FD 5 /* struct mc_machine                                                        */
#define MC_VMM_RUN_FD 6     /* struct mc_vmm_run                                                        */
#define MC_VMM_PROC_FD 7    /* the root of a proc that is mounted nowhere                               */
#define MC_VMM_FILES_FD 8   /* the files that segments are read from                                    */
#define MC_VMM_FILES 2      /* at most: kernel and initramfs                                            */
#define MC_VMM_GIVEN_FD 10  /* what devices serve: that of device i is the one at MC_VMM_GIVEN_FD + i    */

#define MC_VMM_CPUS 254
#define MC_VMM_DEVICES 8    /* at most                                                                  */
#define MC_VMM_TEXT 256
#define MC_VMM_CONSOLE 4096

/* Bytes of a file that are copied to guest memory. `file`: an index of the files; MC_MACHINE_SELF: this memfd. */
#define MC_MACHINE_SELF 0xffffffff
struct mc_machine_segment {
	uint64_t address, size, offset;
	uint32_t file, reserved;
};

struct mc_machine_msr {
	uint64_t index, value;
};

enum mc_vmm_device {
	MC_DEVICE_CONSOLE,      /* the streams, and the conversation with init                      */
	MC_DEVICE_FILE_SYSTEM,  /* the monitor's root directory                                     */
	MC_DEVICE_BALLOON,      /* memory that the guest has freed goes back to the host            */
	MC_DEVICE_RNG,          /* random bytes of the host                                         */
	MC_DEVICE_BLOCK,        /* the file or block device that it is given                        */
	MC_DEVICE_NETWORK,      /* an interface, by a packet(7) socket                              */
	MC_DEVICE_VSOCK         /* connections that a Unix socket takes, to ports of the guest      */
};

struct mc_machine {
	uint32_t magic, size;
	uint64_t memory;        /* bytes                                                            */
	uint32_t cpus;
	uint32_t nsegments, segments; /* how many; the offset of struct mc_machine_segment          */
	uint32_t nmsrs, msrs;   /* ... of struct mc_machine_msr, for each processor                 */
	uint32_t cpuid, cpuid_size; /* offset of struct kvm_cpuid2 of the first processor; from one to the next */
	uint32_t regs, sregs;   /* offsets of struct kvm_regs and kvm_sregs of the first processor  */
	uint32_t irq;           /* of the first device; those of the others follow                  */
	uint32_t ndevices;
	uint64_t devices;       /* address of the first device; a page for each                     */
	uint32_t kinds[MC_VMM_DEVICES]; /* enum mc_vmm_device                                       */
};

/* What a thread of the monitor is for, and thus what it may do (csrc/vmm/confine.c). */
enum mc_vmm_role {
	MC_ROLE_WORKER,         /* a device without a role of its own                               */
	MC_ROLE_FILES,          /* the file server                                                  */
	MC_ROLE_DISK,           /* a disk                                                           */
	MC_ROLE_NETWORK,        /* a network device                                                 */
	MC_ROLE_VSOCK,          /* a socket device                                                  */
	MC_ROLE_PROCESSOR,      /* a virtual CPU                                                    */
	MC_ROLE_MAIN,           /* the conversation with init                                       */
	MC_VMM_ROLES
};

/* How a machine has ended whose program has not. */
enum mc_vmm_end {
	MC_VMM_RUNS,
	MC_VMM_RESET,           /* the guest has reset its machine, as Linux does after a panic     */
	MC_VMM_POWEROFF,
	MC_VMM_TRIPLE_FAULT,
	MC_VMM_KVM_ERROR        /* `what` and `error` say which                                     */
};

/* Whether the program runs, as helpers/received.c reads it. Without a report the monitor has ended before. */
struct mc_vmm_report {
	int32_t error;          /* 0, or why it never will: errno of a step of the guest's plan, else ECANCELED */
	struct mc_program program; /* of an exec that failed                                        */
};

/* One run: what the guest's init gets, and what has happened. Times are of CLOCK_MONOTONIC of the host. The monitor
 * clears what is out: a container that is started again uses the same memfd. */
struct mc_vmm_run {
	uint32_t magic, size;
	uint32_t start, start_size; /* offset of the payload of MC_GUEST_START, and its bytes       */
	uint32_t records;       /* offset of struct mc_record of each step of the guest's plan      */
	uint32_t nrecords;      /* out: so many there are; at first those that there is room for, up to `size` */
	/* out */
	int32_t error;          /* -errno of a call of the monitor that has failed, `what`; or 0    */
	int32_t started;        /* the program runs, or has run                                     */
	int32_t failed;         /* it does not, for the reason in `failure`                         */
	int32_t exited;         /* it has ended, as `exit` says                                     */
	uint32_t end;           /* enum mc_vmm_end                                                  */
	uint32_t console_size;  /* bytes of `console`                                               */
	uint32_t calls[MC_VMM_ROLES]; /* system calls that threads of a role may make; 0: none is confined yet */
	uint64_t entered_ns;    /* the monitor's first instruction                                  */
	uint64_t booted_ns;     /* the first KVM_RUN                                                */
	uint64_t ready_ns;      /* the guest's init runs                                            */
	uint64_t started_ns;    /* the program runs                                                 */
	uint64_t exited_ns;     /* it has ended                                                     */
	struct mc_guest_exited exit;
	struct mc_guest_started guest;
	struct mc_guest_failed failure;
	char text[MC_VMM_TEXT]; /* of the failure                                                   */
	char what[MC_VMM_TEXT];
	char console[MC_VMM_CONSOLE]; /* the end of what the kernel has printed                     */
};
/* CDEF END */

#endif
