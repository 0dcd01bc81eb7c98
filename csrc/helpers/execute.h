/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * execute.h: the last steps before the program, for the static helpers that execute it: init.c and ready.c.
 */
#ifndef MC_EXECUTE_H
#define MC_EXECUTE_H

#include <stdint.h>

#define MC_REPORT 3 /* the descriptor of a pipe: a successful exec closes it, otherwise it carries the error */
#define MC_FILTER 5 /* the descriptor of a file with the seccomp filter */
#define MC_INTERNAL_ERROR 125

__attribute__((noreturn)) void mc_end(int status);

/* Writes the error, -errno, to the report, with `path` in place of an index (native.h), and ends. */
__attribute__((noreturn)) void mc_fail(int path, long error);

/* A decimal number, or -1. */
long mc_number(const char *text);

void mc_read_filter(long instructions);
int mc_has_filter(void);
long mc_load_filter(void);

/* Without no_new_privs, loading the filter needs a capability, which the helper gets as inheritable (compiler.py). The
 * program must not inherit it. `now`: this process drops it too. */
void mc_drop_inheritable(int now);

/* Sets `limits`, of the process `other` too if that is not 0, loads the filter and executes the program. `path` is the
 * first of `npaths` consecutive strings. */
__attribute__((noreturn)) void mc_execute(const char *limits, long other, const char *path, uint32_t npaths,
					  const char **argv, const char **envp);

#endif
