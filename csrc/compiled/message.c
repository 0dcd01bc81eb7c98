/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/message.c: errors as one line, in the words of the command line (minicontainer/errors.py).
 */
#include <errno.h>

#include "compiled/compiled.h"

static const struct {
	int number;
	const char *name, *text;
} errors[] = {
	{ EPERM, "EPERM", "operation not permitted" },
	{ ENOENT, "ENOENT", "no such file or directory" },
	{ ESRCH, "ESRCH", "no such process" },
	{ EINTR, "EINTR", "interrupted system call" },
	{ EIO, "EIO", "input/output error" },
	{ ENXIO, "ENXIO", "no such device or address" },
	{ E2BIG, "E2BIG", "argument list too long" },
	{ ENOEXEC, "ENOEXEC", "exec format error" },
	{ EBADF, "EBADF", "bad file descriptor" },
	{ ECHILD, "ECHILD", "no child processes" },
	{ EAGAIN, "EAGAIN", "resource temporarily unavailable" },
	{ ENOMEM, "ENOMEM", "cannot allocate memory" },
	{ EACCES, "EACCES", "permission denied" },
	{ EBUSY, "EBUSY", "device or resource busy" },
	{ EEXIST, "EEXIST", "file exists" },
	{ EXDEV, "EXDEV", "invalid cross-device link" },
	{ ENODEV, "ENODEV", "no such device" },
	{ ENOTDIR, "ENOTDIR", "not a directory" },
	{ EISDIR, "EISDIR", "is a directory" },
	{ EINVAL, "EINVAL", "invalid argument" },
	{ ENFILE, "ENFILE", "too many open files in system" },
	{ EMFILE, "EMFILE", "too many open files" },
	{ ENOTTY, "ENOTTY", "inappropriate ioctl for device" },
	{ EFBIG, "EFBIG", "file too large" },
	{ ETXTBSY, "ETXTBSY", "text file busy" },
	{ ENOSPC, "ENOSPC", "no space left on device" },
	{ EROFS, "EROFS", "read-only file system" },
	{ EMLINK, "EMLINK", "too many links" },
	{ ERANGE, "ERANGE", "numerical result out of range" },
	{ ENAMETOOLONG, "ENAMETOOLONG", "file name too long" },
	{ ENOSYS, "ENOSYS", "function not implemented" },
	{ ENOTEMPTY, "ENOTEMPTY", "directory not empty" },
	{ ELOOP, "ELOOP", "too many levels of symbolic links" },
	{ EPROTO, "EPROTO", "protocol error" },
	{ EOVERFLOW, "EOVERFLOW", "value too large for defined data type" },
	{ EUSERS, "EUSERS", "too many users" },
	{ EOPNOTSUPP, "EOPNOTSUPP", "operation not supported" },
	{ EADDRNOTAVAIL, "EADDRNOTAVAIL", "cannot assign requested address" },
	{ ETIMEDOUT, "ETIMEDOUT", "connection timed out" },
	{ ESTALE, "ESTALE", "stale file handle" },
	{ EDQUOT, "EDQUOT", "disk quota exceeded" },
	{ ECANCELED, "ECANCELED", "operation canceled" },
};

#define ERRORS (sizeof(errors) / sizeof(*errors))

static size_t find(long error)
{
	size_t i = 0;

	while (i < ERRORS && errors[i].number != (error < 0 ? -error : error))
		i++;
	return i;
}

const char *error_text(long error)
{
	size_t i = find(error);

	return i < ERRORS ? errors[i].text : "unknown error";
}

const char *error_name(long error)
{
	size_t i = find(error);

	return i < ERRORS ? errors[i].name : NULL;
}

int begins(const char *text, const char *start, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] != start[i] || !text[i])
			return 0;
	return 1;
}

int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

void put_capital(struct text *t, const char *text)
{
	const char first = *text >= 'a' && *text <= 'z' ? (char)(*text - 'a' + 'A') : *text;

	put_bytes(t, &first, *text ? 1 : 0);
	put(t, *text ? text + 1 : "");
}

long write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		long n = mc_sys3(SYS_write, MC_FD(fd), MC_PTR(data), size);

		if (n < 0 && n != -EINTR)
			return n;
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int complain(const char *what, const char *value, const char *reason, const char *hint)
{
	char line[4096];
	struct text t = { line, line + sizeof(line) };

	put(&t, "minicontainer: ");
	put(&t, what);
	if (value) {
		put(&t, " ");
		put_quoted(&t, value);
	}
	put(&t, ": ");
	put(&t, reason);
	if (hint && *hint) {
		put(&t, " (");
		put(&t, hint);
		put(&t, ")");
	}
	put(&t, "\n");
	write_all(2, line, (size_t)(t.at - line));
	return FAILED;
}

int complain_errno(const char *what, const char *value, long error, const char *hint)
{
	return complain(what, value, error_text(error), hint);
}

int stale(const char *what, const char *value, const char *reason)
{
	return complain(what, value, reason, "compile it again: minicontainer compile");
}
