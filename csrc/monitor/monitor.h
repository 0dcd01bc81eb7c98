/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/monitor.h: the interfaces between the parts of the monitor.
 */
#ifndef MC_MONITOR_MONITOR_H
#define MC_MONITOR_MONITOR_H

#include <stddef.h>
#include <stdint.h>

#include "monitor/cgroup.h"
#include "monitor/shared.h"
#include "monitor/text.h"
#include "plan/syscalls.h"

/* ---- log.c: the program's output as a log with rotation */

struct log {
	int directory, fd;
	uint64_t size, limit; /* bytes; limit 0: none */
	uint32_t files;
	uint64_t lost;        /* bytes that could not be written since the last successful write */
	int error;            /* the errno of the last failure */
};

void log_write(struct log *log, const char *stream, const char *data, size_t size);

/* ---- state.c: the state of the container, as a file */

struct run {
	const char *status;           /* running, restarting, stopping (process 1 has ended, others not yet), exited */
	int32_t pid;                  /* of process 1, while it runs */
	int64_t started, finished;    /* CLOCK_REALTIME, nanoseconds */
	int32_t exit_code;            /* -1: unknown */
	const char *reason;           /* exited, signal, timeout, oom, failed */
	int oom_killed;
	uint32_t restarts;
	int upper;                    /* the monitor's descriptor of the overlay's upper layer; -1: none */
};

int state_reserve(const struct mc_monitor *shared); /* 0, or -errno; as state_write */
int state_write(const struct mc_monitor *shared, const struct run *run, uint64_t lost);
void state_unreserve(const struct mc_monitor *shared);

/* ---- events.c */

/* `key` is NULL, or the attribute that has the value `number` */
void event_write(const struct mc_monitor *shared, const char *action, const char *key, int64_t number);

/* ---- streams.c: the monitor's ends of the program's streams */

struct streams {
	int in, out, err; /* with a pty: `out` is its master, and `err` is -1 */
	int peer;         /* the pty's slave: while it is open here, reading the master does not fail with EIO */
	int upper;        /* the overlay's upper layer, reachable only through this descriptor (detached/changes.py) */
	char input[65536];
	uint32_t input_start, input_end; /* the part of `input` that the program has not read yet */
	int input_eof;
};

int streams_open(struct mc_monitor *shared, struct streams *s, int child_ends[4]);
int streams_receive(struct mc_monitor *shared, struct streams *s, int socket);
int streams_read(int fd, const char *name, struct log *log); /* 2: data; 1: none yet; 0: end of file */
void streams_write_input(struct streams *s);
void streams_close(struct streams *s);

/* ---- control.c: the clients of the monitor */

#define MC_CLIENTS 32

struct client {
	int fd;
	int blocked;       /* its next request is input, and the program has not read the last input yet */
	int64_t active_at; /* mc_now() of its last request */
};

struct control {
	int listener;
	struct client clients[MC_CLIENTS];
	int stopping;      /* no further restart */
	int64_t kill_at;   /* mc_now(); 0: never */
};

int control_open(struct control *c); /* 0, or -errno */
int control_accept(struct control *c); /* the index of a new client; -1: none */
int control_drop(struct control *c);   /* whether there were clients */
void control_receive(struct control *c, struct client *client, struct mc_monitor *shared, struct streams *s);
void control_stop(struct control *c, struct mc_monitor *shared, int signal, int64_t timeout_ms);

/* ---- end.c */

void end_release(const struct mc_monitor *shared); /* cgroup, ids, network lease, and the links to them */
void end_remove(const struct mc_monitor *shared);  /* the state directory, and the name */

/* ---- failpoint.c */

void failpoint_init(long *stack);
void failpoint(const char *name);

/* ---- the whole monitor */

struct monitor {
	struct mc_monitor *shared;
	struct streams streams;
	struct control control;
	struct log log;
	struct run run;
	uint64_t oom_kills;  /* before this run */
	int64_t started_at, expire_at, backoff; /* nanoseconds, the first two of mc_now() */
	int expired, restart;
	int64_t state_retry_at; /* mc_now(): when to try again to write `state`; 0: it is written */
	int signals;            /* the signalfd(2) for SIGTERM */
	int creator;            /* MC_STARTED_FD until the first start is over; then -1 */
	int report;             /* the pipe that loop_serve waits for; -1: it waits for the end of process 1 */
};

/* ---- loop.c */

int loop_record(struct monitor *m, const char *status);   /* writes the state: 0, or -errno */
void loop_serve(struct monitor *m);                       /* until process 1, or the report, has ended */
void loop_poll(const struct monitor *m, int64_t until);   /* mc_now(); then one of these, or both: */
void loop_forward(struct monitor *m);
void loop_receive(struct monitor *m);

/* ---- start.c, descriptors.c */

#define MC_SPARE_FDS 8 /* descriptors that the monitor needs for a while: of a log, a state, an event, directories */

int fds_available(int count); /* whether RLIMIT_NOFILE permits `count` more descriptors */
int start(struct monitor *m); /* 0, or -errno */
void kill_and_reap(struct mc_spawn *spawn);

#define MS 1000000ll
#define SECOND (1000 * MS)

#endif
