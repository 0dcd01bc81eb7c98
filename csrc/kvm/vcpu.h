/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vcpu.h: the interface between Python and C for virtual machines (x86_64 only).
 *
 * mc_vcpu_run runs a virtual CPU until there is an exit for Python. The frequent exits are handled in C: serial port,
 * debug console, debug-exit port. Every other access to a port or to an address without memory is returned one item
 * at a time (a `rep outsb` has many): Python reads mc_exit.value, or sets it if the guest reads, and calls again.
 */
#ifndef MC_VCPU_H
#define MC_VCPU_H

#include <stddef.h>
#include <stdint.h>

/* CDEF BEGIN */
#define MC_REASONS 64       /* KVM_EXIT_* are smaller                                                 */
#define MC_WORDS 16
#define MC_IO_PORTS 65536
#define MC_SERIAL_PORT 0x3f8
#define MC_SERIAL_IRQ 4
#define MC_SLEEP_CONTROL 0x600 /* ACPI 6.5, 4.8.3.7; arbitrary ports, which the FADT announces      */
#define MC_SLEEP_STATUS 0x601
#define MC_DEBUG_EXIT_PORT 0xf4
#define MC_DEBUG_CONSOLE_PORT 0xe9

/* The result of mc_vcpu_run: KVM's exit reason, or one of these. */
enum mc_stop {
	MC_STOP_SIGNAL = 256,   /* a signal: the caller runs its handlers, then calls again         */
	MC_STOP_REQUESTED,      /* mc_board.stop is set                                             */
	MC_STOP_DEADLINE,       /* mc_board.deadline_ns has passed                                  */
	MC_STOP_EXITS,          /* mc_board.max_exits is reached                                    */
	MC_STOP_DEBUG_EXIT,     /* the guest wrote mc_exit.value to the debug-exit port             */
	MC_STOP_HALTED,         /* every virtual CPU is halted with interrupts off (in-kernel irqchip) */
	MC_STOP_OUTPUT,         /* the caller must empty the serial port's buffer, or a write failed */
	MC_STOP_TRACE           /* mc_board.trace: an exit was handled; the caller traces it, then calls again */
};

/* An exit, decoded from struct kvm_run. */
struct mc_exit {
	uint32_t reason;        /* KVM_EXIT_*                                                       */
	uint32_t size;          /* IO, MMIO: bytes of one item                                      */
	uint32_t count;         /* IO: items (rep prefix), else 1                                   */
	uint32_t write;         /* the guest writes (IO, MMIO, MSR)                                 */
	uint64_t address;       /* IO: port; MMIO: guest physical address; MSR: index               */
	uint64_t value;         /* the current item: the value that the guest writes, or will read  */
	void *data;             /* size * count bytes in struct kvm_run                             */
	uint32_t nwords;
	uint32_t flags;         /* KVM_EXIT_SYSTEM_EVENT: its type; INTERNAL_ERROR: its suberror    */
	uint64_t offset;        /* of data, from the beginning of struct kvm_run                    */
	uint64_t words[MC_WORDS]; /* other fields, in the order of struct kvm_run                   */
};

struct mc_serial;

/* The state that the virtual CPUs of a machine share. */
struct mc_board {
	int32_t vm;             /* descriptor                                                       */
	uint32_t irqchip;       /* interrupt controllers are inside KVM, which then handles HLT too */
	uint32_t cpus;
	uint32_t halt_check;    /* above 0: after a signal a virtual CPU checks whether it is halted for ever */
	uint32_t halted;        /* number of virtual CPUs that are                                  */
	uint32_t stop;          /* all virtual CPUs return MC_STOP_REQUESTED                        */
	uint32_t trace;         /* mc_vcpu_run returns MC_STOP_TRACE after each handled exit         */
	uint64_t deadline_ns;   /* CLOCK_MONOTONIC; 0: none                                         */
	uint64_t max_exits;     /* 0: no limit                                                      */
	uint64_t exits;         /* of all virtual CPUs                                              */
	struct mc_serial *serial; /* at MC_SERIAL_PORT, or NULL                                     */
};

struct mc_vcpu {
	int32_t fd;
	int32_t thread;         /* its thread id, between attach and detach; else 0                 */
	void *run;              /* struct kvm_run, as mapped                                        */
	struct mc_board *board;
	struct mc_exit exit;
	uint32_t item;          /* index of the next item, below exit.count                         */
	uint32_t open;          /* 0: no exit; 1: items are left; 2: the caller handles item `item` */
	uint32_t halt_checked;  /* mc_board.halt_check when this virtual CPU was counted as halted  */
	uint32_t has_timer;
	uint64_t timer;         /* a timer_t: sends the kick at the deadline                        */
	struct mc_vcpu *outer;  /* the virtual CPU that this thread was running at the attach       */
	uint64_t entered_ns;    /* time of the last call of KVM_RUN                                 */
	uint64_t left_ns;       /* time of its return                                               */
	uint64_t first_ns;      /* time of the first exit                                           */
	uint64_t guest_ns;      /* spent in KVM_RUN                                                 */
	uint64_t counts[MC_REASONS];
	uint64_t host_ns[MC_REASONS]; /* from KVM_RUN's return to its next call, by reason          */
	uint64_t *ports;        /* NULL, or MC_IO_PORTS pairs: exits, ns as host_ns                    */
};

int mc_ioctl(int fd, unsigned long request, void *argument);
int mc_ioctl_value(int fd, unsigned long request, unsigned long argument);

void mc_exit_decode(void *run, struct mc_exit *exit);
int mc_run_map(int fd, size_t size, size_t offset, void **run);
int mc_run_unmap(void *run, size_t size);
size_t mc_run_sync(void *run, uint64_t valid, uint64_t dirty);
void mc_run_answer_msr(void *run, uint64_t value, int fault);
void mc_run_immediate(void *run, int on);

int mc_vcpu_attach(struct mc_vcpu *vcpu);
int mc_vcpu_run(struct mc_vcpu *vcpu);
int mc_vcpu_detach(struct mc_vcpu *vcpu);
int mc_vcpu_kick(struct mc_vcpu *vcpu);
uint64_t mc_vcpu_thread_ns(struct mc_vcpu *vcpu);

struct mc_serial *mc_serial_new(int fd, int vm, int eager);
void mc_serial_free(struct mc_serial *serial);
int mc_serial_read(struct mc_serial *serial, int offset);
int mc_serial_write(struct mc_serial *serial, int offset, int value);
long mc_serial_input(struct mc_serial *serial, const char *data, size_t size, int overrun);
long mc_serial_output(struct mc_serial *serial, char *data, size_t size);
int mc_serial_flush(struct mc_serial *serial, int wait);
void mc_serial_unplug(struct mc_serial *serial);

long mc_lz4_block(const char *block, size_t packed, char *out, size_t size);
/* CDEF END */

/* serial.c: transmits bytes; for the debug console. */
int mc_serial_print(struct mc_serial *serial, const char *data, size_t size);

/* serial.c: writes output that an earlier flush could not write: 0, or -errno. */
int mc_serial_flush_pending(struct mc_serial *serial);

#endif
