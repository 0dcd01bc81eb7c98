/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/start.c: opens the descriptors that the plans need, and clones the container's first process, which walks
 * the child's plan. After a failure nothing of it runs.
 */
#define _GNU_SOURCE
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "compiled/compiled.h"
#include "compiled/memory.h"
#include "compiled/opened.h"
#include "helpers/received.h"

static int open_streams(struct runner *r, struct opened *o)
{
	const int32_t slots[] = { r->variant->input, r->variant->output, r->variant->error };

	for (int i = 0; i < 3; i++) {
		int fd = r->variant == &r->c->terminal ? i : opened_keep(o, i, ABOVE_STREAMS, 0);

		if (fd < 0)
			return fd;
		r->spawn->run.slots[slots[i]] = fd;
	}
	return 0;
}

static int open_namespaces(struct runner *r, struct opened *o)
{
	const struct mc_namespace *n = at(r->c, r->variant->namespaces.at);

	for (uint32_t i = 0; i < r->variant->namespaces.count; i++) {
		const char *path = at(r->c, n[i].path);
		long fd = o->count < KEPT ? mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_RDONLY | O_CLOEXEC, 0)
					  : -EMFILE;

		if (fd < 0)
			return complain_errno(at(r->c, n[i].what), path, fd, "a /proc/PID/ns file of a live process");
		r->spawn->run.slots[n[i].slot] = opened_keep(o, fd, ABOVE_PLAN, 1);
	}
	return 0;
}

/* The programs, the pipe of init's report, and the socket of the terminal; `own` are our ends of the last two. */
static int open_others(struct runner *r, struct opened *o, int own[2])
{
	const struct mc_variant *v = r->variant;
	int32_t *slots = r->spawn->run.slots;
	int pair[2];
	long e = 0;

	if (v->init >= 0)
		e = slots[v->init] = opened_sealed(o, "minicontainer-init", r->c, r->c->init);
	if (e >= 0 && v->filter >= 0)
		e = slots[v->filter] = opened_sealed(o, "filter", r->c, r->c->filter);
	if (e >= 0 && v->report >= 0 && (e = mc_sys2(SYS_pipe2, MC_PTR(pair), O_CLOEXEC)) >= 0) {
		own[0] = pair[0];
		e = slots[v->report] = opened_keep(o, pair[1], ABOVE_PLAN, 1);
	}
	if (e >= 0 && v->socket >= 0 &&
	    (e = mc_sys4(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, MC_PTR(pair))) >= 0) {
		own[1] = pair[0];
		e = slots[v->socket] = opened_keep(o, pair[1], ABOVE_PLAN, 1);
	}
	return e < 0 ? (int)e : 0;
}

/* The parent-side plan: its ids, and the file for the output of newuidmap(1). */
static int prepare_parent(struct runner *r)
{
	const struct mc_parent_part *p = &r->c->parent;
	const struct mc_variant *v = r->variant;
	const struct mc_parent like = { .run.plan = at(r->c, p->plan.at),
					.ninputs = p->ninputs,
					.nshared = v->shared.count / 2,
					.shared = at(r->c, v->shared.at),
					.ready = v->ready,
					.go = v->go,
					.answer = v->answer };
	const int32_t numbers[][2] = { { p->uid, (int32_t)r->uid },
				       { p->gid, (int32_t)r->gid },
				       { p->count, (int32_t)r->id_count } };
	void *memory;

	if (!p->plan.count)
		return 0;
	memory = take_memory(sizeof(like) + mc_run_room(like.run.plan) + 8);
	if (!memory)
		return -ENOMEM;
	r->parent = r->spawn->parent = mc_parent_lay(memory, &like);
	for (int i = 0; i < 3; i++)
		if (numbers[i][0] >= 0)
			r->parent->run.slots[numbers[i][0]] = numbers[i][1];
	if (p->helper_output < 0)
		return 0;
	r->helper_output = (int)mc_sys2(SYS_memfd_create, MC_PTR("helper-output"), MFD_CLOEXEC);
	r->parent->run.slots[p->helper_output] = r->helper_output;
	return r->helper_output < 0 ? r->helper_output : 0;
}

static void set_window(struct runner *r)
{
	struct {
		uint16_t rows, columns, pixels[2];
	} size = { 0 };

	if (!r->variant->window)
		return;
	for (int fd = 0; fd < 3; fd++)
		if (mc_sys3(SYS_ioctl, (uint64_t)fd, TIOCGWINSZ, MC_PTR(&size)) == 0)
			break;
	memcpy((char *)r->spawn->run.plan + r->variant->window, &size, sizeof(size));
}

static void kill_and_reap(struct mc_spawn *spawn)
{
	if (spawn->pidfd < 0)
		return;
	mc_sys4(SYS_pidfd_send_signal, MC_FD(spawn->pidfd), SIGKILL, 0, 0);
	mc_spawn_reap(spawn);
}

static int clone_child(struct runner *r, struct opened *o, int own[2])
{
	int e = mc_spawn(r->spawn), code;

	opened_close(o);
	note(r, "clone", "clone3", r->spawn->start_ns, e < 0 ? e : r->spawn->pid);
	code = explain_failure(r, e);
	if (code == 0 && own[0] >= 0) {
		e = mc_receive_report(own[0], &r->spawn->run.program);
		code = e < 0 ? explain_program(r, -e, &r->spawn->run.program) : 0;
	}
	if (code == 0 && own[1] >= 0) {
		r->terminal = mc_receive_fd(own[1]);
		code = r->terminal < 0 ? complain("terminal", NULL, "the container has sent none", NULL) : 0;
	}
	if (code == 0 && r->guest)
		code = machine_await(r);
	if (code)
		kill_and_reap(r->spawn);
	return code;
}

int start(struct runner *r)
{
	struct opened o = { .count = 0 };
	int own[2] = { -1, -1 }, code, e;

	set_window(r);
	r->spawn->flags = r->variant->flags;
	r->spawn->cgroup = r->place.cgroup;
	e = prepare_parent(r);
	if (e == 0)
		e = open_streams(r, &o);
	if (e == 0)
		e = open_others(r, &o, own);
	code = e < 0 ? complain_errno("descriptors", NULL, e, NULL) : open_namespaces(r, &o);
	if (code == 0 && r->guest)
		code = machine_open(r, &o);
	if (code == 0)
		code = clone_child(r, &o, own);
	opened_close(&o);
	for (int i = 0; i < 2; i++)
		if (own[i] >= 0)
			mc_sys1(SYS_close, MC_FD(own[i]));
	return code;
}
