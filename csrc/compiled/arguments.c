/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/arguments.c: the words of this program, and the child's plan with the program, its arguments and its
 * environment, which are known only now.
 *
 * Theory of operation. The plan is copied, and what the exec needs follows it: the paths to try, the arguments, the
 * environment, each a list of strings. The copy is then checked as any plan.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "compiled/compiled.h"
#include "compiled/memory.h"
#include "plan/walk.h"

#define NUMBER 24 /* bytes of one, as a string, at most */

void arguments_parse(struct runner *r, long argc, char **argv)
{
	if (argc > 1 && same(argv[1], "--explain")) {
		r->is_explained = 1;
		argv++, argc--;
	}
	if (argc > 1 && same(argv[1], "--"))
		argv++, argc--;
	r->arguments = argv + (argc > 0);
}

/* ---- lists of strings: counted first, then written */

struct list {
	char *at;         /* where the next string goes; NULL: only count */
	uint64_t size, count;
};

static void add_bytes(struct list *l, const char *data, size_t size)
{
	if (l->at) {
		memcpy(l->at, data, size);
		l->at += size;
	}
	l->size += size;
}

static void add_end(struct list *l)
{
	add_bytes(l, "", 1);
	l->count++;
}

static void add(struct list *l, const char *text)
{
	add_bytes(l, text, strlen(text) + 1);
	l->count++;
}

static void add_list(struct list *l, const char *text, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++, text = after(text))
		add(l, text);
}

/* The caller's variable NAME as "NAME=VALUE"; NULL: it has none. */
static const char *variable(const struct runner *r, const char *name)
{
	const size_t length = strlen(name);

	for (char **e = r->environment; *e; e++)
		if (begins(*e, name, length) && (*e)[length] == '=')
			return *e;
	return NULL;
}

static void add_environment(const struct runner *r, struct list *l)
{
	const char *entry = at(r->c, r->c->env.at);

	for (uint32_t i = 0; i < r->c->env.count; i++, entry = after(entry)) {
		const char *text = entry + 1;

		if (*entry == 'c')
			add(l, variable(r, text));
		else if (*entry == 'i')
			add_bytes(l, text, strlen(text)), add_bytes(l, r->place.id, MC_ID_DIGITS), add_end(l);
		else if (*entry == '=' || r->variant == &r->c->terminal)
			add(l, text);
	}
}

/* Every variable that is the caller's must be there. */
static int check_environment(const struct runner *r)
{
	static const char reason[] = "is not set here, so there is nothing to copy";
	const char *entry = at(r->c, r->c->env.at);

	for (uint32_t i = 0; i < r->c->env.count; i++, entry = after(entry))
		if (!*entry || (*entry == 'c' && !variable(r, entry + 1)))
			return complain("--env", *entry ? entry + 1 : "", reason, NULL);
	return 0;
}

/* The value of PATH in the container's environment. */
static const char *search_path(const struct runner *r)
{
	const char *entry = at(r->c, r->c->env.at);

	for (uint32_t i = 0; i < r->c->env.count; i++, entry = after(entry)) {
		const char *text = *entry == 'c' ? variable(r, entry + 1) : entry + 1;

		if (begins(text, "PATH=", 5))
			return text + 5;
	}
	return "";
}

/* The paths that execvp(3) would try (container/program/execute.py). */
static void add_paths(struct list *l, const char *program, const char *path)
{
	int is_path = !*program;

	for (const char *p = program; *p; p++)
		is_path |= *p == '/';
	if (is_path) {
		add(l, program);
		return;
	}
	for (;; path++) {
		const char *end = path;

		while (*end && *end != ':')
			end++;
		add_bytes(l, end > path ? path : ".", end > path ? (size_t)(end - path) : 1);
		if (end == path || end[-1] != '/')
			add_bytes(l, "/", 1);
		add(l, program);
		path = end;
		if (!*path)
			return;
	}
}

static void add_arguments(const struct runner *r, struct list *l)
{
	add_list(l, at(r->c, r->c->args.at), *r->arguments ? r->c->kept : r->c->args.count);
	for (char **a = r->arguments; *a; a++)
		add(l, *a);
}

/* Init takes its own arguments, the number of paths, and the paths; then the program's arguments follow. */
static void add_stage(const struct runner *r, struct list *l)
{
	char number[NUMBER];
	struct text t = { number, number + sizeof(number) - 1 };

	add_list(l, at(r->c, r->c->stage.at), r->c->stage.count);
	if (!r->c->stage.count)
		return;
	put_number(&t, r->npaths);
	*t.at = 0;
	add(l, number);
	add_list(l, r->paths, r->npaths);
}

/* ---- the plan */

void arguments_put_id(const struct runner *r, struct mc_span ids, void *to)
{
	const uint32_t *offsets = at(r->c, ids.at);

	for (uint32_t i = 0; i < ids.count; i++)
		memcpy((char *)to + offsets[i], r->place.id, MC_ID_DIGITS);
}

struct lists {
	struct list paths, argv, envp;
};

static const char *first_argument(const struct runner *r)
{
	if (r->c->kept || !*r->arguments)
		return at(r->c, r->c->args.at);
	return *r->arguments;
}

uint64_t arguments_measure(struct runner *r)
{
	struct lists lists = { 0 };

	if (check_environment(r))
		return 0;
	r->program = first_argument(r);
	add_paths(&lists.paths, r->program, search_path(r));
	r->npaths = (uint32_t)lists.paths.count;
	r->paths = "";
	add_environment(r, &lists.envp);
	add_arguments(r, &lists.argv);
	add_list(&lists.argv, at(r->c, r->c->stage.at), r->c->stage.count);
	if (r->c->stage.count) /* after init's own arguments, the paths once more, and how many */
		lists.argv.size += lists.paths.size + NUMBER;
	return lists.paths.size + lists.argv.size + lists.envp.size;
}

static void write_lists(struct runner *r, struct lists *lists, char *to)
{
	lists->paths.at = to;
	r->paths = to;
	add_paths(&lists->paths, r->program, search_path(r));
	lists->argv.at = lists->paths.at;
	add_stage(r, &lists->argv);
	add_arguments(r, &lists->argv);
	lists->envp.at = lists->argv.at;
	add_environment(r, &lists->envp);
}

/* Points the exec, the plan's last step, to the lists. */
static int set_exec(struct mc_plan *plan, const struct lists *lists, uint64_t from)
{
	struct mc_step *exec = (struct mc_step *)step_at(plan, plan->nsteps - 1);
	const uint64_t strings = lists->argv.count + lists->envp.count + 2;

	if (exec->op != MC_EXEC && exec->op != MC_EXEC_FD)
		return -EINVAL;
	if (exec->op == MC_EXEC) {
		exec->arg[0] = from;
		exec->nr = (uint32_t)lists->paths.count;
	}
	exec->arg[1] = from + lists->paths.size;
	exec->arg[2] = lists->argv.count;
	exec->arg[3] = exec->arg[1] + lists->argv.size;
	exec->arg[4] = lists->envp.count;
	exec->kinds = (uint16_t)((exec->kinds & 3) | MC_BYTES << 2 | MC_BYTES << 6);
	if (strings > plan->nstrings)
		plan->nstrings = (uint32_t)strings;
	return 0;
}

int arguments_put(struct runner *r, struct mc_plan *plan)
{
	const uint32_t from = plan->size;
	struct lists written = { 0 };

	write_lists(r, &written, (char *)plan + from);
	plan->size = (uint32_t)(written.envp.at - (char *)plan);
	if (set_exec(plan, &written, from) < 0 || mc_plan_check(plan, plan->size) < 0)
		return stale("file", r->name, "is damaged");
	return 0;
}

int arguments_too_long(const struct runner *r, long error)
{
	complain_errno("program", r->program, error, NULL);
	return error == -E2BIG ? CANNOT_INVOKE : FAILED;
}

/* The plan of a machine's monitor has arguments of its own. */
int arguments_plan(struct runner *r)
{
	const struct mc_variant *v = r->variant;
	const uint64_t length = r->guest ? 1 : arguments_measure(r);
	struct mc_plan *plan;
	void *room;

	if (!length)
		return FAILED;
	if (v->plan.count + length > UINT32_MAX)
		return arguments_too_long(r, -E2BIG);
	plan = take_memory(v->plan.count + length);
	if (!plan)
		return arguments_too_long(r, -ENOMEM);
	memcpy(plan, at(r->c, v->plan.at), v->plan.count);
	arguments_put_id(r, v->ids, plan);
	if (r->guest && mc_plan_check(plan, plan->size) < 0)
		return stale("file", r->name, "is damaged");
	if (!r->guest && arguments_put(r, plan))
		return FAILED;
	room = take_memory(sizeof(*r->spawn) + mc_run_room(plan) + 8);
	if (!room)
		return complain_errno("plan", NULL, -ENOMEM, NULL);
	r->spawn = mc_spawn_lay(room, plan);
	return 0;
}
