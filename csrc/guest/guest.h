/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/guest.h: the interfaces between the parts of the guest's init.
 */
#ifndef MC_GUEST_GUEST_H
#define MC_GUEST_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include "guest/control.h"
#include "plan/syscalls.h"

#define MS 1000000ll

struct pollfd;

/* ---- patience.c: waits for what the kernel makes in its own time, by looking again after longer and longer pauses */

struct patience {
	int64_t until, pause; /* nanoseconds; `until` and `look_at` of mc_now() */
	int64_t look_at;      /* when to look again */
};

void patience_begin(struct patience *p, int64_t until);
int patience_next(struct patience *p); /* sets look_at; 0: the time is over */
int patience_sleep(struct patience *p); /* sleeps until look_at; 0: the time is over */

/* ---- frames.c: the control port */

struct frames {
	int fd;      /* -1: not open; nonblocking */
	size_t have; /* bytes of `in` */
	struct {
		struct mc_guest_frame frame;
		union {
			struct mc_guest_signal signal;
			struct mc_guest_size size;
			struct mc_guest_forget forget;
		} payload;
	} in;
};

struct part {
	const void *data;
	size_t size;
};

/* -EPIPE: the host has closed the port; -EPROTO: it has sent what is no frame of this protocol. */
long frames_send(const struct frames *f, uint32_t type, const struct part *parts, int count);
long frames_receive_start(const struct frames *f, const struct mc_guest_start **start);
int frames_receive(struct frames *f); /* 1: a whole frame is in `in`; 0: not yet; or -errno */
void frames_await_end(const struct frames *f, int64_t ms);

/* ---- flow.c: bytes from one descriptor to another, both nonblocking */

struct flow {
	int from, to;             /* -1: closed */
	int is_input;             /* `from` is a port; else `to` is one */
	int waits;                /* the host's side of the port was never seen open */
	int ends;                 /* nobody will write to `from` any more: what it has now is all */
	struct patience patience; /* while it waits */
	uint32_t start, end;      /* the part of `data` that was read and not written */
	char data[65536];
};

/* `until`: a port that was never seen open is then taken as closed. */
void flow_begin(struct flow *f, int from, int to, int is_input, int64_t until);
/* `polled`: two entries. flow_polled() fills them with what to wait for, until patience.look_at if the flow waits. */
void flow_polled(const struct flow *f, struct pollfd *polled);
void flow_move(struct flow *f, const struct pollfd *polled);
void flow_finish(struct flow *f); /* moves what `from` has, and no more */
void flow_close(struct flow *f);
int flow_is_open(const struct flow *f);

/* ---- the whole of init */

enum { IN, OUT, ERR };

struct guest {
	uint64_t entry_ns;
	struct frames control;
	int ports[3];   /* IN, OUT, ERR, nonblocking; -1: not open, or given to a flow */
	int64_t opened; /* mc_now() when they were opened */
	int kmsg;       /* /dev/kmsg, or -1 */
	int helper;     /* the file of the slot `init`, or -1 */
	int caches;     /* /proc/sys/vm/drop_caches, or -1 */
	int vmstat;     /* /proc/vmstat, or -1 */
	uint64_t oom_kills; /* before the program */
	int signals;    /* a signalfd(2) for SIGCHLD; all signals are blocked */
	int listener;   /* for exec, nonblocking; -1: the kernel has no vsock */
	void (*accept)(const struct guest *g); /* called when the listener has a connection */
	const struct mc_guest_start *start;
	struct mc_spawn *spawn;
	struct flow flows[3];
	int peer;       /* the pty's slave: while it is open here, reading the master does not fail with EIO */
	int has_ended, is_alone; /* the program's process was reaped; no other process is left */
	int is_hung_up; /* the host has closed the control port */
	struct mc_guest_exited exited;
	struct mc_guest_failed failed;
	char text[512]; /* of `failed` */
};

/* No descriptor is open. (As an initial value, this would put the buffers of the flows into the file.) */
static inline void guest_init(struct guest *g)
{
	g->control.fd = g->kmsg = g->helper = g->caches = g->vmstat = g->signals = g->listener = g->peer = -1;
	for (int i = 0; i < 3; i++)
		g->ports[i] = g->flows[i].from = g->flows[i].to = -1;
}

/* ---- report.c */

/* Records and logs that a call of init has failed; returns `error`, -errno. Only the first failure is recorded. */
long report(struct guest *g, const char *call, const char *arguments, long error);
void report_end(struct guest *g); /* sends FAILED, if there was a failure, and waits for the host's end */

/* ---- what init does, in this order: 0, or -errno, and then the failure is recorded */

int signals_open(struct guest *g);                          /* signals.c */
long modules_load(struct guest *g, const char *directory);  /* modules.c */
long ports_open(struct guest *g, int64_t ms);               /* ports.c */
long ports_open_control(struct guest *g, int64_t ms);
uint64_t boottime(void);                                    /* start.c: nanoseconds */
long start_receive(struct guest *g);                        /* start.c: READY, then START */
long start_await(struct guest *g);                          /* start.c: START */
long root_switch(struct guest *g, const struct mc_guest_start *s); /* root.c */
long program_start(struct guest *g);                        /* program.c: up to STARTED */
long serve(struct guest *g);                                /* serve.c: up to EXITED */

/* ---- memory.c */

uint64_t oom_kills(int vmstat); /* how many processes the kernel has killed since its boot as it had no memory */

/* ---- exec.c */

void exec_accept(const struct guest *g); /* serves a connection to the listener by a process of its own */

/* ---- vsock.c: listeners and connections, nonblocking; -errno */

int vsock_listen(uint32_t *port); /* VMADDR_PORT_ANY: at a free one, which is stored */
int vsock_accept(int listener);   /* one of the host; -EAGAIN: there is none */

/* ---- signals.c */

void signals_reap(struct guest *g);
void signals_forward(struct guest *g, int number);
void signals_kill_all(void);

#endif
