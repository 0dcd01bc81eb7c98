/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/interrupts.c: two Ctrl-C within a second kill a program that ignores SIGINT; see
 * minicontainer/cli/interrupts.py, which says why.
 */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <fcntl.h>
#include <signal.h>

#include "compiled/compiled.h"

/* The terminal's interrupt character (termios(3)); 0 in raw mode. */
static int interrupt_key(int master)
{
	struct termios t;

	if (mc_sys3(SYS_ioctl, MC_FD(master), TCGETS, MC_PTR(&t)) < 0 || !(t.c_lflag & ISIG))
		return 0;
	return t.c_cc[VINTR];
}

/* The number after "NAME:\t" in the text of a /proc/PID/status, in this base. */
static uint64_t field(const char *text, const char *name, unsigned base)
{
	uint64_t number = 0;

	for (; *text; text++) {
		const char *t = text, *n = name;

		while (*n && *t == *n)
			t++, n++;
		if (*n || t[0] != ':' || t[1] != '\t')
			continue;
		for (t += 2;; t++) {
			unsigned digit = *t >= 'a' && *t <= 'f' ? (unsigned)(*t - 'a') + 10 : (unsigned)(*t - '0');

			if (digit >= base)
				return number;
			number = number * base + digit;
		}
	}
	return 0;
}

static int read_status(int pid, char *text, size_t size)
{
	char path[48];
	struct text t = { path, path + sizeof(path) };

	put(&t, "/proc/");
	put_number(&t, pid);
	put_bytes(&t, "/status", 8);
	return (int)mc_read_at(AT_FDCWD, path, text, size);
}

/* Whether the program itself is the foreground job, and neither catches nor blocks the signal. */
static int is_ignored(const struct runner *r)
{
	const uint64_t process_1 = (uint64_t)r->spawn->pid;
	char status[4096];
	int leader = 0, n;
	uint64_t handled, program;

	if (mc_sys3(SYS_ioctl, MC_FD(r->terminal), TIOCGPGRP, MC_PTR(&leader)) < 0)
		return 0;
	n = read_status(leader, status, sizeof(status) - 1);
	if (n <= 0)
		return 0;
	status[n] = 0;
	program = r->c->flags & MC_COMPILED_INIT ? field(status, "PPid", 10) : (uint64_t)leader;
	handled = field(status, "SigCgt", 16) | field(status, "SigBlk", 16);
	return program == process_1 && !(handled >> (SIGINT - 1) & 1);
}

int is_second_interrupt(struct runner *r, const char *typed, size_t size)
{
	static int64_t last[2]; /* the two latest times */
	int key = interrupt_key(r->terminal), count = 0;

	for (size_t i = 0; key && i < size; i++)
		count += (unsigned char)typed[i] == key;
	if (!count || !is_ignored(r))
		return 0;
	for (; count > 0; count--) {
		last[0] = last[1];
		last[1] = (int64_t)mc_now();
	}
	return last[0] && last[1] - last[0] <= SECOND;
}
