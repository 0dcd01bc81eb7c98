/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * probe.h: shared by the checks of the security probe (main.c).
 *
 * A check is a function with one argument that inspects or tries one thing inside the container, and returns a verdict
 * with one line of text. It runs in a process of its own, whose state it may change. Everything that it tries must be
 * harmless if it is permitted: the probe also runs on a bare host, as root.
 */
#ifndef MC_PROBE_H
#define MC_PROBE_H

#include <stddef.h>
#include <stdint.h>

#include "plan/syscalls.h"

#define TEXT_MAX 160 /* bytes of a verdict's text, with the 0 */

enum verdict { FAIL, PASS, SKIP, CRASHED };

struct check {
	const char *area, *id;
	enum verdict (*run)(const char *argument);
	const char *argument;
};

/* Tables, each ended by an entry without an area. */
extern const struct check process_checks[], path_checks[], device_checks[], privilege_checks[], call_checks[],
	socket_checks[], namespace_checks[], inherited_checks[];

/* Return a verdict, and store its text, which is formatted as by printf(3). */
#define PRINTF __attribute__((format(printf, 1, 2)))
PRINTF enum verdict pass(const char *format, ...);
PRINTF enum verdict fail(const char *format, ...);
PRINTF enum verdict skip(const char *format, ...);

/* The value of NAME=VALUE in the probe's arguments; NULL: it was not given. */
const char *parameter(const char *name);

/* Files of /proc. */
long read_file(const char *path, char *buffer, size_t size);	 /* bytes, ended by a 0; or -errno */
int status_field(const char *name, char *value, size_t size);	 /* of /proc/self/status; 0: there is none */
int status_mask(const char *name, uint64_t *mask);		 /* a hexadecimal field; 0: there is none */
enum verdict each_process(enum verdict (*check)(int pid));	 /* the first verdict other than PASS; else PASS */

/* A raw system call: a result, or -errno. */
#define CALL(number, ...) call(number, (const uint64_t[6]){__VA_ARGS__})
long call(long number, const uint64_t arguments[6]);
int is_refusal(long result);					 /* EPERM, EACCES, ENOSYS */
enum verdict refused(long result);				 /* PASS: the result is a refusal */

int in_first_userns(void);					 /* ids are not mapped; -1: unknown */
int is_host_namespace(const char *namespace);			 /* -1: unknown */
int has_capability(int number);					 /* in the effective set */
int fork_sleeper(void);						 /* the pid of a new child that sleeps, or -1 */

#endif
