/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/root.c: makes a virtio-fs the root, in place of the initramfs (as switch_root(8)). With an image the root is a
 * tmpfs, which has both: the plan takes the image for its root, and what it binds from the virtio-fs.
 *
 * Theory of operation. A plan's root is then as on any host: a mount on the initramfs, which pivot_root(2) can replace.
 * Init's own /proc, /sys and /dev are detached, so that no mount namespace of the plan has them. The files of the
 * initramfs are memory, so the large ones are removed before the move, while their names cannot mean files of the
 * virtio-fs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"
#include "monitor/text.h"

#define ROOT "/root"
#define DEVICE_MS 10000

/* Removes the modules, and the programs: those that are executed or open stay so. */
static void remove_files(void)
{
	static const char *const files[] = { "/init", "/init-helper" };
	int modules = open_directory(AT_FDCWD, "/modules");

	if (modules >= 0) {
		remove_entries(modules, 1);
		close_fd(&modules);
		mc_sys3(SYS_unlinkat, MC_FD(AT_FDCWD), MC_PTR("/modules"), AT_REMOVEDIR);
	}
	for (int i = 0; i < 2; i++)
		mc_sys3(SYS_unlinkat, MC_FD(AT_FDCWD), MC_PTR(files[i]), 0);
}

static long detach_own(struct guest *g)
{
	static const char *const own[] = { "/dev", "/sys", "/proc" };

	for (int i = 0; i < 3; i++) {
		long r = mc_sys2(SYS_umount2, MC_PTR(own[i]), MNT_DETACH);

		if (r < 0)
			return report(g, "umount2", own[i], r);
	}
	return 0;
}

/* Mounts a file system, whose device the kernel may not have found yet: mount(2) fails with `absent` until then. */
static long mount_at(struct guest *g, const char *source, const char *path, const char *type, uint64_t flags,
		     long absent)
{
	char arguments[256];
	struct text t = { arguments, arguments + sizeof(arguments) - 1 };
	struct patience patience;
	long r = mc_sys3(SYS_mkdirat, MC_FD(AT_FDCWD), MC_PTR(path), 0700);

	if (r < 0 && r != -EEXIST)
		return report(g, "mkdir", path, r);
	put(&t, type);
	put(&t, ", ");
	put(&t, source);
	*t.at = 0;
	patience_begin(&patience, (int64_t)mc_now() + DEVICE_MS * MS);
	do
		r = mc_sys5(SYS_mount, MC_PTR(source), MC_PTR(path), MC_PTR(type), flags, 0);
	while (r == absent && patience_sleep(&patience));
	return r < 0 ? report(g, "mount", arguments, r) : 0;
}

/* EINVAL: no device with this tag (virtio_fs_get_tree() of Linux's fs/fuse/virtio_fs.c). */
static long mount_tag(struct guest *g, const char *tag, const char *path)
{
	return mount_at(g, tag, path, "virtiofs", 0, -EINVAL);
}

static long mount_both(struct guest *g, const char *tag, const char *image_type)
{
	long r = mount_at(g, "tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, 0);

	if (r == 0)
		r = mount_at(g, MC_GUEST_IMAGE_DEVICE, ROOT MC_GUEST_IMAGE, image_type, MS_RDONLY | MS_NODEV, -ENOENT);
	return r < 0 ? r : mount_tag(g, tag, ROOT MC_GUEST_SHARE);
}

static long enter(struct guest *g)
{
	long r = mc_sys1(SYS_chdir, MC_PTR(ROOT));

	if (r < 0)
		return report(g, "chdir", ROOT, r);
	r = mc_sys5(SYS_mount, MC_PTR("."), MC_PTR("/"), 0, MS_MOVE, 0);
	if (r < 0)
		return report(g, "mount", "MS_MOVE, /", r);
	r = mc_sys1(SYS_chroot, MC_PTR("."));
	if (r < 0)
		return report(g, "chroot", ".", r);
	r = mc_sys1(SYS_chdir, MC_PTR("/"));
	return r < 0 ? report(g, "chdir", "/", r) : 0;
}

long root_switch(struct guest *g, const struct mc_guest_start *s)
{
	const char *tag = (const char *)s + s->tag;
	long r = s->image ? mount_both(g, tag, (const char *)s + s->image) : mount_tag(g, tag, ROOT);

	if (r < 0)
		return r;
	remove_files();
	r = detach_own(g);
	return r < 0 ? r : enter(g);
}
