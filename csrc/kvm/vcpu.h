/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vcpu.h: the contract between Python and C for virtual machines, as native.h is for plans (x86_64 only).
 *
 * A virtual CPU runs in mc_vcpu_run until something is for Python to decide. What is hot never gets there: the serial
 * port, the debug console and the debug-exit port are handled in C. Every other access to a port or to memory that
 * is no RAM comes out one item at a time (a `rep outsb` has many): Python reads mc_exit.value, or sets it where the
 * guest reads, and calls again.
 */
#ifndef MC_VCPU_H
#define MC_VCPU_H

#include <stddef.h>
#include <stdint.h>

/* CDEF BEGIN */
#define MC_REASONS 64       /* KVM_EXIT_* are below this                                              */
#define MC_WORDS 16
#define MC_PORTS 65536
#define MC_SERIAL_PORT 0x3f8
#define MC_SERIAL_IRQ 4
#define MC_DEBUG_EXIT_PORT 0xf4
#define MC_DEBUG_CONSOLE_PORT 0xe9

/* What mc_vcpu_run returns: KVM's exit reason, or one of these. */
enum mc_stop {
	MC_STOP_SIGNAL = 256,  /* a signal: let its handlers run, then call again                        */
	MC_STOP_ASKED,         /* mc_board.stop was set                                                  */
	MC_STOP_DEADLINE,      /* mc_board.deadline_ns is over                                           */
	MC_STOP_EXITS,         /* mc_board.max_exits have been                                           */
	MC_STOP_DEBUG_EXIT,    /* the guest wrote mc_exit.value to the debug-exit port                   */
	MC_STOP_HALTED,        /* every virtual CPU is halted with interrupts off (in-kernel irqchip)    */
	MC_STOP_OUTPUT,        /* the serial port's buffer is to be emptied, or could not be written     */
	MC_STOP_TRACE          /* mc_board.trace: an exit has been dealt with; look at it, then call again */
};

/* An exit, taken out of struct kvm_run. */
struct mc_exit {
	uint32_t reason;       /* KVM_EXIT_*                                                             */
	uint32_t size;         /* IO, MMIO: bytes of one item                                            */
	uint32_t count;        /* IO: items (rep prefix), else 1                                         */
	uint32_t write;        /* the guest writes (IO, MMIO, MSR)                                       */
	uint64_t address;      /* IO: port; MMIO: guest physical address; MSR: index                     */
	uint64_t value;        /* of the item at hand: what the guest wrote, or what it is to read       */
	void *data;            /* size * count bytes in struct kvm_run                                   */
	uint32_t nwords;
	uint32_t flags;        /* KVM_EXIT_SYSTEM_EVENT: its type; INTERNAL_ERROR: its suberror          */
	uint64_t words[MC_WORDS]; /* what else there is, in the order of struct kvm_run                  */
};

struct mc_serial;

/* What the virtual CPUs of a machine share. */
struct mc_board {
	int32_t vm;            /* descriptor                                                             */
	uint32_t irqchip;      /* there is one in the kernel: HLT does not come out                      */
	uint32_t cpus;
	uint32_t look;         /* above 0: who comes out by a signal is to see whether it is halted for good */
	uint32_t halted;       /* how many are, that have looked                                         */
	uint32_t stop;         /* all are to return MC_STOP_ASKED                                        */
	uint32_t trace;
	uint64_t deadline_ns;  /* CLOCK_MONOTONIC; 0: none                                               */
	uint64_t max_exits;    /* 0: no limit                                                            */
	uint64_t exits;        /* of all                                                                 */
	struct mc_serial *serial; /* at MC_SERIAL_PORT, or NULL                                          */
};

struct mc_vcpu {
	int32_t fd;
	int32_t thread;        /* that is between begin and end, or 0                                    */
	void *run;             /* struct kvm_run, as mapped                                              */
	struct mc_board *board;
	struct mc_exit exit;
	uint32_t item;         /* of exit.count: the next to deal with                                   */
	uint32_t open;         /* 0: nothing to deal with; 1: items; 2: the caller has item `item`       */
	uint32_t looked;       /* mc_board.look, when it was found halted for good                       */
	uint32_t has_timer;
	uint64_t timer;
	struct mc_vcpu *outer; /* the virtual CPU that this thread was running when it began this one    */
	uint64_t entered_ns;   /* when KVM_RUN was called last                                           */
	uint64_t left_ns;      /* when KVM_RUN returned                                                  */
	uint64_t first_ns;     /* when it did for the first exit of all                                  */
	uint64_t guest_ns;     /* spent in KVM_RUN                                                       */
	uint64_t counts[MC_REASONS];
	uint64_t host_ns[MC_REASONS]; /* from KVM_RUN's return to its next call, per reason               */
	uint64_t *ports;       /* NULL, or MC_PORTS pairs: exits, ns as host_ns                          */
};

int mc_ioctl(int fd, unsigned long request, void *argument);
int mc_ioctl_value(int fd, unsigned long request, unsigned long argument);

void mc_exit_decode(void *run, struct mc_exit *exit);
int mc_run_map(int fd, size_t size, void **run);
int mc_run_unmap(void *run, size_t size);
void *mc_run_sync(void *run, uint64_t valid, uint64_t dirty);
void mc_run_immediate(void *run, int on);

int mc_vcpu_begin(struct mc_vcpu *vcpu);
int mc_vcpu_run(struct mc_vcpu *vcpu);
int mc_vcpu_end(struct mc_vcpu *vcpu);
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

/* serial.c: as if each byte had been written to the transmitter; for the debug console. */
int mc_serial_print(struct mc_serial *serial, const char *data, size_t size);

/* serial.c: writes what should have been written already, and could not: 0 (mostly at once), or -errno. */
int mc_serial_settle(struct mc_serial *serial);

#endif
