/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * native.h: THE contract between Python and C. Everything in csrc/ includes only this and syscalls.h;
 * csrc/build.py feeds the part between the CDEF marks to cffi, so nothing in it is typed twice.
 *
 * A plan is data: one flat, position-independent, read-only buffer
 *
 *     struct mc_plan | struct mc_step[nsteps] | bytes: strings, structures, string lists
 *
 * Most steps are one system call: a number and up to six arguments, each an immediate, the address of
 * bytes in the plan (given as an offset), or a descriptor (given as a slot). A slot is an index into a
 * table of descriptors that belongs to one run of the plan: the first slots are filled by the caller, the
 * others by the steps themselves (`out`). The few steps that are more than one call have an opcode of
 * their own. A run writes one struct mc_record per step, and nothing else that anybody can see.
 */
#ifndef MC_NATIVE_H
#define MC_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* CDEF BEGIN */
#define MC_PLAN_MAGIC 0x6e6c706d
#define MC_ARGS 6

enum mc_op {
	MC_SYSCALL,      /* nr(arg...), as it is                                                        */
	MC_CHDIR,        /* chdir(path), and getcwd must then be inside the root (CVE-2024-21626)         */
	MC_SIGNALS,      /* every disposition to SIG_DFL, then the mask to `mask`                         */
	MC_CAPBSET,      /* PR_CAPBSET_DROP for each capability of the kernel that is not in `keep`       */
	MC_RLIMITS,      /* prlimit64 of each resource in turn, but never above the caller's hard limit   */
	MC_RAISE,        /* prlimit64 of a process: its hard limit of a resource is at least `hard`            */
	MC_SECCOMP,      /* seccomp(SECCOMP_SET_MODE_FILTER, flags, {len, program}); if strict, nothing but the exec that
			  * follows is called under it: what explains its failure is looked at before  */
	MC_IDMAP,        /* mount_setattr(tree, "", AT_EMPTY_PATH|flags, {MOUNT_ATTR_IDMAP, userns})      */
	MC_MOUNT_POINT,  /* open(path, O_PATH), with what is missing made, through links too                   */
	MC_PROC,         /* open("/proc/PID", O_PATH|O_DIRECTORY|O_CLOEXEC); PID is what the slot holds         */
	MC_ID_MAP,       /* write to a uid_map or gid_map: the ids from 0 are those from what the slot holds   */
	MC_RUN,          /* execve(path, argv, {}) in a child, which must end with 0: argv[1] is the number in a slot,
			  * and what it says on stderr goes to another                                  */
	MC_CHILD,        /* in the parent-side plan: the rest is walked when the child has said "ready"           */
	MC_WAIT,         /* read one byte: MC_GO goes on, else ECANCELED                                   */
	MC_NETLINK,      /* a netlink message to a socket, and its answer; up to four places of it get the numbers of
			  * two slots: the first the first's, the others the second's                   */
	MC_IF_INDEX,     /* the number of the interface of a name (netdevice(7))                       */
	MC_END_FLOWS,    /* IPCTNL_MSG_CT_DELETE of every tracked connection that the message's filter has, by any Linux */
	MC_FORGET,       /* a line of the hosts files of a directory becomes a comment                  */
	MC_SEND_FD,      /* sendmsg(socket, SCM_RIGHTS: descriptor)                                       */
	MC_FORK,         /* clone3(flags, cgroup or -1): the rest of the plan runs in that child; we are done */
	MC_EXEC,         /* execve of the first path of `paths` that exists                               */
	MC_EXEC_FD,      /* execveat(descriptor, "", argv, envp, AT_EMPTY_PATH)                           */
	MC_FAIL,         /* -nr: as another step would fail, for tests of what is done then                */
	MC_OPS           /* how many                                                                      */
};

/* What an argument is. Two bits for each, in mc_step.kinds. */
enum mc_kind { MC_IMM, MC_BYTES, MC_SLOT };

#define MC_READY 114  /* 'r' */
#define MC_GO 103  /* 'g' */
#define MC_MESSAGE 512 /* bytes, the most of a netlink message that numbers are put into */

struct mc_plan {
	uint32_t magic;
	uint32_t size;         /* bytes of the whole buffer                                             */
	uint32_t nsteps;
	uint32_t nslots;       /* descriptors of one run                                                */
	uint32_t nstrings;     /* the most pointers that one MC_EXEC needs, its two NULLs included      */
	uint32_t reserved;
};

struct mc_step {
	uint16_t op;           /* enum mc_op                                                            */
	uint16_t kinds;        /* enum mc_kind, two bits per argument                                   */
	int16_t out;           /* the slot that takes the result, or -1                                 */
	uint16_t skip;         /* how many steps to leave out when `tolerate` applied                   */
	uint16_t tolerate[2];  /* errno values that are no failure (0: none)                            */
	uint32_t nr;           /* MC_SYSCALL: the number; MC_EXEC: how many paths                       */
	uint64_t arg[MC_ARGS];
};

/* One record per step. A step with a start and no end is what the child was killed in (or exec). */
struct mc_record {
	uint64_t start_ns;     /* CLOCK_MONOTONIC; 0: never begun                                       */
	uint64_t end_ns;
	int64_t result;        /* what the call returned, or -errno                                     */
};

#define MC_HEAD 1024
#define MC_NO_FILTER -2 /* init could not load the filter under which the program was to be executed */

/* What the child saw of a program that could not be executed: the parent explains it. */
struct mc_program {
	int32_t path;          /* index among the paths of MC_EXEC; -1: none existed; or MC_NO_FILTER   */
	uint32_t mode;         /* st_mode                                                               */
	uint32_t length;       /* bytes in head                                                         */
	unsigned char head[MC_HEAD];
};

/* One run of a plan. The caller owns all of it; `slots` and `strings` are the walk's scratch. */
struct mc_run {
	const struct mc_plan *plan;
	struct mc_record *records;     /* nsteps of them, zeroed                                        */
	int32_t *slots;                /* nslots of them, -1 where empty                                */
	const char **strings;          /* nstrings of them                                              */
	int64_t failed;                /* index of the step that failed, or -1                          */
	int64_t at;                    /* index of the step begun last; nsteps when all are done        */
	int32_t sibling;               /* set by MC_FORK: the pid of who walks on, as the caller sees it  */
	int32_t blocked;               /* mc_spawn blocked all signals: until MC_SIGNALS, or exec         */
	int32_t strict;                /* under a filter that may forbid all but the exec: no clock either  */
	uint64_t sigmask;              /* the caller's, which exec then restores                          */
	struct mc_program program;
};

/* The parent-side plan of a start (parent.c): a plan of which the calling thread walks what comes before MC_CHILD, and a thread
 * of its own the rest, while the caller sleeps in the clone and the child waits (MC_WAIT). Its first slots get the
 * child's pid, and where MC_GO is written. */
struct mc_parent {
	struct mc_run run;
	uint32_t ninputs;      /* slots that are the caller's: not to close                            */
	uint32_t nshared;
	const int32_t *shared; /* pairs: what is in a slot of the parent-side plan goes into a slot of the child's plan */
	int32_t ready, go, answer; /* slots of the child's plan: its ends of the pipes (`answer`: to close) */
	int32_t pipes[4];      /* in use: where "ready" is read and written, the answer read and written */
};

/* clone3 of a child that walks `run`. All flags are the kernel's (CLONE_NEW*). */
struct mc_spawn {
	uint64_t flags;        /* CLONE_NEW* only: CLONE_VM|CLONE_VFORK|CLONE_PIDFD are spawn's own     */
	int32_t cgroup;        /* directory of the cgroup to be born in (CLONE_INTO_CGROUP), or -1      */
	int32_t pidfd;         /* out: close-on-exec                                                    */
	int32_t pid;           /* out: as the caller sees it; set before the child runs                 */
	uint64_t start_ns;     /* out: around clone3; the end is the child's exec or exit               */
	uint64_t end_ns;
	int32_t reaped;        /* out, of mc_spawn_reap: the two below are those of its end             */
	int32_t status;        /* exit code, or minus the signal                                        */
	uint64_t rusage[3];    /* user and system microseconds, peak resident set in KiB                */
	uint64_t caller_kib;   /* out: the caller's peak resident set; exec counts it as the child's too    */
	struct mc_parent *parent;  /* or NULL                                                               */
	struct mc_run run;
};

/* All return 0 or a result, or -errno; none touches errno, stdio or the heap. */
uint64_t mc_now(void);
int mc_plan_check(const void *plan, size_t size);
int mc_plan_walk(struct mc_run *run);
int mc_plan_walk_from(struct mc_run *run, uint32_t first);
int mc_spawn(struct mc_spawn *spawn);
int mc_spawn_reap(struct mc_spawn *spawn);
int mc_pidfd_wait(int pidfd, int timeout_ms);
int mc_pidfd_reap(int pidfd, int *status, uint64_t rusage_us[3]);
long mc_syscall(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);
long mc_syscall_as(uint32_t uid, uint32_t gid, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);
long mc_read_at(int dirfd, const char *name, char *buffer, size_t size);
long mc_write_at(int dirfd, const char *name, const char *data, size_t size);
/* CDEF END */

#endif
