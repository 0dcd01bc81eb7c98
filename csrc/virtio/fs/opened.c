/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * opened.c: the files and directories that the client has open, by the id (fh) that it was given.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "virtio/fs/server.h"

#define FILE_OF(item) ((struct mc_fs_file *)((char *)(item) - offsetof(struct mc_fs_file, by_id)))

static void discard(struct mc_fs_file *file)
{
	close(file->fd);
	pthread_mutex_destroy(&file->lock);
	free(file->batch);
	free(file);
}

/* An open file like `opened`, whose descriptor it takes. */
int mc_fs_file_enter(struct mc_fs *fs, const struct mc_fs_file *opened, uint64_t *id)
{
	struct mc_fs_file *file = malloc(sizeof(*file));
	int r;

	if (!file) {
		close(opened->fd);
		return -ENOMEM;
	}
	*file = *opened;
	file->listed = 1;
	pthread_mutex_init(&file->lock, NULL);
	pthread_mutex_lock(&fs->lock);
	*id = file->by_id.key = ++fs->last_file;
	r = mc_fs_table_add(&fs->files, &file->by_id);
	pthread_mutex_unlock(&fs->lock);
	if (r < 0)
		discard(file);
	return r;
}

/* The open file, for the time of a request; NULL: there is none, or not of this kind. */
struct mc_fs_file *mc_fs_file_pin(struct mc_fs *fs, uint64_t id, int is_directory)
{
	struct mc_fs_item *item;

	pthread_mutex_lock(&fs->lock);
	item = mc_fs_table_find(&fs->files, id);
	if (item && FILE_OF(item)->is_directory != is_directory)
		item = NULL;
	if (item)
		FILE_OF(item)->pins++;
	pthread_mutex_unlock(&fs->lock);
	return item ? FILE_OF(item) : NULL;
}

void mc_fs_file_unpin(struct mc_fs *fs, struct mc_fs_file *file)
{
	int is_last;

	pthread_mutex_lock(&fs->lock);
	is_last = --file->pins == 0 && !file->listed;
	pthread_mutex_unlock(&fs->lock);
	if (is_last)
		discard(file);
}

/* Of a pinned file: it is closed when the last request that uses it has ended. */
void mc_fs_file_release(struct mc_fs *fs, struct mc_fs_file *file)
{
	pthread_mutex_lock(&fs->lock);
	if (file->listed) /* else a RELEASE in another thread was first */
		mc_fs_table_remove(&fs->files, &file->by_id);
	file->listed = 0;
	pthread_mutex_unlock(&fs->lock);
}

void mc_fs_files_reset(struct mc_fs *fs)
{
	struct mc_fs_item *item;
	size_t from = 0;

	pthread_mutex_lock(&fs->lock);
	while ((item = mc_fs_table_from(&fs->files, &from))) {
		mc_fs_table_remove(&fs->files, item);
		FILE_OF(item)->listed = 0;
		if (FILE_OF(item)->pins == 0)
			discard(FILE_OF(item));
	}
	pthread_mutex_unlock(&fs->lock);
}
