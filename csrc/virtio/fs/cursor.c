/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * cursor.c: a position in the parts of a request or of the room for its reply. The parts' memory is the client's, who
 * may change it at any time: what is taken is a copy, and the compiler must not read the original again for it.
 */
#include <errno.h>
#include <string.h>

#include "virtio/fs/server.h"

struct mc_fs_cursor mc_fs_cursor_at(const struct iovec *parts, unsigned nparts)
{
	struct mc_fs_cursor cursor = { .parts = parts, .nparts = nparts };

	for (unsigned i = 0; i < nparts; i++)
		if (__builtin_add_overflow(cursor.left, parts[i].iov_len, &cursor.left))
			return (struct mc_fs_cursor){ 0 }; /* more than there is memory */
	return cursor;
}

/* The next bytes that lie in one part, at most `size`; moves behind them. */
static struct iovec next_piece(struct mc_fs_cursor *cursor, size_t size)
{
	struct iovec piece = { 0 };

	while (cursor->nparts > 0 && cursor->at == cursor->parts->iov_len) {
		cursor->parts++;
		cursor->nparts--;
		cursor->at = 0;
	}
	if (cursor->nparts > 0) {
		piece.iov_base = (char *)cursor->parts->iov_base + cursor->at;
		piece.iov_len = cursor->parts->iov_len - cursor->at;
	}
	if (piece.iov_len > size)
		piece.iov_len = size;
	if (piece.iov_len > cursor->left)
		piece.iov_len = cursor->left;
	cursor->at += piece.iov_len;
	cursor->left -= piece.iov_len;
	return piece;
}

/* Copies up to `size` bytes without moving; returns how many. */
size_t mc_fs_peek(const struct mc_fs_cursor *cursor, void *data, size_t size)
{
	struct mc_fs_cursor copy = *cursor;
	size_t done = 0;

	while (done < size && copy.left > 0) {
		struct iovec piece = next_piece(&copy, size - done);

		memcpy((char *)data + done, piece.iov_base, piece.iov_len);
		done += piece.iov_len;
	}
	__asm__ volatile("" ::: "memory");
	return done;
}

void mc_fs_skip(struct mc_fs_cursor *cursor, size_t size)
{
	while (size > 0 && cursor->left > 0)
		size -= next_piece(cursor, size).iov_len;
}

/* 0, or -EINVAL: fewer than `size` bytes are left. */
int mc_fs_take(struct mc_fs_cursor *cursor, void *data, size_t size)
{
	if (mc_fs_peek(cursor, data, size) < size)
		return -EINVAL;
	mc_fs_skip(cursor, size);
	return 0;
}

/* 0, or -EINVAL: there is no room for `size` bytes. */
int mc_fs_put(struct mc_fs_cursor *cursor, const void *data, size_t size)
{
	size_t done = 0;

	if (cursor->left < size)
		return -EINVAL;
	while (done < size) {
		struct iovec piece = next_piece(cursor, size - done);

		memcpy(piece.iov_base, (const char *)data + done, piece.iov_len);
		done += piece.iov_len;
	}
	return 0;
}

/* Describes the next `size` bytes, or as many as `room` parts can; returns the number of parts. */
int mc_fs_parts(const struct mc_fs_cursor *cursor, size_t size, struct iovec *parts, int room)
{
	struct mc_fs_cursor copy = *cursor;
	int n = 0;

	while (n < room && size > 0 && copy.left > 0) {
		parts[n] = next_piece(&copy, size);
		size -= parts[n++].iov_len;
	}
	return n;
}
