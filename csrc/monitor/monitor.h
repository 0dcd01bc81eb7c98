/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/monitor.h: what the parts of the monitor owe each other.
 */
#ifndef MC_MONITOR_MONITOR_H
#define MC_MONITOR_MONITOR_H

#include <stddef.h>
#include <stdint.h>

#include "monitor/shared.h"
#include "plan/syscalls.h"

/* ---- text.c: text that is put together; what does not fit is left out, never half of it */

struct text {
	char *at;
	const char *end;
};

void put(struct text *t, const char *text);
void put_bytes(struct text *t, const char *data, size_t size);
void put_number(struct text *t, int64_t number);
void put_time(struct text *t, int64_t realtime_ns); /* 2026-11-23T16:51:08.123456789Z */
int64_t realtime(void);

/* ---- log.c: the program's output as a log with rotation */

struct log {
	int directory, fd;
	uint64_t size, limit; /* bytes; limit 0: none */
	uint32_t files;
	uint64_t lost;        /* bytes that could not be written since the last that could */
	int error;            /* why */
};

void log_write(struct log *log, const char *stream, const char *data, size_t size);

/* ---- state.c: what is known of the container, as a file */

struct run {
	const char *status;           /* running, restarting, stopping (its first process has ended), exited */
	int32_t pid;                  /* of process 1, while it runs */
	int64_t started, finished;    /* CLOCK_REALTIME, nanoseconds */
	int32_t exit_code;            /* -1: unknown */
	const char *reason;           /* exited, signal, timeout, oom, failed */
	int oom_killed;
	uint32_t restarts;
	int upper;                    /* our descriptor of its upper layer; -1: none */
};

int state_reserve(const struct mc_monitor *told); /* 0, or -errno, as the next */
int state_write(const struct mc_monitor *told, const struct run *run, uint64_t lost);
void state_unreserve(const struct mc_monitor *told);

/* ---- events.c */

/* `key` is NULL, or has `number` */
void event_write(const struct mc_monitor *told, const char *action, const char *key, int64_t number);

/* ---- cgroup.c */

uint64_t cgroup_oom_kills(const struct mc_monitor *told);
void cgroup_thaw(const struct mc_monitor *told);
int cgroup_is_populated(const struct mc_monitor *told);
void cgroup_kill(const struct mc_monitor *told, int again); /* all that is in it; `again`: something is to be born in it */
void cgroup_remove(const struct mc_monitor *told);

/* ---- remove.c: the directories in a directory, and its files too where these can be removed */

void remove_entries(int directory, int files);
int open_directory(int at, const char *name);
uint64_t inode_of(int fd);
long next_entries(int directory, void *entries, size_t size); /* getdents64(2) */
int is_below(const struct dirent64 *entry); /* a directory, and not "." or ".." */

/* ---- streams.c: the ends of the program's streams that stay here */

struct streams {
	int in, out, err; /* out: also a pty, and err is then -1 */
	int peer;         /* of a pty: as long as one end is open here, no reader of the other sees an end */
	int upper;        /* of its overlay: nobody else reaches that (changes.py) */
	char input[65536];
	uint32_t begin, filled; /* of input: what was said and not yet taken */
	int input_ends;
};

int streams_open(struct mc_monitor *told, struct streams *s, int theirs[4]);
int streams_take(struct mc_monitor *told, struct streams *s, int socket);
int streams_move(int fd, const char *name, struct log *log); /* 2: some; 1: none yet; 0: its end */
void streams_feed(struct streams *s);
void streams_close(struct streams *s);
void close_fd(int *fd);

/* ---- control.c: who talks to us */

#define MC_CLIENTS 32

struct client {
	int fd;
	int holds;     /* input, which is not taken before there is room for it */
	int64_t heard; /* mc_now() */
};

struct control {
	int listener;
	struct client clients[MC_CLIENTS];
	int stopping;      /* no restart any more */
	int64_t kill_at;   /* mc_now(); 0: never */
};

void control_open(struct control *c);
int control_accept(struct control *c); /* the index of a new client; -1: there is none */
int control_drop(struct control *c);   /* whether there were clients */
void control_hear(struct control *c, struct client *client, struct mc_monitor *told, struct streams *s);
void control_stop(struct control *c, struct mc_monitor *told, int signal, int64_t timeout_ms);

/* ---- end.c */

void end_give_back(const struct mc_monitor *told); /* cgroup, ids, network, and what led to them */
void end_remove(const struct mc_monitor *told);    /* the state directory */

/* ---- failpoint.c */

void failpoint_begin(long *stack);
void failpoint(const char *name);

/* ---- start.c, and the whole */

struct monitor {
	struct mc_monitor *told;
	struct streams streams;
	struct control control;
	struct log log;
	struct run run;
	uint64_t oom_kills;  /* before this run */
	int64_t begun, expire_at, backoff;
	int expired, again;  /* again: it is to be started once more */
	int64_t write_at;    /* mc_now(): when to try again what could not be written; 0: nothing */
	int signals;
};

#define MC_OWN 8 /* descriptors that we take for a while: of a log, a state, an event, directories */

int has_room(int count); /* for so many descriptors more (RLIMIT_NOFILE) */
int start(struct monitor *m); /* 0, or -errno */
void bury(struct mc_spawn *spawn);

#define MS 1000000ll

#endif
