/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/group.c: the container's cgroup, in the cgroup of all containers
 * (minicontainer/container/cgroup/placement.py), with its limits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "compiled/state.h"
#include "monitor/cgroup.h"

#define TRIES 100
#define PATIENCE (10 * SECOND) /* for processes that are being killed */
#define CALLER "/minicontainer.caller"

static int is_cgroup2(int fd)
{
	struct statfs s;

	return mc_sys2(SYS_fstatfs, MC_FD(fd), MC_PTR(&s)) == 0 && s.f_type == CGROUP2_SUPER_MAGIC;
}

static int ends_with(const char *text, size_t length, const char *end)
{
	const size_t size = strlen(end);

	return length >= size && same(text + length - size, end);
}

/* The caller's own cgroup: the line "0::/PATH" of /proc/self/cgroup, below the mount point `base`. */
static int own_cgroup(const char *base, char *path, size_t size)
{
	char text[4096];
	struct text t = { path, path + size - 1 };
	long n = mc_read_at(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text) - 1);
	char *line = text, *end;

	text[n > 0 ? n : 0] = 0;
	while (*line && !(line[0] == '0' && line[1] == ':' && line[2] == ':')) {
		while (*line && *line++ != '\n')
			;
	}
	if (!*line)
		return 0;
	for (end = line += 3; *end && *end != '\n'; end++)
		;
	*end = 0;
	if (ends_with(line, (size_t)(end - line), CALLER))
		end[-(long)strlen(CALLER)] = 0;
	put(&t, base);
	put(&t, same(line, "/") ? "" : line);
	*t.at = 0;
	return 1;
}

static void enable(int directory, const char *controllers)
{
	if (*controllers)
		mc_write_at(directory, "cgroup.subtree_control", controllers, strlen(controllers));
}

/* Each controller by itself: one that is not available does not prevent the others. */
static void enable_each(int directory, const char *controllers)
{
	while (*controllers) {
		const char *end = controllers;

		while (*end && *end != ' ')
			end++;
		mc_write_at(directory, "cgroup.subtree_control", controllers, (size_t)(end - controllers));
		controllers = *end ? end + 1 : end;
	}
}

static long make_parent(const struct mc_compiled *c, const char *base, const char *name)
{
	int directory = open_directory(AT_FDCWD, base), parent = -1;
	long r = directory;

	if (directory >= 0)
		r = mc_sys3(SYS_mkdirat, MC_FD(directory), MC_PTR(name), 0755);
	if (r == 0 || r == -EEXIST)
		r = parent = open_directory(directory, name);
	if (parent >= 0) {
		enable(directory, at(c, c->needed));
		enable(parent, at(c, c->needed));
		enable_each(parent, at(c, c->accounted));
	}
	close_fd(&directory);
	return r;
}

/* Opens the cgroup of all containers of this state directory. */
static long open_parent(const struct mc_compiled *c, const char *mark, int make)
{
	const char *base = at(c, c->base);
	char own[4096], path[4200], name[32];
	struct text t = { name, name + sizeof(name) - 1 };
	int fd;

	if (c->flags & MC_COMPILED_CGROUP_OF_CALLER) {
		if (!own_cgroup(base, own, sizeof(own)))
			return -ENOENT;
		base = own;
	}
	put(&t, "minicontainer");
	if (c->flags & MC_COMPILED_ROOT_GIVEN)
		put(&t, "-"), put(&t, mark);
	*t.at = 0;
	join_path(path, sizeof(path), base, name);
	fd = make ? -ENOENT : open_directory(AT_FDCWD, path);
	if (fd == -ENOENT)
		fd = (int)make_parent(c, base, name);
	if (fd >= 0 && !is_cgroup2(fd)) {
		close_fd(&fd);
		return -ENODEV;
	}
	return fd;
}

/* ---- limits */

static int is_group_written(const uint8_t *written, uint32_t group)
{
	return !group || written[group];
}

static int check_effective(const struct runner *r, const struct mc_line *line)
{
	char name[64], text[4096];
	struct text t = { name, name + sizeof(name) - 1 };
	long n;

	if (!line->effective)
		return 0;
	put(&t, at(r->c, line->file));
	put(&t, ".effective");
	*t.at = 0;
	n = mc_read_at(r->place.cgroup, name, text, sizeof(text) - 1);
	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n > 0 ? n : 0] = 0;
	if (same(text, at(r->c, line->effective)))
		return 0;
	return complain(at(r->c, line->what), at(r->c, line->value), "a CPU of it is offline or not ours to use", NULL);
}

/* A file that is missing appears when its controller is enabled, which the first container with a limit does. */
static long write_line(const struct runner *r, const struct mc_line *line, const char *mark)
{
	const char *file = at(r->c, line->file), *data = at(r->c, line->data);
	long n = mc_write_at(r->place.cgroup, file, data, strlen(data));

	if (n == -ENOENT && line->group) {
		int parent = (int)open_parent(r->c, mark, 1);

		close_fd(&parent);
		n = mc_write_at(r->place.cgroup, file, data, strlen(data));
	}
	return n;
}

static int write_lines(struct runner *r, const char *mark)
{
	const struct mc_line *line = at(r->c, r->c->lines.at);
	uint8_t written[MC_SETTINGS_MAX + 1] = { 0 };

	for (uint32_t i = 0; i < r->c->lines.count; i++) {
		const char *what = at(r->c, line[i].what), *value = at(r->c, line[i].value);
		const uint64_t start = mc_now();
		long n = write_line(r, line + i, mark);

		if (n == -ENOENT || (n < 0 && !line[i].group))
			continue;
		if (n < 0)
			return complain_errno(what, value, n, at(r->c, line[i].file));
		written[line[i].group] = 1;
		note(r, "cgroup", at(r->c, line[i].file), start, 0);
		if (check_effective(r, line + i))
			return FAILED;
	}
	for (; line < (const struct mc_line *)at(r->c, r->c->lines.at) + r->c->lines.count; line++)
		if (!is_group_written(written, line->group))
			return stale(at(r->c, line->what), at(r->c, line->value), "cannot be enforced here any more");
	return 0;
}

/* ---- the cgroup */

static long load_devices(const struct mc_compiled *c)
{
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insn_cnt = c->devices.count / sizeof(struct bpf_insn),
		.insns = MC_PTR(at(c, c->devices.at)),
		.license = MC_PTR("GPL"),
		.prog_name = "minicontainer",
		.expected_attach_type = BPF_CGROUP_DEVICE,
	};

	return c->devices.count ? mc_sys3(SYS_bpf, BPF_PROG_LOAD, MC_PTR(&attr), sizeof(attr)) : -1;
}

static void choose_id(struct mc_place *place, const char *mark)
{
	struct text id = { place->id, place->id + MC_ID_DIGITS };
	struct text t = { place->name, place->name + sizeof(place->name) - 1 };
	uint64_t random = 0;

	mc_sys3(SYS_getrandom, MC_PTR(&random), sizeof(random), 0);
	put_hex(&id, random, MC_ID_DIGITS);
	*id.at = 0;
	put(&t, place->id);
	put(&t, "-");
	put(&t, mark);
	*t.at = 0;
}

static const char *const placings[] = {
	[MC_PLACE_LOCK] = "fcntl(F_OFD_SETLK)",
	[MC_PLACE_MKDIR] = "mkdir",
	[MC_PLACE_OPEN] = "open",
	[MC_PLACE_PIDS] = "write(\"pids.max\")",
	[MC_PLACE_DEVICES] = "bpf(BPF_PROG_ATTACH, {BPF_CGROUP_DEVICE})",
};

/* Takes the ownership lock and makes the cgroup. An id may be taken, and the directory of locks may be missing. */
static long place(struct runner *r, const char *mark)
{
	static char owners[4096];
	long e = -EAGAIN;

	join_path(owners, sizeof(owners), at(r->c, r->c->state), "owners");
	r->place.owners = owners;
	r->place.pids = r->c->pids ? at(r->c, r->c->pids) : NULL;
	for (int i = 0; i < TRIES && (e == -EAGAIN || e == -EACCES || e == -ENOENT); i++) {
		if (e == -ENOENT)
			make_directories(owners);
		choose_id(&r->place, mark);
		e = mc_place(&r->place);
	}
	for (int i = 0; i < MC_PLACINGS; i++)
		note_record(r, "cgroup", placings[i], &r->place.records[i]);
	return e;
}

static int refuse(const struct runner *r, long e)
{
	if (r->place.records[MC_PLACE_LOCK].result < 0)
		return complain_errno("state directory", at(r->c, r->c->state), e, "it has to be writable");
	return complain_errno("cgroup", at(r->c, r->c->base), e, "minicontainer doctor says what this host permits");
}

/* Where the program for devices cannot be loaded or attached, or there is no cgroup: an error if the container has
 * less than full access to a device; a warning if it runs with the rights of the host's root (container/start.py). */
static int check_devices(const struct runner *r, long e)
{
	static const char reason[] = "the container can use any of which it has a node";

	if (!r->c->devices.count || e >= 0)
		return 0;
	if (r->c->flags & MC_COMPILED_MUST_HAVE_CGROUP)
		return complain_errno("--device", NULL, e, "bpf(2)");
	if (r->c->flags & MC_COMPILED_HOST_DEVICES)
		complain("warning: devices", NULL, reason, error_text(e));
	return 0;
}

int group_make(struct runner *r, const char *mark)
{
	const struct mc_compiled *c = r->c;
	const int must = (c->flags & MC_COMPILED_MUST_HAVE_CGROUP) != 0;
	long e = c->base ? open_parent(c, mark, 0) : -ENOENT;

	choose_id(&r->place, mark);
	if (e < 0)
		return must || (c->base && !(c->flags & MC_COMPILED_CGROUP_OF_CALLER)) ? refuse(r, e)
										       : check_devices(r, e);
	r->place.parent = (int)e;
	r->place.devices = (int)load_devices(c);
	e = place(r, mark);
	if (e < 0)
		return refuse(r, e);
	e = r->place.devices >= 0 ? r->place.records[MC_PLACE_DEVICES].result : r->place.devices;
	close_fd(&r->place.devices);
	return check_devices(r, e) || write_lines(r, mark) ? FAILED : 0;
}

/* ---- the end */

/* Kills again, since a process that has survived one kill may have forked; the kernel signals an empty cgroup late. */
static void empty(struct runner *r)
{
	const int64_t until = (int64_t)mc_now() + PATIENCE;
	struct timespec nap = { 0, 500000 };

	while (cgroup_is_populated(r->place.cgroup) && (int64_t)mc_now() < until) {
		cgroup_kill(r->place.cgroup, 0);
		mc_sys4(SYS_ppoll, 0, 0, MC_PTR(&nap), 0);
		nap.tv_nsec = nap.tv_nsec < 50000000 ? 2 * nap.tv_nsec : nap.tv_nsec;
	}
}

int group_remove(struct runner *r)
{
	const uint64_t start = mc_now();
	long e;

	if (r->place.cgroup < 0)
		return 0;
	e = mc_sys3(SYS_unlinkat, MC_FD(r->place.parent), MC_PTR(r->place.name), AT_REMOVEDIR);
	if (e == -EBUSY) {
		empty(r);
		e = cgroup_remove(r->place.cgroup, r->place.parent, r->place.name);
	}
	if (e < 0 && e != -ENOENT)
		return complain_errno("cgroup", r->place.name, e, "processes are still in it");
	note(r, "remove", "rmdir", start, 0);
	close_fd(&r->place.cgroup);
	close_fd(&r->place.lock);
	return 0;
}
