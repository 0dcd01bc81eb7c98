/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * shared.h: the contract between Python and the monitor of a detached container (csrc/monitor/). The monitor inherits a
 * shared memfd (MC_TOLD) that begins with struct mc_monitor and holds all else that it names: plans, tables, strings. What is called an
 * offset counts from its beginning; 0: there is none. Descriptors are -1 where there is none.
 */
#ifndef MC_MONITOR_H
#define MC_MONITOR_H

#include "plan/native.h"

/* CDEF BEGIN */
#define MC_MONITOR_MAGIC 0x6e6f6d6d
#define MC_ENTER_MAGIC 0x72746e65
#define MC_TOLD 3        /* the memfd                                                           */
#define MC_STARTED 4     /* a pipe: a byte says that the first start is over, well or not           */
#define MC_FIRST_FREE 5  /* the first of the other descriptors                                     */
#define MC_NAME 128
#define MC_NO_BYTE 0xffffffffffffffff /* no id was taken for this container alone */

/* What a run of a plan consists of: offsets. `first` are the slots as they are before it. */
struct mc_parts {
	uint32_t plan, records, slots, first, strings;
};

enum mc_policy { MC_NEVER, MC_ON_FAILURE, MC_ALWAYS };

/* Bits of mc_monitor.wishes */
#define MC_INTERACTIVE 1 /* standard input stays open, for who attaches                            */
#define MC_TERMINAL 2    /* the child sends its pty                                                    */
#define MC_REMOVE 4      /* nothing is kept after the end                                          */
#define MC_UPPER 8       /* the child sends the upper layer of its overlay, before its pty               */

struct mc_monitor {
	uint32_t magic, size;
	struct mc_parts child, parent;  /* parent.plan 0: there is no parent-side plan                     */
	struct mc_parts ending; /* plan 0: none; walked at the end, whatever fails of it                  */
	uint32_t shared;       /* offset of parent_side.shared                                                 */
	uint32_t wishes;
	int32_t in, out, err;  /* slots of the child's plan: its streams                               */
	int32_t socket;        /* ... where it sends descriptors; they are kept                        */
	int32_t report;        /* ... where init says why there is no program (init.c)                 */
	int32_t directory;     /* descriptor of the state directory                                    */
	int32_t lock;          /* ... its lock, which the maker has too: until the first start is over, whoever dies */
	int32_t cgroup, home;  /* ... of the container's cgroup, and of that in which it is             */
	int32_t ids;           /* ... of the file of ids, and the byte of it that is to be cleared at the end */
	int32_t names;         /* ... of the directory of names                                        */
	uint32_t group;        /* offset: the cgroup's name in its home                                 */
	uint32_t boot;         /* offset: the boot id                                                   */
	uint64_t ids_byte;
	char name[MC_NAME];    /* the container's name                                                 */
	char id[65];           /* 64 hexadecimal digits                                                */
	uint32_t policy, retries;  /* enum mc_policy; MC_ON_FAILURE: at the most, 0: no end             */
	int32_t stop_signal;
	uint64_t stop_timeout_ms, timeout_ms;  /* from the signal to the kill; of each run, 0: none      */
	uint64_t log_size;     /* bytes of one file; 0: any                                            */
	uint32_t log_files;
	/* out: of the first start */
	int32_t result;        /* of mc_spawn                                                          */
	int32_t program_error; /* errno of init's report, whose rest is in spawn.run.program           */
	int32_t state_error;   /* of writing `state`: then nothing was started, or what was is gone      */
	struct mc_spawn spawn;
	struct mc_parent parent_side;
};

/* What csrc/helpers/enter.c is told: a plan that leads into a container, and what came of it. */
struct mc_enter {
	uint32_t magic, size;
	struct mc_parts child;
	struct mc_run run;
};

/* What a client says on the socket `control` of the state directory (SOCK_SEQPACKET). */
enum mc_word {
	MC_SAY_INPUT = 105,    /* 'i', and then bytes for standard input                               */
	MC_SAY_EOF = 101,      /* 'e': standard input ends                                            */
	MC_SAY_WINDOW = 119,   /* 'w': struct mc_say, rows and columns                                 */
	MC_SAY_SIGNAL = 107,   /* 'k': struct mc_say, a signal for process 1                           */
	MC_SAY_STOP = 115,     /* 's': struct mc_say, the signal (0: the stop signal), milliseconds to the kill (-1: never) */
	MC_SAY_NAME = 110,     /* 'n', and then the container's new name                              */
	MC_SAY_POLICY = 112,   /* 'p': struct mc_say, policy and retries                               */
};

struct mc_say {
	uint8_t word;
	uint8_t reserved[3];
	int32_t first;
	int64_t second;
};
/* CDEF END */

#endif
