/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/host.c: what was true of the host and the caller at compile time, and must be true when the file runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "compiled/compiled.h"
#include "plan/constants.h"

#define CONTENT_MAX (1 << 20) /* bytes: as the library reads of a file */

static int kernel_is_same(const struct mc_compiled *c)
{
	struct utsname name;

	mc_sys1(SYS_uname, MC_PTR(&name));
	if (!same(name.machine, at(c, c->hardware)))
		return stale("machine", name.machine, "is another than when it was compiled"), 0;
	if (!same(name.release, at(c, c->release)))
		return stale("kernel", name.release, "is another release than when it was compiled"), 0;
	if (c->nodename && !same(name.nodename, at(c, c->nodename)))
		return stale("host name", name.nodename, "is another than when it was compiled"), 0;
	return 1;
}

static int is_first_user_namespace(void)
{
	char link[64], first[64] = "user:[";
	struct text t = { first + 6, first + sizeof(first) - 2 };
	long n = mc_sys4(SYS_readlinkat, MC_FD(AT_FDCWD), MC_PTR("/proc/self/ns/user"), MC_PTR(link), sizeof(link) - 1);

	put_number(&t, FIRST_USER_NS);
	put_bytes(&t, "]", 2);
	link[n > 0 ? n : 0] = 0;
	return n < 0 || same(link, first);
}

static uint64_t permitted_capabilities(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	mc_sys2(SYS_capget, MC_PTR(&header), MC_PTR(data));
	return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

static int caller_is_same(const struct mc_compiled *c)
{
	const int is_first = (c->flags & MC_COMPILED_FIRST_USERNS) != 0;

	if ((uint32_t)mc_sys0(SYS_geteuid) != c->uid || (uint32_t)mc_sys0(SYS_getegid) != c->gid)
		return stale("user", NULL, "it was compiled for another user or group"), 0;
	if (is_first_user_namespace() != is_first)
		return stale("user namespace", NULL, "it was compiled in another"), 0;
	if (c->flags & MC_COMPILED_CAPABILITIES && permitted_capabilities() != c->permitted)
		return stale("capabilities", NULL, "the caller has others than when it was compiled"), 0;
	return 1;
}

/* A state directory that the environment names must be the one that was named at compile time. */
static int state_is_same(const struct mc_compiled *c, char **environment)
{
	static const char variable[] = "MINICONTAINER_ROOT=";
	struct statx s;
	const char *state = at(c, c->state), *named;
	long r;

	for (; *environment; environment++) {
		named = *environment;
		for (const char *v = variable; *v && named && *v; v++)
			named = *named == *v ? named + 1 : NULL;
		if (named && *named && (!(c->flags & MC_COMPILED_ROOT_GIVEN) || !same(named, state)))
			return stale("MINICONTAINER_ROOT", named, "it was compiled with another state directory"), 0;
	}
	r = mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(state), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, MC_PTR(&s));
	if (r == -ENOENT)
		return 1; /* since the last boot no container has run: resources.c makes it */
	if (r < 0)
		return complain_errno("state directory", state, r, NULL), 0;
	if (!S_ISDIR(s.stx_mode) || s.stx_uid != c->uid || s.stx_mode & 022)
		return complain("state directory", state, "others can write there", "one of your own, mode 700"), 0;
	return 1;
}

/* ---- paths */

static uint64_t nanoseconds(struct statx_timestamp t)
{
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static int content_is_same(const struct mc_check *check, const char *path)
{
	static _Alignas(8) char content[CONTENT_MAX + 8];
	long n, size = 0, fd;

	fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return 0;
	while ((n = mc_sys3(SYS_read, fd, MC_PTR(content + size), (uint64_t)(CONTENT_MAX - size))) > 0)
		size += n;
	mc_sys1(SYS_close, fd);
	memset(content + size, 0, 8); /* the file before may have been longer */
	return n == 0 && (uint64_t)size == check->size && checksum(content, ((size_t)size + 7) & ~7ul) == check->hash;
}

static int is_true(const struct mc_check *check, const char *path, const struct statx *s, long r)
{
	const uint64_t device = (uint64_t)s->stx_dev_major << 32 | s->stx_dev_minor;

	switch ((enum mc_check_kind)check->kind) {
	case MC_CHECK_ROOT:
		return r == 0 && S_ISDIR(s->stx_mode) && device == check->device && s->stx_ino == check->inode &&
		       (!check->time || nanoseconds(s->stx_btime) == check->time);
	case MC_CHECK_DIRECTORY:
		return r == 0 && S_ISDIR(s->stx_mode);
	case MC_CHECK_FILE:
		return r == 0 && !S_ISDIR(s->stx_mode);
	case MC_CHECK_DEVICE:
		return r == 0 && (s->stx_mode & S_IFMT) == check->inode &&
		       ((uint64_t)s->stx_rdev_major << 32 | s->stx_rdev_minor) == check->device;
	case MC_CHECK_CONTENT:
		if (check->size == ~0ull)
			return r == -ENOENT;
		if (r < 0 || !S_ISREG(s->stx_mode))
			return 0;
		if (check->time && check->time == nanoseconds(s->stx_ctime) && device == check->device &&
		    s->stx_ino == check->inode && s->stx_size == check->size)
			return 1;
		return content_is_same(check, path);
	case MC_CHECK_PRESENT:
		return r == 0;
	case MC_CHECK_ABSENT:
		return r == -ENOENT;
	case MC_CHECKS:
		break;
	}
	return 0;
}

static const char *const reasons[] = {
	[MC_CHECK_ROOT] = "is another directory than when it was compiled",
	[MC_CHECK_DIRECTORY] = "was a directory when it was compiled",
	[MC_CHECK_FILE] = "was a file when it was compiled",
	[MC_CHECK_DEVICE] = "was another device when it was compiled",
	[MC_CHECK_CONTENT] = "has changed since it was compiled",
	[MC_CHECK_PRESENT] = "was there when it was compiled",
	[MC_CHECK_ABSENT] = "was not there when it was compiled",
};

static int path_is_same(const struct mc_compiled *c, const struct mc_check *check)
{
	const char *path = at(c, check->path);
	struct statx s = { 0 };
	long r;

	if (check->kind == MC_CHECK_PRESENT || check->kind == MC_CHECK_ABSENT)
		r = mc_sys3(SYS_faccessat, MC_FD(AT_FDCWD), MC_PTR(path), 0);
	else
		r = mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), 0, STATX_BASIC_STATS | STATX_BTIME, MC_PTR(&s));
	if (is_true(check, path, &s, r))
		return 1;
	if (r == -ENOENT && check->kind == MC_CHECK_ROOT)
		return stale(at(c, check->what), path, "no such directory"), 0;
	if (r < 0 && check->kind != MC_CHECK_ABSENT && check->size != ~0ull)
		return stale(at(c, check->what), path, error_text(r)), 0;
	return stale(at(c, check->what), path, reasons[check->kind]), 0;
}

int host_check(const struct mc_compiled *c, char **environment)
{
	const struct mc_check *check = at(c, c->checks.at);

	if (!kernel_is_same(c) || !caller_is_same(c) || !state_is_same(c, environment))
		return FAILED;
	for (uint32_t i = 0; i < c->checks.count; i++)
		if (!path_is_same(c, check + i))
			return FAILED;
	return 0;
}
