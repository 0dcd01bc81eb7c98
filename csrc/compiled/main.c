/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/main.c: the program of a compiled container (`minicontainer compile`): starts the container that the end of
 * its own file describes, and ends as the container does, as `minicontainer run` would.
 *
 * Theory of operation. The file is opened by descriptor, and trusted if nobody else can have written to it; then what
 * was true at compile time is checked again (host.c). The plan gets the arguments and variables of this run
 * (arguments.c), resources are taken by the locks that all of minicontainer takes (resources.c), and mc_spawn walks the
 * plan (start.c). One loop waits for the end (watch.c). Of a machine (--isolation kvm) that plan starts the monitor,
 * and guest.c, machine.c and ended.c are about what it runs. There is no libc and no heap: a start costs few pages.
 */
#define _GNU_SOURCE
#include <asm/ioctls.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/prctl.h>

#include "compiled/compiled.h"
#include "helpers/start.h"
#include "plan/dumpable.h"

MC_START(compiled_main);

static long dumpable;

/* A process that is not dumpable cannot open its own streams by /proc (terminal.c), if it is not root's. */
void mc_dumpable_save(void)
{
	dumpable = mc_sys1(SYS_prctl, PR_GET_DUMPABLE);
}

void mc_dumpable_restore(void)
{
	if (mc_sys1(SYS_prctl, PR_GET_DUMPABLE) != dumpable)
		mc_sys2(SYS_prctl, PR_SET_DUMPABLE, (uint64_t)dumpable);
}

__attribute__((noreturn)) static void finish(int status)
{
	for (;;)
		mc_sys1(SYS_exit_group, (uint64_t)status);
}

/* Whether this program has more rights than its caller: a set-uid bit or a file capability (getauxval(3)). */
static int is_privileged(const uint64_t *vector)
{
	return vector[AT_SECURE] != 0;
}

#define VECTOR 64 /* types of entries that are of interest */

/* The values that the kernel stores behind the environment, by type; AT_SECURE, which is always there, is 1 without. */
static void read_vector(char **environment, uint64_t vector[VECTOR])
{
	const ElfW(auxv_t) *entry;

	vector[AT_SECURE] = 1;
	vector[AT_SYSINFO_EHDR] = 0;
	while (*environment)
		environment++;
	for (entry = (const void *)(environment + 1); entry->a_type != AT_NULL; entry++)
		if (entry->a_type < VECTOR)
			vector[entry->a_type] = entry->a_un.a_val;
}

/* Opens /dev/null for a closed stdin, stdout or stderr, so that no other descriptor gets its number. */
static void open_streams(void)
{
	for (uint64_t fd = 0; fd < 3; fd++)
		if (mc_sys3(SYS_fcntl, fd, F_GETFD, 0) < 0)
			mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/dev/null"), O_RDWR, 0);
}

static int is_terminal(int fd)
{
	char attributes[64]; /* struct termios of the kernel: 36 bytes */

	return mc_sys3(SYS_ioctl, (uint64_t)fd, TCGETS, MC_PTR(attributes)) == 0;
}

/* The plan with a terminal where stdin and stdout are one; else the other. */
static int choose_variant(struct runner *r)
{
	const int has_both = r->c->terminal.plan.count && is_terminal(0) && is_terminal(1);

	if (!has_both && !r->c->plain.plan.count)
		return complain("--tty", NULL, "stdin and stdout are not both a terminal",
				"compile it without -t to pass the streams");
	r->variant = has_both ? &r->c->terminal : &r->c->plain;
	if (r->c->machine.data.count)
		r->guest = has_both ? &r->c->machine.terminal : &r->c->machine.plain;
	return 0;
}

static int explain_result(const struct runner *r)
{
	if (r->is_expired) {
		complain("--timeout", at(r->c, r->c->timeout_text), "the container was killed", NULL);
		return TIMED_OUT;
	}
	if (r->is_oom)
		complain("--memory", r->c->memory_text ? at(r->c, r->c->memory_text) : NULL,
			 r->guest ? "the guest ran out of memory, and its kernel killed the program"
				  : "the container ran out of memory and was killed",
			 NULL);
	else if (r->guest)
		ended_explain(r);
	return r->status >= 0 ? r->status : 128 - r->status;
}

static int wait_for_end(struct runner *r)
{
	int failed;

	if (r->terminal >= 0)
		terminal_begin(r);
	watch(r);
	failed = resources_finish(r);
	if (r->terminal >= 0)
		watch_output(r);
	terminal_end();
	signals_close();
	return failed ? failed : explain_result(r);
}

static int run(struct runner *r)
{
	int code, has_started, shown;

	if (signals_open(r))
		return FAILED;
	r->c = file_open(r->name);
	if (!r->c || choose_variant(r) || host_check(r->c, r->environment))
		return FAILED;
	code = resources_take(r);
	if (code == 0)
		code = arguments_plan(r);
	if (code == 0 && r->guest)
		code = guest_prepare(r);
	if (code == 0)
		code = start(r);
	has_started = code == 0;
	if (has_started) {
		code = wait_for_end(r);
	} else {
		resources_release(r);
		signals_close();
	}
	shown = r->is_explained ? timeline_print(r) : 0;
	return has_started && shown ? shown : code;
}

__attribute__((noreturn, used)) static void compiled_main(long *stack)
{
	static struct runner self = { .terminal = -1, .helper_output = -1, .signals = -1, .ids = { -1, -1 },
				      .ids_byte = -1, .machine_fd = -1, .report = -1 };
	char **argv = (char **)(stack + 1);
	uint64_t vector[VECTOR];

	open_streams();
	self.place.lock = self.place.cgroup = self.place.parent = self.place.devices = -1;
	self.environment = argv + stack[0] + 1;
	self.name = stack[0] > 0 ? argv[0] : "";
	read_vector(self.environment, vector);
	clock_find((const void *)vector[AT_SYSINFO_EHDR]);
	if (is_privileged(vector))
		finish(complain("file", self.name, "has set-uid or set-gid bits or capabilities, which it never uses",
				"chmod ug-s; setcap -r"));
	arguments_parse(&self, stack[0], argv);
	finish(run(&self));
}
