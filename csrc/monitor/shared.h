/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * shared.h: the contract between Python and the monitor of a detached container (csrc/monitor/). The monitor inherits a
 * shared memfd (MC_SHARED_FD). The memfd begins with struct mc_monitor; the plans, tables and strings to which its
 * offsets refer follow. Offsets count from the beginning of the memfd. None is offset 0, and descriptor or slot -1.
 */
#ifndef MC_MONITOR_H
#define MC_MONITOR_H

#include "plan/native.h"

/* CDEF BEGIN */
#define MC_MONITOR_MAGIC 0x6e6f6d6d
#define MC_ENTER_MAGIC 0x72746e65
#define MC_SHARED_FD 3      /* the memfd                                                                */
#define MC_STARTED_FD 4     /* a pipe: one byte when the first start has succeeded or failed            */
#define MC_FIRST_FREE_FD 5  /* the first of the other inherited descriptors                             */
#define MC_NAME 128
#define MC_NO_BYTE 0xffffffffffffffff /* the container has no range of ids of its own */

/* One run of a plan, as offsets. `initial_slots` are the values of `slots` before the run. */
struct mc_run_offsets {
	uint32_t plan, records, slots, initial_slots, strings;
};

enum mc_policy { MC_NEVER, MC_ON_FAILURE, MC_ALWAYS };

/* Bits of mc_monitor.flags */
#define MC_INTERACTIVE 1 /* standard input stays open for clients that attach                          */
#define MC_TERMINAL 2    /* the child sends its pty                                                     */
#define MC_REMOVE 4      /* remove the state directory after the end                                    */
#define MC_UPPER 8       /* the child sends the upper layer of its overlay, before its pty              */
#define MC_ANSWERS 16    /* a report of error 0 says that the program runs; without a report it does not */

struct mc_monitor {
	uint32_t magic, size;
	struct mc_run_offsets child, parent;  /* parent.plan 0: no parent-side plan                         */
	struct mc_run_offsets release;  /* plan 0: none; walked at the end, past every step that fails      */
	uint32_t shared_slots; /* offset of parent_side.shared                                          */
	uint32_t flags;
	int32_t in, out, err;  /* slots of the child's plan: its streams                                */
	int32_t socket;        /* ... the socket on which the child sends descriptors to the monitor    */
	int32_t report;        /* ... the pipe for the error report of init (init.c), or of a machine's monitor */
	int32_t directory;     /* descriptor of the state directory                                     */
	int32_t lock;          /* ... of its lock, which creator and monitor hold until the first start is over */
	int32_t cgroup, cgroup_parent;  /* ... of the container's cgroup, and of its parent             */
	int32_t ids;           /* ... of the file of id ranges; ids_byte of it is cleared at the end    */
	int32_t names;         /* ... of the directory of names                                         */
	uint32_t cgroup_name;  /* offset: the cgroup's name in its parent                               */
	uint32_t boot;         /* offset: the boot id                                                   */
	int32_t guest;         /* ... of what the monitor of a machine tells: a memfd                    */
	uint32_t guest_oom_kills;  /* offset in it of a number, 32 bits: processes that the guest's kernel has killed
				    * for memory                                                         */
	uint64_t ids_byte;
	char name[MC_NAME];    /* the container's name                                                  */
	char id[65];           /* 64 hexadecimal digits                                                 */
	uint32_t policy, retries;  /* enum mc_policy; MC_ON_FAILURE: how often at most, 0: no limit     */
	int32_t stop_signal;
	uint64_t stop_timeout_ms, timeout_ms;  /* from the stop signal to SIGKILL; of each run, 0: none */
	uint64_t log_size;     /* bytes of one file; 0: no limit                                        */
	uint32_t log_files;
	/* out: of the first start */
	int32_t result;        /* of mc_spawn                                                           */
	int32_t program_error; /* -errno of init's report; the rest of it is in spawn.run.program       */
	int32_t control_error; /* -errno of creating the socket; if it is not 0, no program runs         */
	int32_t state_error;   /* of writing `state`; if it is not 0, no program runs                   */
	struct mc_spawn spawn;
	struct mc_parent parent_side;
};

/* The memfd that csrc/helpers/enter.c maps begins with it: the plan of an exec, and its result. */
struct mc_enter {
	uint32_t magic, size;
	struct mc_run_offsets child;
	struct mc_run run;
};

/* The requests of clients on the socket `control` of the state directory (SOCK_SEQPACKET). */
enum mc_request_type {
	MC_REQUEST_INPUT = 105,   /* 'i', then bytes for standard input                                 */
	MC_REQUEST_EOF = 101,     /* 'e': standard input ends                                           */
	MC_REQUEST_WINDOW = 119,  /* 'w': struct mc_request, rows and columns                           */
	MC_REQUEST_SIGNAL = 107,  /* 'k': struct mc_request, a signal for process 1                     */
	MC_REQUEST_STOP = 115,    /* 's': struct mc_request, the signal (0: the stop signal), milliseconds to SIGKILL
				   * (-1: never)                                                            */
	MC_REQUEST_NAME = 110,    /* 'n', then the container's new name                                 */
	MC_REQUEST_POLICY = 112,  /* 'p': struct mc_request, policy and retries                         */
};

struct mc_request {
	uint8_t type;
	uint8_t reserved[3];
	int32_t first;
	int64_t second;
};
/* CDEF END */

#endif
