/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/compiled.h: the interfaces between the parts of the program of a compiled container.
 */
#ifndef MC_COMPILED_COMPILED_H
#define MC_COMPILED_COMPILED_H

#include <stddef.h>
#include <stdint.h>

#include "compiled/payload.h"
#include "monitor/text.h"
#include "plan/syscalls.h"
#include "start/start.h"

#define FAILED 125       /* exit codes, as of `minicontainer run` */
#define TIMED_OUT 124
#define CANNOT_INVOKE 126
#define NOT_FOUND 127
#define CLOSED_PIPE 141      /* 128 + SIGPIPE: nobody reads what was to be shown */
#define SECOND 1000000000ll
#define NO_MEMORY(address) ((unsigned long)(address) > -4096ul) /* of mmap(2) */

/* ---- message.c: one line on standard error: `what value: reason (hint)`. All return FAILED. */

int complain(const char *what, const char *value, const char *reason, const char *hint);
int complain_errno(const char *what, const char *value, long error, const char *hint);
int stale(const char *what, const char *value, const char *reason); /* with the hint to compile again */
const char *error_text(long error);  /* "no such file or directory" */
const char *error_name(long error);  /* "ENOENT"; NULL: unknown */
void put_capital(struct text *t, const char *text);
long write_all(int fd, const char *data, size_t size); /* 0, or -errno */
int same(const char *a, const char *b);
int begins(const char *text, const char *start, size_t length);

/* ---- quote.c: pure */

void put_quoted(struct text *t, const char *text); /* a value in a message */

/* ---- payload.c: pure */

uint64_t checksum(const void *data, size_t size); /* a multiple of 8 bytes */
const struct mc_compiled *payload_find(const void *file, size_t size); /* NULL: damaged */
int payload_check(const struct mc_compiled *c); /* 0, or -EINVAL: memory outside the payload would be read */

static inline const void *at(const struct mc_compiled *c, uint32_t offset)
{
	return (const char *)c + offset;
}

static inline const char *after(const char *text)
{
	while (*text++)
		;
	return text;
}

/* ---- clock.c */

void clock_find(const void *vdso);

/* ---- file.c */

const struct mc_compiled *file_open(const char *name); /* NULL: a message has been printed */

/* ---- host.c */

int host_check(const struct mc_compiled *c, char **environment); /* 0, or FAILED and a message */

/* ---- The whole of one run */

struct mc_vmm_run;
struct mc_guest_start;

struct note { /* a call of this process, for the timeline */
	const char *phase, *call;
	uint64_t start_ns, end_ns;
	int64_t result;
};

#define NOTES 24

struct runner {
	const struct mc_compiled *c;
	const struct mc_variant *variant;
	const struct mc_guest_part *guest; /* of a machine; NULL: there is none */
	char **environment, **arguments; /* the caller's; arguments without those of this program */
	const char *name;                /* of the file, as it was called */
	int is_explained;
	/* start.c */
	struct mc_spawn *spawn;
	struct mc_parent *parent;        /* NULL: there is no parent-side plan */
	const char *paths;               /* that the exec tries, consecutive; `npaths` of them */
	uint32_t npaths;
	const char *program;             /* argv[0] of the program */
	int helper_output;
	int terminal;                    /* the master of the pty; -1: none */
	/* guest.c, machine.c */
	struct mc_guest_start *start;    /* what the guest's init gets */
	struct mc_vmm_run *machine;      /* what the monitor and this program share */
	int machine_fd, report;          /* its memfd; the pipe that says whether the program runs */
	/* resources.c */
	struct mc_place place;           /* id, ownership and cgroup; `cgroup` -1: none */
	struct mc_usage usage;           /* the records of its end */
	int ids[2];                      /* descriptors that hold locks on ids; -1 */
	int64_t ids_byte;                /* offset of the byte that marks the range; -1: none */
	uint32_t uid, gid, id_count;
	/* signals.c, watch.c */
	int signals;                     /* signalfd(2) */
	int interrupts, is_urgent, is_expired;
	int is_booting, given_up;        /* a machine whose program does not run yet; the signal that has ended it */
	uint64_t pending;                /* signals that have come meanwhile */
	int64_t kill_at, end_at;         /* mc_now(); 0: never */
	int status;                      /* of the program: exit code, or minus the signal */
	int is_oom;
	/* the timeline */
	struct note notes[NOTES];
	int nnotes;
};

/* ---- arguments.c */

void arguments_parse(struct runner *r, long argc, char **argv);
/* The child's plan, with the program, its arguments and its environment: 0, or an exit code and a message. */
int arguments_plan(struct runner *r);
uint64_t arguments_measure(struct runner *r); /* the bytes that arguments_put needs, at most; 0: a message, FAILED */
int arguments_put(struct runner *r, struct mc_plan *plan); /* behind a plan */
void arguments_put_id(const struct runner *r, struct mc_span ids, void *to);
int arguments_too_long(const struct runner *r, long error); /* the message, and the exit code */

/* ---- resources.c: id, ownership, cgroup and ids */

int resources_take(struct runner *r);
void resources_kill(struct runner *r);
int resources_finish(struct runner *r);  /* reaps process 1, then as the next */
int resources_release(struct runner *r); /* 0, or FAILED and a message */

/* ---- start.c */

int start(struct runner *r);

/* ---- failure.c: the message for a start that failed; its exit code */

int explain_failure(struct runner *r, int result);
int explain_program(struct runner *r, int error, const struct mc_program *file);
int explain_step(const struct runner *r, uint32_t texts, uint32_t index, long error);

/* ---- guest.c, machine.c, kvm.c, ended.c: the program runs in a virtual machine */

struct opened;

int guest_prepare(struct runner *r); /* what its init gets: 0, or an exit code and a message */
const struct mc_plan *guest_plan(const struct runner *r);
/* The plan that its init has walked, with records on the host's clock, if the program has run. Once. */
void guest_walk(const struct runner *r, struct mc_run *run);
int machine_open(struct runner *r, struct opened *o);
int machine_await(struct runner *r); /* until the program runs: 0, or an exit code and a message */
int kvm_open(const struct mc_compiled *c); /* descriptors; -1: a message has been printed */
int kvm_open_file(const struct mc_compiled *c, const struct mc_machine_file *file);
int ended_before(struct runner *r);  /* a machine in which the program does not run: its exit code, after a message */
int ended_status(const struct runner *r);
int ended_out_of_memory(const struct runner *r); /* the guest's kernel has killed a process for memory */
void ended_explain(const struct runner *r); /* a machine that has ended before its program has */

/* ---- signals.c */

int signals_open(struct runner *r);
void signals_close(void); /* from now on they end this program, which may wait for a reader of its messages */
void signals_receive(struct runner *r);
void signals_resume(struct runner *r); /* the program runs: it gets those that are pending */
void signals_hang_up(struct runner *r);
void kill_all(struct runner *r);

/* ---- interrupts.c, terminal.c, watch.c */

struct pollfd;

int is_second_interrupt(struct runner *r, const char *typed, size_t size);

#define TERMINAL_HUNG_UP 1     /* the caller's terminal is gone */
#define TERMINAL_INTERRUPTED 2 /* by a second Ctrl-C, which the program ignores */

void terminal_begin(struct runner *r);
void terminal_resume(struct runner *r);
void terminal_resize(struct runner *r);
size_t terminal_polled(struct pollfd *polled);
int terminal_move(struct runner *r, const struct pollfd *polled); /* TERMINAL_* */
int terminal_fill(void);  /* whether there is output to show */
int terminal_output(void); /* the descriptor for it */
void terminal_show(void);
void terminal_end(void);

void watch(struct runner *r);        /* until process 1 has ended */
void watch_output(struct runner *r); /* until the rest of the output is shown, or a signal ends this program */

/* ---- timeline.c */

/* Records a call of this process, which has just ended. */
void note(struct runner *r, const char *phase, const char *call, uint64_t start_ns, int64_t result);
void note_record(struct runner *r, const char *phase, const char *call, const struct mc_record *record);
int timeline_print(struct runner *r); /* 0, or an exit code and a message */

#endif
