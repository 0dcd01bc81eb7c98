/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * dispatch.c: one request: its header, its arguments, its operation, its reply. Before an operation begins, its
 * arguments are here and there is room for its result.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "virtio/fs/server.h"

enum needs {
	NEEDS_NODE = 1,         /* header.nodeid is known                       */
	NEEDS_FILE = 2,         /* arguments.fh is an open file                 */
	NEEDS_DIRECTORY = 4,    /* arguments.fh is an open directory            */
	NO_REPLY = 8,
	BEFORE_INIT = 16        /* is allowed there                             */
};

#define ARGUMENTS(name) sizeof(((union mc_fs_arguments *)0)->name)
#define RESULT(name) sizeof(((union mc_fs_result *)0)->name)

static int ignore(struct mc_fs_call *call)
{
	(void)call;
	return 0;
}

/* Those which are not here get ENOSYS, by which Linux does without them: ACCESS (it decides itself), IOCTL, POLL, BMAP,
 * locks, DAX, and whatever is newer. INTERRUPT has no reply by itself: the request that it is about ends as it does. */
static const struct {
	mc_fs_operation *operation;
	size_t arguments, result; /* bytes */
	unsigned needs;
} OPERATIONS[] = {
	[FUSE_LOOKUP] = { mc_fs_op_lookup, 0, RESULT(entry), NEEDS_NODE },
	[FUSE_FORGET] = { mc_fs_op_forget, ARGUMENTS(forget), 0, NO_REPLY },
	[FUSE_BATCH_FORGET] = { mc_fs_op_batch_forget, ARGUMENTS(batch_forget), 0, NO_REPLY },
	[FUSE_GETATTR] = { mc_fs_op_getattr, 0, RESULT(attr), NEEDS_NODE },
	[FUSE_SETATTR] = { mc_fs_op_setattr, ARGUMENTS(setattr), RESULT(attr), NEEDS_NODE },
	[FUSE_READLINK] = { mc_fs_op_readlink, 0, 0, NEEDS_NODE },
	[FUSE_SYMLINK] = { mc_fs_op_symlink, 0, RESULT(entry), NEEDS_NODE },
	[FUSE_MKNOD] = { mc_fs_op_mknod, ARGUMENTS(mknod), RESULT(entry), NEEDS_NODE },
	[FUSE_MKDIR] = { mc_fs_op_mkdir, ARGUMENTS(mkdir), RESULT(entry), NEEDS_NODE },
	[FUSE_UNLINK] = { mc_fs_op_unlink, 0, 0, NEEDS_NODE },
	[FUSE_RMDIR] = { mc_fs_op_rmdir, 0, 0, NEEDS_NODE },
	[FUSE_RENAME] = { mc_fs_op_rename, ARGUMENTS(rename), 0, NEEDS_NODE },
	[FUSE_RENAME2] = { mc_fs_op_rename2, ARGUMENTS(rename2), 0, NEEDS_NODE },
	[FUSE_LINK] = { mc_fs_op_link, ARGUMENTS(link), RESULT(entry), NEEDS_NODE },
	[FUSE_OPEN] = { mc_fs_op_open, ARGUMENTS(open), RESULT(open), NEEDS_NODE },
	[FUSE_CREATE] = { mc_fs_op_create, ARGUMENTS(create), RESULT(created), NEEDS_NODE },
	[FUSE_TMPFILE] = { mc_fs_op_tmpfile, ARGUMENTS(create), RESULT(created), NEEDS_NODE },
	[FUSE_READ] = { mc_fs_op_read, ARGUMENTS(read), 0, NEEDS_FILE },
	[FUSE_WRITE] = { mc_fs_op_write, ARGUMENTS(write), RESULT(write), NEEDS_FILE },
	[FUSE_RELEASE] = { mc_fs_op_release, ARGUMENTS(release), 0, NEEDS_FILE },
	[FUSE_FLUSH] = { mc_fs_op_flush, ARGUMENTS(flush), 0, NEEDS_FILE },
	[FUSE_FSYNC] = { mc_fs_op_fsync, ARGUMENTS(fsync), 0, NEEDS_FILE },
	[FUSE_LSEEK] = { mc_fs_op_lseek, ARGUMENTS(lseek), RESULT(lseek), NEEDS_FILE },
	[FUSE_FALLOCATE] = { mc_fs_op_fallocate, ARGUMENTS(fallocate), 0, NEEDS_FILE },
	[FUSE_COPY_FILE_RANGE] = { mc_fs_op_copy_file_range, ARGUMENTS(copy_file_range), RESULT(write), NEEDS_FILE },
	[FUSE_OPENDIR] = { mc_fs_op_opendir, ARGUMENTS(open), RESULT(open), NEEDS_NODE },
	[FUSE_READDIR] = { mc_fs_op_readdir, ARGUMENTS(read), 0, NEEDS_NODE | NEEDS_DIRECTORY },
	[FUSE_READDIRPLUS] = { mc_fs_op_readdirplus, ARGUMENTS(read), 0, NEEDS_NODE | NEEDS_DIRECTORY },
	[FUSE_RELEASEDIR] = { mc_fs_op_release, ARGUMENTS(release), 0, NEEDS_DIRECTORY },
	[FUSE_FSYNCDIR] = { mc_fs_op_fsync, ARGUMENTS(fsync), 0, NEEDS_DIRECTORY },
	[FUSE_SETXATTR] = { mc_fs_op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, 0, NEEDS_NODE },
	[FUSE_GETXATTR] = { mc_fs_op_getxattr, ARGUMENTS(getxattr), 0, NEEDS_NODE },
	[FUSE_LISTXATTR] = { mc_fs_op_listxattr, ARGUMENTS(getxattr), 0, NEEDS_NODE },
	[FUSE_REMOVEXATTR] = { mc_fs_op_removexattr, 0, 0, NEEDS_NODE },
	[FUSE_STATFS] = { mc_fs_op_statfs, 0, RESULT(statfs), NEEDS_NODE },
	[FUSE_SYNCFS] = { mc_fs_op_syncfs, 0, 0, NEEDS_NODE },
	[FUSE_INIT] = { mc_fs_op_init, offsetof(struct fuse_init_in, flags2), RESULT(init), BEFORE_INIT },
	[FUSE_DESTROY] = { mc_fs_op_destroy, 0, 0, BEFORE_INIT },
	[FUSE_INTERRUPT] = { ignore, 0, 0, NO_REPLY | BEFORE_INIT },
};

#define NOPERATIONS (sizeof(OPERATIONS) / sizeof(OPERATIONS[0]))

/* ---- one request */

static int find_node_and_file(struct mc_fs_call *call, unsigned needs)
{
	if (needs & NEEDS_NODE && !(call->node = mc_fs_node_pin(call->fs, call->header.nodeid)))
		return -ESTALE;
	if (!(needs & (NEEDS_FILE | NEEDS_DIRECTORY)))
		return 0;
	call->file = mc_fs_file_pin(call->fs, call->arguments.fh, (needs & NEEDS_DIRECTORY) != 0);
	return call->file ? 0 : -EBADF;
}

/* Does what the request asks for; 0 or -errno. */
static int perform(struct mc_fs_call *call, uint32_t opcode)
{
	const unsigned needs = OPERATIONS[opcode].needs;
	int r = mc_fs_prepare_thread(call->fs);

	if (r == 0 && !(needs & BEFORE_INIT) && !__atomic_load_n(&call->fs->ready, __ATOMIC_ACQUIRE))
		r = -EIO;
	if (r == 0)
		r = mc_fs_take(&call->in, &call->arguments, OPERATIONS[opcode].arguments);
	if (r == 0 && call->out.left < OPERATIONS[opcode].result)
		r = -EINVAL;
	if (r == 0)
		r = find_node_and_file(call, needs);
	if (r == 0)
		r = OPERATIONS[opcode].operation(call);
	if (call->file)
		mc_fs_file_unpin(call->fs, call->file);
	if (call->node)
		mc_fs_node_unpin(call->fs, call->node);
	return r;
}

/* The reply's size; its header is the last to be written. */
static size_t reply(struct mc_fs_call *call, struct mc_fs_cursor whole, size_t result, int error)
{
	struct fuse_out_header header = { .unique = call->header.unique, .error = error };
	size_t size = sizeof(header);

	if (whole.left < size)
		return 0;
	if (error == 0)
		error = mc_fs_put(&call->out, &call->result, result);
	if (error == 0)
		size = whole.left - call->out.left;
	header.error = error;
	header.len = (uint32_t)size;
	return mc_fs_put(&whole, &header, sizeof(header)) < 0 ? 0 : size;
}

/* Reads the header, behind which nothing of the request lies beyond its length. */
static int take_header(struct mc_fs_call *call)
{
	const size_t given = call->in.left;
	int r = mc_fs_take(&call->in, &call->header, sizeof(call->header));

	if (r < 0)
		return r;
	if (call->header.len < sizeof(call->header) || call->header.len > given)
		return -EINVAL;
	call->in.left -= given - call->header.len;
	return 0;
}

size_t mc_fs_handle(struct mc_fs *fs, const struct iovec *in, unsigned nin, const struct iovec *out, unsigned nout)
{
	struct mc_fs_call call = { .fs = fs, .in = mc_fs_cursor_at(in, nin), .out = mc_fs_cursor_at(out, nout) };
	const struct mc_fs_cursor whole = call.out;
	int r = take_header(&call);
	uint32_t opcode = call.header.opcode;

	if (r == 0 && (opcode >= NOPERATIONS || !OPERATIONS[opcode].operation))
		r = -ENOSYS;
	mc_fs_skip(&call.out, sizeof(struct fuse_out_header));
	if (r < 0)
		return reply(&call, whole, 0, r);
	r = perform(&call, opcode);
	return OPERATIONS[opcode].needs & NO_REPLY ? 0 : reply(&call, whole, OPERATIONS[opcode].result, r);
}
