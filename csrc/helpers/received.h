/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * received.h: what a child sends to the process that started it, before its program runs; see received.c.
 */
#ifndef MC_RECEIVED_H
#define MC_RECEIVED_H

#include "plan/native.h"

int mc_receive_fd(int socket); /* -1: none */

/* Reads the report of init.c at the end of the pipe: 0, the program runs; or -errno, and `program` is filled in. */
int mc_receive_report(int fd, struct mc_program *program);

/* The same of a program that reports its start too. -ECANCELED: no report. */
int mc_receive_answer(int fd, struct mc_program *program);

/* -errno of the step that failed; -ECANCELED: the child ended in a step; 0: the plan was walked to its end. */
int mc_walk_error(const struct mc_run *run);

#endif
