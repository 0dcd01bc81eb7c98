/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * native.h: the interface between Python and C. csrc/build.py passes the part between the CDEF marks to cffi.
 *
 * A plan is one flat, position-independent, read-only buffer
 *
 *     struct mc_plan | struct mc_step[nsteps] | bytes: strings, structures, string lists
 *
 * Most steps are one system call: a number and up to six arguments, each an immediate, the address of bytes in the
 * plan (stored as an offset), or a descriptor (stored as a slot). A slot is an index into a table of descriptors or
 * numbers that belongs to one run of the plan: the caller fills the first slots, the steps fill the others (`out`).
 * Steps that are more than one call have an opcode of their own. A run writes one struct mc_record for each step.
 */
#ifndef MC_NATIVE_H
#define MC_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* CDEF BEGIN */
#define MC_PLAN_MAGIC 0x6e6c706d
#define MC_ARGS 6

enum mc_op {
	MC_SYSCALL,      /* nr(arg...)                                                              */
	MC_CHDIR,        /* chdir(path); getcwd must then be inside the root (CVE-2024-21626)       */
	MC_SIGNALS,      /* every disposition to SIG_DFL, then the signal mask to `mask`            */
	MC_CAPBSET,      /* PR_CAPBSET_DROP of each capability that is not in `keep`                */
	MC_RLIMITS,      /* prlimit64 of each resource in turn, at most to the caller's hard limit  */
	MC_RAISE,        /* prlimit64 of a process: raises a hard limit to `hard`                   */
	MC_SECCOMP,      /* seccomp(SECCOMP_SET_MODE_FILTER, {len, program}). `strict`: only the exec that follows
			  * is called under it, so the executable is inspected before                    */
	MC_IDMAP,        /* mount_setattr(tree, "", AT_EMPTY_PATH|flags, {MOUNT_ATTR_IDMAP, userns}) */
	MC_MOUNT_POINT,  /* open(path, O_PATH); missing components are created, also behind symbolic links */
	MC_PROC,         /* open("/proc/PID", O_PATH|O_DIRECTORY|O_CLOEXEC); PID is the number in a slot */
	MC_ID_MAP,       /* write to a uid_map or gid_map: maps ids from 0 to those from the number in a slot */
	MC_RUN,          /* execve(path, argv, {}) in a child, which must exit with 0: argv[1] is the number in a slot,
			  * standard error is the descriptor in another slot                             */
	MC_CHILD,        /* in the parent-side plan: the steps after it are walked when the child has sent MC_READY */
	MC_WAIT,         /* read one byte: MC_GO, or the step fails with ECANCELED                  */
	MC_NETLINK,      /* send a netlink message and receive its acknowledgement; the number in one slot is written to
			  * the first of up to four offsets of the message, that in another slot to the others  */
	MC_IF_INDEX,     /* the index of the interface of a name (netdevice(7))                     */
	MC_PACKET,       /* a packet(7) socket for the frames of the interface of a name            */
	MC_END_FLOWS,    /* IPCTNL_MSG_CT_DELETE of every tracked connection that the message's filter matches */
	MC_COMMENT_OUT,  /* write "#" at an offset of each hosts file of a directory                */
	MC_SEND_FD,      /* sendmsg(socket, SCM_RIGHTS: descriptor)                                 */
	MC_FORK,         /* clone3(flags, cgroup or -1): the new child walks the steps after it     */
	MC_EXEC,         /* execve of the first path of `paths` that exists                         */
	MC_EXEC_FD,      /* execveat(descriptor, "", argv, envp, AT_EMPTY_PATH)                     */
	MC_FAIL,         /* fails with -nr: for tests of error handling                             */
	MC_OPS           /* the number of opcodes                                                          */
};

/* The kind of an argument: two bits for each, in mc_step.kinds. */
enum mc_kind { MC_IMM, MC_BYTES, MC_SLOT };

#define MC_READY 114  /* 'r' */
#define MC_GO 103  /* 'g' */
#define MC_MESSAGE 512 /* bytes, the longest netlink message that numbers are written to */

struct mc_plan {
	uint32_t magic;
	uint32_t size;          /* bytes of the whole buffer                                        */
	uint32_t nsteps;
	uint32_t nslots;        /* descriptors of one run                                           */
	uint32_t nstrings;      /* the most pointers that one MC_EXEC needs, its two NULLs included */
	uint32_t reserved;
};

struct mc_step {
	uint16_t op;            /* enum mc_op                                                       */
	uint16_t kinds;         /* enum mc_kind, two bits per argument                              */
	int16_t out;            /* the slot that takes the result, or -1                            */
	uint16_t skip;          /* steps to skip after a tolerated error                            */
	uint16_t tolerate[2];   /* errno values that do not fail the walk (0: none)                 */
	uint32_t nr;            /* MC_SYSCALL: the number; MC_EXEC: how many paths                  */
	uint64_t arg[MC_ARGS];
};

/* One record for each step. A step with a start and no end: the child was killed in it, or it is the exec. */
struct mc_record {
	uint64_t start_ns;      /* CLOCK_MONOTONIC; 0: the step was not started                     */
	uint64_t end_ns;
	int64_t result;         /* the call's return value, or -errno                               */
};

#define MC_HEAD 1024
#define MC_NO_FILTER -2 /* a helper could not load the program's seccomp filter */
#define MC_NO_DIRECTORY -3 /* a helper could not enter the program's working directory */

/* The executable that exec failed on, as the child saw it: the parent derives its error message from this. */
struct mc_program {
	int32_t path;           /* index among the paths of MC_EXEC; -1: none existed; or MC_NO_... */
	uint32_t mode;          /* st_mode                                                          */
	uint32_t length;        /* bytes in head                                                    */
	unsigned char head[MC_HEAD];
};

#define MC_HANDOVER_ROOM 16384 /* bytes; more are in shared memory */

/* The program for a waiting container of a pool (helpers/ready.c). Strings follow, each with its NUL: the working
 * directory, the paths to try, the arguments, the environment; then, aligned, room for the pointers of argv and
 * envp. */
struct mc_handover {
	uint32_t room;          /* bytes of all that                                                */
	uint32_t pointers;      /* their offset in it                                               */
	uint32_t npaths, argc, envc;
};

/* One run of a plan. The caller owns all of it; `slots` and `strings` are scratch memory of the walk. */
struct mc_run {
	const struct mc_plan *plan;
	struct mc_record *records; /* nsteps of them, zeroed                                        */
	int32_t *slots;         /* nslots of them, -1 where empty                                   */
	const char **strings;   /* nstrings of them                                                 */
	int64_t failed;         /* index of the step that failed, or -1                             */
	int64_t at;             /* index of the step started last; nsteps after the last one        */
	int32_t sibling;        /* set by MC_FORK: the pid of the second child, in the caller's pid namespace */
	int32_t blocked;        /* mc_spawn has blocked all signals; MC_SIGNALS, or the exec, unblocks them */
	int32_t strict;         /* a loaded seccomp filter may forbid all but the exec, clock_gettime too */
	uint64_t sigmask;       /* the caller's signal mask, which the exec restores if `blocked`   */
	struct mc_program program;
};

/* One run of a parent-side plan (parent.c). The calling thread walks the steps before MC_CHILD; a second thread walks
 * the rest, while the caller sleeps in clone3 and the child waits (MC_WAIT). Slot 0 is set to the child's pid, slot 1
 * to the pipe to which MC_GO is written. */
struct mc_parent {
	struct mc_run run;
	uint32_t ninputs;       /* the first slots, which the caller owns: they are not closed      */
	uint32_t nshared;       /* pairs in `shared`                                                */
	const int32_t *shared;  /* pairs of slots: (of this plan, of the child's plan that gets the same descriptor) */
	int32_t ready, go, answer; /* slots of the child's plan: pipe ends; the child closes `answer` */
	int32_t pipes[4];       /* while in use: two pipes, for MC_READY and for the answer         */
};

/* clone3 of a child that walks `run`. All flags are the kernel's (CLONE_NEW*). */
struct mc_spawn {
	uint64_t flags;         /* CLONE_NEW* only: mc_spawn adds CLONE_VM|CLONE_VFORK|CLONE_PIDFD  */
	int32_t cgroup;         /* descriptor of the child's cgroup directory (CLONE_INTO_CGROUP), or -1 */
	int32_t pidfd;          /* out: close-on-exec                                               */
	int32_t pid;            /* out: in the caller's pid namespace; set before the child runs    */
	uint64_t start_ns;      /* out: around clone3; the end is the child's exec or exit          */
	uint64_t end_ns;
	int32_t started;        /* out: every step was performed, those of the parent-side plan and the exec too */
	int32_t reaped;         /* out, of mc_spawn_reap: `status` and `rusage` are valid           */
	int32_t status;         /* exit code, or minus the signal                                   */
	uint64_t rusage[3];     /* user and system microseconds, peak resident set in KiB           */
	uint64_t caller_kib;    /* out: the caller's peak resident set; exec counts it as the child's too */
	struct mc_parent *parent; /* or NULL                                                        */
	int32_t streams;        /* slot of stdin, which those of stdout and stderr follow, plus 1; 0: none. Where they
				 * hold 0, 1 or 2, which are the caller's own streams, mc_spawn puts copies */
	struct mc_run run;
};

/* lay.c: the structures of one run in zeroed memory of sizeof(structure) + mc_run_room() + 8 bytes. */
size_t mc_run_room(const struct mc_plan *plan);
struct mc_spawn *mc_spawn_lay(void *memory, const struct mc_plan *plan);
struct mc_parent *mc_parent_lay(void *memory, const struct mc_parent *like);

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
