/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * server.h: what the files of the FUSE server share. Sections in their order of dependence: a file calls only those
 * above it.
 */
#ifndef MC_FS_SERVER_H
#define MC_FS_SERVER_H

#include <limits.h>
#include <linux/capability.h>
#include <linux/fuse.h>
#include <linux/stat.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "virtio/fs/fs.h"

struct statx;

/* How long the client may believe a name or attributes: the host may change both at any time. A name that does not
 * exist is not remembered at all. */
#define MC_FS_VALID_SECONDS 1

/* How many inodes the client may know, each with a descriptor, as parts of those that there are for it: by listings,
 * which can do without, and by lookups; the rest is for the files that it opens. What it makes itself is not counted.
 * From MC_FS_SCARCE on it is asked to forget some. */
#define MC_FS_LISTED(fs) ((fs)->descriptors / 2)
#define MC_FS_SCARCE(fs) ((fs)->descriptors / 4 * 3)
#define MC_FS_LOOKED_UP(fs) ((fs)->descriptors / 8 * 7)
#define MC_FS_MADE SIZE_MAX

/* ---- cursor.c: a position in the parts of a request or reply, which may change meanwhile: take a copy, check that */

struct mc_fs_cursor {
	const struct iovec *parts;
	unsigned nparts;
	size_t at;              /* in the first part */
	size_t left;            /* of all parts, or fewer if the request ends before */
};

struct mc_fs_cursor mc_fs_cursor_at(const struct iovec *parts, unsigned nparts);
size_t mc_fs_peek(const struct mc_fs_cursor *cursor, void *data, size_t size);
void mc_fs_skip(struct mc_fs_cursor *cursor, size_t size);
int mc_fs_take(struct mc_fs_cursor *cursor, void *data, size_t size);
int mc_fs_put(struct mc_fs_cursor *cursor, const void *data, size_t size);
int mc_fs_parts(const struct mc_fs_cursor *cursor, size_t size, struct iovec *parts, int room);

/* ---- table.c: items by a key; several may have the same */

struct mc_fs_item {
	struct mc_fs_item *next;
	uint64_t key;
};

struct mc_fs_table {
	struct mc_fs_item **buckets;
	unsigned bits;          /* there are 2^bits buckets, if any */
	size_t count;
};

int mc_fs_table_add(struct mc_fs_table *table, struct mc_fs_item *item);
void mc_fs_table_remove(struct mc_fs_table *table, struct mc_fs_item *item);
struct mc_fs_item *mc_fs_table_find(const struct mc_fs_table *table, uint64_t key);
struct mc_fs_item *mc_fs_table_next(const struct mc_fs_item *item);
struct mc_fs_item *mc_fs_table_from(const struct mc_fs_table *table, size_t *from);
void mc_fs_table_free(struct mc_fs_table *table);

/* ---- session.c */

struct mc_fs {
	int proc_fds;
	size_t descriptors;     /* for the client: of RLIMIT_NOFILE what nobody else needs         */
	struct mc_fs_node *root;
	uint32_t ready;         /* INIT has been answered                                           */
	uint32_t setxattr_ext;  /* requests have all of struct fuse_setxattr_in                      */
	pthread_mutex_t lock;   /* of all that follows                                              */
	int scarce;             /* an eventfd, by which the client is asked to forget inodes; or -1 */
	int asked;              /* it was, and still knows too many                                 */
	int in_vain;            /* and has forgotten none for as long as a lookup waits             */
	pthread_cond_t forgotten;
	struct mc_fs_table nodes, inodes; /* nodes by id, and by inode                               */
	struct mc_fs_table files;         /* by id */
	uint64_t last_node, last_file;    /* ids are not used again: the generation is always 0      */
};

/* ---- caller.c: the identity of the thread that answers */

struct mc_fs_identity {
	uint32_t uid, gid;
	int changed;
	int death_signal;
	struct __user_cap_data_struct capabilities[_LINUX_CAPABILITY_U32S_3];
};

int mc_fs_prepare_thread(const struct mc_fs *fs);
int mc_fs_act_as(struct mc_fs_identity *before, uint32_t uid, uint32_t gid);
void mc_fs_act_as_before(const struct mc_fs_identity *before);
int mc_fs_drop_fsetid(struct mc_fs_identity *before);
void mc_fs_restore_fsetid(const struct mc_fs_identity *before);

/* ---- cached.c: what tells that a file's content is the same as before */

struct mc_fs_version {
	struct statx_timestamp changed, modified;
	uint64_t size;
	int is_settled;         /* a later change would give other times; else nothing is the same as it */
};

struct mc_fs_version mc_fs_version_of(const struct statx *status);
int mc_fs_is_same_version(const struct mc_fs_version *version, const struct mc_fs_version *other);

/* ---- nodes.c: the inodes that the client knows, each with an O_PATH descriptor */

struct mc_fs_node {
	struct mc_fs_item by_id, by_inode;
	uint64_t inode, device, mount;
	mode_t type;            /* S_IFMT of its mode: an inode does not change it  */
	int fd;                 /* O_PATH */
	int listed;             /* is in the tables */
	unsigned pins;          /* requests in progress that use it */
	uint64_t lookups;       /* references of the client */
	struct mc_fs_version cached; /* what the client's cache has nothing older than */
};

int mc_fs_stat(int fd, struct statx *status);
int mc_fs_is_submount(const struct mc_fs_node *parent, const struct statx *status);
int mc_fs_node_of_root(struct mc_fs *fs, int fd);
int mc_fs_node_enter(struct mc_fs *fs, int fd, const struct statx *status, size_t most, uint64_t *id);
struct mc_fs_node *mc_fs_node_pin(struct mc_fs *fs, uint64_t id);
void mc_fs_node_unpin(struct mc_fs *fs, struct mc_fs_node *node);
int mc_fs_node_has_cached(struct mc_fs *fs, const struct mc_fs_node *node, const struct mc_fs_version *version);
void mc_fs_node_note_cached(struct mc_fs *fs, uint64_t id, const struct mc_fs_version *version);
void mc_fs_node_forget(struct mc_fs *fs, uint64_t id, uint64_t lookups);
void mc_fs_nodes_reset(struct mc_fs *fs);

#define MC_FS_FD_NAME 12
const char *mc_fs_fd_name(int fd, char name[MC_FS_FD_NAME]);
int mc_fs_reopen(const struct mc_fs *fs, int fd, int flags);
int mc_fs_reopen_node(const struct mc_fs *fs, const struct mc_fs_node *node, int flags);

/* ---- opened.c: files and directories that the client has open */

struct mc_fs_file {
	struct mc_fs_item by_id;
	int fd;
	int is_directory;
	int is_append_only;     /* opened with O_APPEND, since the file is append-only: chattr(1), +a */
	uint64_t node;          /* of a file that FUSE_OPEN opened: its id, */
	struct mc_fs_version version; /* and what it was then */
	int listed;
	unsigned pins;
	pthread_mutex_t lock;   /* of a directory's batch: entries that were read and not yet given */
	char *batch;
	size_t used, next;      /* bytes of the batch, and where its next entry is */
	uint64_t offset;        /* of that entry: d_off of the one before it */
};

int mc_fs_file_enter(struct mc_fs *fs, const struct mc_fs_file *opened, uint64_t *id);
struct mc_fs_file *mc_fs_file_pin(struct mc_fs *fs, uint64_t id, int is_directory);
void mc_fs_file_unpin(struct mc_fs *fs, struct mc_fs_file *file);
void mc_fs_file_release(struct mc_fs *fs, struct mc_fs_file *file);
void mc_fs_files_reset(struct mc_fs *fs);

/* ---- a request in progress */

union mc_fs_arguments {
	struct fuse_batch_forget_in batch_forget;
	struct fuse_copy_file_range_in copy_file_range;
	struct fuse_create_in create;
	struct fuse_fallocate_in fallocate;
	struct fuse_flush_in flush;
	struct fuse_forget_in forget;
	struct fuse_fsync_in fsync;
	struct fuse_getxattr_in getxattr;
	struct fuse_init_in init;
	struct fuse_link_in link;
	struct fuse_lseek_in lseek;
	struct fuse_mkdir_in mkdir;
	struct fuse_mknod_in mknod;
	struct fuse_open_in open;
	struct fuse_read_in read;
	struct fuse_release_in release;
	struct fuse_rename_in rename;
	struct fuse_rename2_in rename2;
	struct fuse_setattr_in setattr;
	struct fuse_setxattr_in setxattr;
	struct fuse_write_in write;
	uint64_t fh;            /* the first field of what concerns an open file */
};

union mc_fs_result {
	struct fuse_attr_out attr;
	struct fuse_entry_out entry;
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} created;
	struct fuse_init_out init;
	struct fuse_lseek_out lseek;
	struct fuse_open_out open;
	struct fuse_statfs_out statfs;
	struct fuse_write_out write;
};

struct mc_fs_call {
	struct mc_fs *fs;
	struct fuse_in_header header;
	struct mc_fs_cursor in;      /* behind header and arguments      */
	struct mc_fs_cursor out;     /* behind the header                */
	struct mc_fs_node *node;     /* of header.nodeid, if the operation needs one */
	struct mc_fs_file *file;     /* of arguments.fh, likewise         */
	union mc_fs_arguments arguments;
	union mc_fs_result result;
};

/* An operation: 0, or -errno. Its result, of fixed size, is in `result`; other data has been put into `out`. */
typedef int mc_fs_operation(struct mc_fs_call *call);

/* ---- attributes.c */

void mc_fs_attributes(const struct statx *status, struct fuse_attr *attributes);
mc_fs_operation mc_fs_op_getattr, mc_fs_op_setattr;

/* ---- entries.c: names, and what they stand for */

typedef char mc_fs_name[NAME_MAX + 1];

int mc_fs_take_name(struct mc_fs_cursor *in, mc_fs_name name);
int mc_fs_entry_of(const struct mc_fs_call *call, int fd, size_t most, struct fuse_entry_out *entry);
int mc_fs_entry(const struct mc_fs_call *call, const char *name, size_t most, struct fuse_entry_out *entry);
mc_fs_operation mc_fs_op_lookup, mc_fs_op_forget, mc_fs_op_batch_forget;

/* ---- the other operations */

mc_fs_operation mc_fs_op_mknod, mc_fs_op_mkdir, mc_fs_op_symlink, mc_fs_op_create, mc_fs_op_tmpfile; /* create.c */
mc_fs_operation mc_fs_op_unlink, mc_fs_op_rmdir, mc_fs_op_rename, mc_fs_op_rename2;   /* names.c */
mc_fs_operation mc_fs_op_link, mc_fs_op_readlink;
mc_fs_operation mc_fs_op_open, mc_fs_op_release, mc_fs_op_flush, mc_fs_op_fsync;      /* files.c */
mc_fs_operation mc_fs_op_lseek, mc_fs_op_fallocate, mc_fs_op_copy_file_range;
mc_fs_operation mc_fs_op_read, mc_fs_op_write;                                        /* data.c */
mc_fs_operation mc_fs_op_opendir, mc_fs_op_readdir, mc_fs_op_readdirplus;             /* directories.c */
mc_fs_operation mc_fs_op_setxattr, mc_fs_op_getxattr, mc_fs_op_listxattr, mc_fs_op_removexattr; /* xattrs.c */
mc_fs_operation mc_fs_op_init, mc_fs_op_destroy, mc_fs_op_statfs, mc_fs_op_syncfs;    /* session.c */

#endif
