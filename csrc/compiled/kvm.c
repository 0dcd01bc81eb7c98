/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/kvm.c: what a machine needs of the host: KVM, on the processor of compile time, and the files of its kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/stat.h>
#include <sys/stat.h>

#include "compiled/compiled.h"

#define DEVICE "/dev/kvm"

#ifdef __x86_64__
#define ENTRIES 256          /* at most (KVM_MAX_CPUID_ENTRIES) */
#define FEATURES 1           /* CPUID leaves that say on which processor they were asked for */
#define TOPOLOGY(leaf) ((leaf) == 0xb || (leaf) == 0x1f)

static _Alignas(8) struct {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[ENTRIES];
} supported;

/* The checksum of what minicontainer/microvm/keeping.py calls the processor. */
static uint64_t processor(int kvm)
{
	supported.head.nent = ENTRIES;
	if (mc_sys3(SYS_ioctl, MC_FD(kvm), KVM_GET_SUPPORTED_CPUID, MC_PTR(&supported)) < 0)
		supported.head.nent = 0;
	for (uint32_t i = 0; i < supported.head.nent; i++) {
		struct kvm_cpuid_entry2 *e = supported.entries + i;

		if (e->function == FEATURES)
			e->ebx &= 0xffff;
		if (TOPOLOGY(e->function))
			e->eax = e->ebx = e->ecx = e->edx = 0;
	}
	return checksum(supported.entries, supported.head.nent * sizeof(*supported.entries));
}
#else
static uint64_t processor(int kvm)
{
	(void)kvm;
	return 0;
}
#endif

static int refused(long error)
{
	const char *hint = "minicontainer doctor says what this host permits";

	if (error == -ENOENT)
		return complain("KVM", DEVICE, "there is none", hint), -1;
	if (error == -ENODEV || error == -ENXIO)
		return complain("KVM", DEVICE, "there is no driver behind it", hint), -1;
	return complain_errno("KVM", DEVICE, error, hint), -1;
}

int kvm_open(const struct mc_compiled *c)
{
	long fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(DEVICE), O_RDWR | O_CLOEXEC, 0);

	if (fd < 0)
		return refused(fd);
	if (processor((int)fd) == c->machine.processor)
		return (int)fd;
	mc_sys1(SYS_close, (uint64_t)fd);
	stale("processor", NULL, "KVM supports other features of it than when it was compiled");
	return -1;
}

static uint64_t nanoseconds(struct statx_timestamp t)
{
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static int is_same(const struct mc_machine_file *file, const struct statx *s)
{
	return ((uint64_t)s->stx_dev_major << 32 | s->stx_dev_minor) == file->device && s->stx_ino == file->inode &&
	       s->stx_size == file->size && nanoseconds(s->stx_mtime) == file->modified &&
	       (!file->changed || nanoseconds(s->stx_ctime) == file->changed);
}

int kvm_open_file(const struct mc_compiled *c, const struct mc_machine_file *file)
{
	/* an access: the files of the cache that were used longest ago make room for others */
	const struct {
		int64_t seconds, nanoseconds;
	} times[2] = { { 0, UTIME_NOW }, { 0, UTIME_OMIT } };
	const char *what = at(c, file->what), *path = at(c, file->path);
	long fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0), e;
	struct statx s;

	if (fd < 0)
		return stale(what, path, error_text(fd)), -1;
	e = mc_sys5(SYS_statx, MC_FD(fd), MC_PTR(""), AT_EMPTY_PATH, STATX_BASIC_STATS, MC_PTR(&s));
	if (e < 0 || !is_same(file, &s)) {
		mc_sys1(SYS_close, (uint64_t)fd);
		return stale(what, path, "has changed since it was compiled"), -1;
	}
	if (!file->changed)
		mc_sys4(SYS_utimensat, MC_FD(fd), 0, MC_PTR(times), 0);
	return (int)fd;
}
