/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fuzz_fs.c: PLACE BEFORE [THREADS]: hands requests from standard input to a FUSE server of the directory "root" on a
 * tmpfs at PLACE, under the sanitizers, and writes its replies. The shell does BEFORE at PLACE first. Input: uint32
 * length, uint32 room for the reply, that many bytes, again and again; output: uint32 length, that many bytes. With
 * THREADS: they take all requests, which must be there already, again and again, and no reply is written. Exit status
 * 3: the server has left descriptors open.
 *
 * What is tested here is whether a client gets out of "root". If it does, it is confined to PLACE.
 *
 * Each piece of a request and of the room is an allocation of its own, so that any access beside it is found.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "confine.h"
#include "virtio/fs/fs.h"

#define PIECES 64
#define THREADS 16
#define MOST 20000 /* requests */
#define ROUNDS 4

struct request {
	uint32_t size, room;
	char *data;
};

static struct mc_fs *fs;
static struct request requests[MOST];
static unsigned nrequests, next;

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

/* Cuts `size` bytes into pieces: heads, an odd one, empty ones, and the rest; `data` is copied into them. */
static unsigned cut(const char *data, size_t size, struct iovec *pieces)
{
	static const size_t lengths[] = { 16, 0, 24, 7, 1, 100, 0, 4096 };
	unsigned n = 0;

	for (size_t at = 0; at < size; n++) {
		size_t length = n < sizeof(lengths) / sizeof(lengths[0]) ? lengths[n] : size - at;

		if (length > size - at)
			length = size - at;
		pieces[n] = (struct iovec){ malloc(length), length };
		if (!pieces[n].iov_base)
			err(2, "malloc");
		if (data)
			memcpy(pieces[n].iov_base, data + at, length);
		at += length;
	}
	return n;
}

/* Writes the first `size` bytes of the pieces, if this is wanted, and frees all of them. */
static void give_back(struct iovec *pieces, unsigned n, size_t size, FILE *to)
{
	for (unsigned i = 0; i < n; i++) {
		size_t length = pieces[i].iov_len < size ? pieces[i].iov_len : size;

		if (to && length && fwrite(pieces[i].iov_base, length, 1, to) != 1)
			err(2, "write");
		size -= length;
		free(pieces[i].iov_base);
	}
}

static void handle(const struct request *request, FILE *to)
{
	struct iovec in[PIECES], out[PIECES];
	unsigned nin = cut(request->data, request->size, in), nout = cut(NULL, request->room, out);
	uint32_t reply = (uint32_t)mc_fs_handle(fs, in, nin, out, nout);

	if (reply > request->room)
		errx(4, "a reply of %u bytes, with room for %u", reply, request->room);
	if (to && fwrite(&reply, sizeof(reply), 1, to) != 1)
		err(2, "write");
	give_back(in, nin, 0, NULL);
	give_back(out, nout, reply, to);
	if (to)
		fflush(to);
}

static int take(struct request *request)
{
	uint32_t head[2];

	if (fread(head, sizeof(head), 1, stdin) != 1)
		return 0;
	*request = (struct request){ head[0], head[1], malloc(head[0]) };
	if (!request->data || (head[0] && fread(request->data, head[0], 1, stdin) != 1))
		err(2, "read");
	return 1;
}

static void *work(void *argument)
{
	for (unsigned i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < ROUNDS * nrequests;)
		handle(&requests[i % nrequests], NULL);
	return argument;
}

static void handle_all(int nthreads)
{
	pthread_t threads[THREADS];

	while (nrequests < MOST && take(&requests[nrequests]))
		nrequests++;
	for (int i = 0; i < nthreads; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			errx(2, "pthread_create");
	for (int i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
	while (nrequests > 0)
		free(requests[--nrequests].data);
}

static void make_place(const char *place, const char *commands)
{
	confine_user();
	confine(place);
	if (mount("none", place, "tmpfs", MS_NODEV, "size=16m") < 0 || chdir(place) < 0)
		err(2, "%s", place);
	if (mkdir("root", 0755) < 0 || mkdir("beside", 0755) < 0)
		err(2, "mkdir");
	if (system(commands))
		errx(2, "%s", commands);
}

int main(int argc, char **argv)
{
	int nthreads = argc > 3 ? atoi(argv[3]) : 0, root, descriptors, before;
	struct request request;

	if (argc < 3 || nthreads < 0 || nthreads > THREADS)
		errx(2, "PLACE BEFORE [THREADS]");
	make_place(argv[1], argv[2]);
	root = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	descriptors = open("/proc/self/fd", O_PATH | O_CLOEXEC);
	if (root < 0 || descriptors < 0)
		err(2, "root");
	before = count_descriptors();
	fs = mc_fs_new(root, descriptors, 0);
	if (!fs || mc_fs_new(root, root, 0) || mc_fs_new(root, descriptors, 1) || mc_fs_new(descriptors, -1, 0))
		err(2, "mc_fs_new");
	if (nthreads)
		handle_all(nthreads);
	while (take(&request)) {
		handle(&request, stdout);
		free(request.data);
	}
	mc_fs_free(fs);
	return count_descriptors() == before ? 0 : 3;
}
