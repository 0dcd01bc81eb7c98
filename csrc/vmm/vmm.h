/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vmm.h: what the files of the monitor share.
 */
#ifndef MC_VMM_H
#define MC_VMM_H

#include <pthread.h>

#include "kvm/vcpu.h"
#include "virtio/console.h"
#include "virtio/memory.h"
#include "virtio/mmio.h"
#include "vmm/confine.h"
#include "vmm/machine.h"

#define MC_VMM_DEVICE_SIZE 4096

struct mc_vmm {
	const struct mc_machine *machine;
	struct mc_vmm_run *run;
	int vm;
	int ended;              /* an eventfd: `run->end` is set                                    */
	int alarm;              /* an eventfd: a device is broken                                   */
	int scarce;             /* an eventfd: the guest's kernel should forget inodes             */
	int control;            /* the host's end of the control port                               */
	int has_terminal;       /* the streams are a pty                                            */
	int terminal;           /* a copy of it                                                     */
	struct mc_memory memory;
	struct mc_board board;
	struct mc_vcpu *processors;
	struct mc_virtio *devices[MC_VMM_DEVICES];
	struct mc_console *console;
	pthread_mutex_t lock;   /* of `tail`, and of the end                                        */
};

void mc_vmm_reset(struct mc_vmm_run *run);              /* report.c */
void mc_vmm_report_start(const struct mc_vmm_run *run); /* that the program runs, or why it never will */
/* What could not be done ends the monitor. */
__attribute__((noreturn, format(printf, 3, 4))) void mc_vmm_fail(struct mc_vmm *vmm, int error, const char *what, ...);
__attribute__((noreturn)) void mc_vmm_exit(const struct mc_vmm *vmm, int code);
void mc_vmm_print(struct mc_vmm *vmm, const char *text, size_t size);

void mc_vmm_confine(struct mc_vmm *vmm, enum mc_vmm_role role); /* confine.c: mc_confine, or the end of the monitor */
void mc_vmm_make_memory(struct mc_vmm *vmm);      /* memory.c: guest memory, with the segments in it */
void mc_vmm_make_processors(struct mc_vmm *vmm);  /* processors.c: with their initial state */
void mc_vmm_start_processors(struct mc_vmm *vmm);
void mc_vmm_make_devices(struct mc_vmm *vmm);     /* devices.c */
uint64_t mc_vmm_device_read(struct mc_vmm *vmm, uint64_t address, uint32_t size);
void mc_vmm_device_write(struct mc_vmm *vmm, uint64_t address, uint32_t size, uint64_t value);
enum mc_vmm_end mc_vmm_port(struct mc_exit *access); /* ports.c: MC_VMM_RUNS, unless the access ends the machine */
__attribute__((noreturn)) void mc_vmm_serve(struct mc_vmm *vmm, int signals); /* serve.c: until the program's end */

#endif
