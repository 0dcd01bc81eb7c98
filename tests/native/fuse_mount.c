/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fuse_mount.c: DEVICE PLACE BEFORE [COMMAND...]: serves the directory "source" of PLACE by csrc/virtio/fs at "mount"
 * there, through the FUSE of this kernel, whose DEVICE is /dev/fuse; in a mount namespace of its own, confined to
 * PLACE. The shell does BEFORE at PLACE first. It runs COMMAND in "mount", or says "mounted" and waits for the end of
 * its input; then it unmounts. Exit status: that of COMMAND; 3 if the server has left descriptors open. When the server
 * asks for inodes to be forgotten, the shell does FORGET of the environment, if that is set.
 *
 * Requests and replies are cut into pieces as a guest's memory is: the heads, and pages. With CONFINED, the threads are
 * confined as those of the monitor's file server are (csrc/vmm/confine.c).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"
#include "virtio/fs/fs.h"
#ifdef CONFINED
#include "vmm/confine.h"
#endif

#define THREADS 4
#define PAGE 4096
#define BUFFER (MC_FS_MAX_WRITE + 2 * PAGE)
#define PARTS (BUFFER / PAGE + 2)

struct server {
	struct mc_fs *fs;
	int device;
	int scarce;             /* -1: nobody wants to know */
	volatile int has_ended;
};

static int count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int n = 0;

	if (!directory)
		err(2, "/proc/self/fd");
	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

/* /proc/self/fd of a mount that is nowhere; or as it is, in a user namespace that may not mount proc. */
static int open_descriptors(void)
{
	int context = (int)syscall(SYS_fsopen, "proc", 1 /* FSOPEN_CLOEXEC */), mount = -1, fd;

	if (context >= 0 && syscall(SYS_fsconfig, context, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) == 0)
		mount = (int)syscall(SYS_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
	fd = mount >= 0 ? openat(mount, "self/fd", O_PATH | O_CLOEXEC) : open("/proc/self/fd", O_PATH | O_CLOEXEC);
	if (fd < 0)
		err(2, "self/fd");
	if (mount >= 0)
		close(mount);
	if (context >= 0)
		close(context);
	return fd;
}

static unsigned cut(char *buffer, size_t size, size_t first, struct iovec *parts)
{
	unsigned n = 0;

	for (size_t at = 0, length = first; at < size; at += length, length = PAGE) {
		if (length > size - at)
			length = size - at;
		parts[n++] = (struct iovec){ buffer + at, length };
	}
	return n;
}

static void *serve(void *argument)
{
	const struct server *server = argument;
	char *in = malloc(BUFFER), *out = malloc(BUFFER);
	struct iovec in_parts[PARTS], out_parts[PARTS];

	if (!in || !out)
		err(2, "malloc");
#ifdef CONFINED
	if (mc_confine(MC_ROLE_FILES) < 0)
		errx(2, "mc_confine");
#endif
	for (;;) {
		ssize_t size = read(server->device, in, BUFFER);
		unsigned nin, nout;
		size_t reply;

		if (size < 0 && errno == ENODEV) /* unmounted */
			break;
		if (size < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
			continue;
		if (size < 0)
			err(2, "read from the device");
		nin = cut(in, (size_t)size, sizeof(struct fuse_in_header), in_parts);
		nout = cut(out, BUFFER, sizeof(struct fuse_out_header), out_parts);
		reply = mc_fs_handle(server->fs, in_parts, nin, out_parts, nout);
		if (reply && write(server->device, out, reply) < 0 && errno != ENOENT && errno != ENODEV)
			err(2, "write to the device");
	}
	free(in);
	free(out);
	return NULL;
}

static int run(char **command)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execvp(command[0], command);
		err(127, "%s", command[0]);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		err(2, "fork");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int use(char **command)
{
	char byte;
	int status;

	if (*command) {
		if (chdir("mount") < 0)
			err(2, "mount");
		status = run(command);
		if (chdir("..") < 0)
			err(2, "..");
		return status;
	}
	puts("mounted");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}

static void mount_device(int device)
{
	char options[128];

	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", device);
	if (mount("fuse", "mount", "fuse", 0, options) < 0)
		err(2, "mount");
}

static void *forget(void *argument)
{
	struct server *server = argument;
	eventfd_t times;

	while (eventfd_read(server->scarce, &times) == 0 && !server->has_ended)
		if (system(getenv("FORGET")))
			errx(2, "%s", getenv("FORGET"));
	return NULL;
}

static void serve_and_use(struct server *server, char **command, int *status)
{
	pthread_t threads[THREADS], forgetting;

	mount_device(server->device);
	if (server->scarce >= 0 && pthread_create(&forgetting, NULL, forget, server))
		errx(2, "pthread_create");
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, serve, server))
			errx(2, "pthread_create");
	*status = use(command);
	server->has_ended = 1;
	if (server->scarce >= 0 && (eventfd_write(server->scarce, 1) < 0 || pthread_join(forgetting, NULL)))
		errx(2, "pthread_join");
	if (umount2("mount", MNT_DETACH) < 0)
		err(2, "umount");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	int root, descriptors, before, status = 0;
	struct server server;

	if (argc < 4)
		errx(2, "DEVICE PLACE BEFORE [COMMAND...]");
	server.device = open(argv[1], O_RDWR | O_CLOEXEC);
	if (server.device < 0)
		err(2, "%s", argv[1]);
	confine(argv[2]);
	if (system(argv[3]))
		errx(2, "%s", argv[3]);
	root = open("source", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		err(2, "source");
	descriptors = open_descriptors();
	server.scarce = getenv("FORGET") ? eventfd(0, EFD_CLOEXEC) : -1;
	server.has_ended = 0;
	before = count_descriptors();
	server.fs = mc_fs_new(root, descriptors, 0);
	if (!server.fs)
		err(2, "mc_fs_new");
	if (server.scarce >= 0)
		mc_fs_tell_scarce(server.fs, server.scarce);
	serve_and_use(&server, argv + 4, &status);
	mc_fs_free(server.fs);
	if (count_descriptors() != before)
		errx(3, "%d descriptors, and %d before", count_descriptors(), before);
	return status;
}
