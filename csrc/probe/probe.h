/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * probe.h: what the checks of the security probe (main.c) share.
 *
 * A check is a function of one word that looks or tries from inside, and gives a verdict with one line of what it saw.
 * It runs in a process of its own, so it may change whatever is that process's. Whatever it tries must do no harm where
 * it is permitted: the probe is also run on a bare host, as root.
 */
#ifndef MC_PROBE_H
#define MC_PROBE_H

#include <stddef.h>
#include <stdint.h>

#include "plan/syscalls.h"

#define SAID 160 /* bytes of what was seen, with the 0 */

enum verdict { FAIL, PASS, SKIP, CRASHED };

struct check {
	const char *area, *id;
	enum verdict (*run)(const char *word);
	const char *word;
};

/* Tables, each ended by an entry without an area. */
extern const struct check process_checks[], path_checks[], device_checks[], privilege_checks[], call_checks[],
	socket_checks[], namespace_checks[], inherited_checks[];

/* The verdicts, with what was seen as printf(3) takes it. */
#define SAYS __attribute__((format(printf, 1, 2)))
SAYS enum verdict pass(const char *format, ...);
SAYS enum verdict fail(const char *format, ...);
SAYS enum verdict skip(const char *format, ...);

/* What the caller of the probe told of the outside as NAME=VALUE; NULL where it did not. */
const char *told(const char *name);

/* Files of /proc. */
long slurp(const char *path, char *buffer, size_t size);	 /* bytes, ended by a 0; or -errno */
int status_field(const char *name, char *value, size_t size);	 /* of /proc/self/status; 0 where it is not there */
int status_mask(const char *name, uint64_t *mask);		 /* one that is hexadecimal; 0 where it is not there */
enum verdict each_process(enum verdict (*look)(int pid));	 /* the first verdict that is not PASS; else PASS */

/* A call as the kernel returns it: a result, or -errno. */
#define CALL(number, ...) call(number, (const uint64_t[6]){__VA_ARGS__})
long call(long number, const uint64_t arguments[6]);
int is_refusal(long result);					 /* EPERM, EACCES, ENOSYS */
enum verdict refused(long result);				 /* PASS where it is one */

int in_first_userns(void);					 /* ids are the kernel's own; -1 where that is not told */
int is_the_hosts(const char *namespace);			 /* -1 where that is not told */
int has_capability(int number);					 /* in the effective set */
int own_child(void);						 /* the pid of a new one that sleeps, or -1 */

#endif
