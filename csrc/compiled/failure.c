/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/failure.c: the message for a container that could not be started, in the words of the library
 * (minicontainer/container/explain.py, program/failure.py), and the exit code.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "compiled/compiled.h"
#include "compiled/texts.h"
#include "plan/walk.h"

/* ---- a program that could not be executed */

static int cannot(const char *program, const char *reason, const char *hint)
{
	complain("program", program, reason, hint);
	return CANNOT_INVOKE;
}

static int not_found(const char *program, const char *reason, const char *hint)
{
	complain("program", program, reason, hint);
	return NOT_FOUND;
}

static int is_elf(const struct mc_program *file)
{
	return file->length >= sizeof(ElfW(Ehdr)) && file->head[0] == ELFMAG0 && file->head[1] == ELFMAG1 &&
	       file->head[2] == ELFMAG2 && file->head[3] == ELFMAG3;
}

static int is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The interpreter in the first line of a script; "": there is none. */
static void script_interpreter(const struct mc_program *file, char *name, size_t size)
{
	struct text t = { name, name + size - 1 };
	uint32_t i = 2;

	while (i < file->length && is_blank(file->head[i]))
		i++;
	for (; i < file->length && file->head[i] && file->head[i] != '\n' && !is_blank(file->head[i]); i++)
		put_bytes(&t, (const char *)file->head + i, 1);
	*t.at = 0;
}

static void elf_loader(const struct mc_program *file, char *name, size_t size)
{
	struct text t = { name, name + size - 1 };
	ElfW(Ehdr) header;
	ElfW(Phdr) part;

	memcpy(&header, file->head, sizeof(header));
	for (unsigned i = 0; i < header.e_phnum && i < 64; i++) {
		const uint64_t from = header.e_phoff + i * sizeof(part);

		if (header.e_phoff > file->length || from + sizeof(part) > file->length)
			break;
		memcpy(&part, file->head + from, sizeof(part));
		for (uint64_t j = part.p_offset; part.p_type == PT_INTERP && j < file->length && file->head[j]; j++)
			put_bytes(&t, (const char *)file->head + j, 1);
	}
	*t.at = 0;
}

static int ends_in_return(const char *name)
{
	return *name && name[strlen(name) - 1] == '\r';
}

static int missing_interpreter(const char *path, const struct mc_program *file)
{
	char name[256], reason[1200]; /* each byte may be shown by six */
	struct text t = { reason, reason + sizeof(reason) - 1 };
	const int is_script = file->length > 2 && file->head[0] == '#' && file->head[1] == '!';

	*name = 0;
	if (is_script)
		script_interpreter(file, name, sizeof(name));
	else if (is_elf(file))
		elf_loader(file, name, sizeof(name));
	put(&t, is_script ? "its interpreter " : *name ? "its loader " : "its interpreter");
	if (is_script || *name)
		put_quoted(&t, name);
	put(&t, " is missing in the container");
	*t.at = 0;
	if (is_script)
		return not_found(path, reason, ends_in_return(name) ? "the script has the line ends of Windows" : NULL);
	return not_found(path, reason, *name ? "a static program needs none" : NULL);
}

static int bad_format(const char *path, const struct mc_program *file)
{
	if (!file->length)
		return cannot(path, "is empty", NULL);
	if (is_elf(file))
		return cannot(path, "is built for another machine, or damaged", NULL);
	return cannot(path, "is no program", "a script needs #! in its first line");
}

static const char *path_at(const struct runner *r, int32_t index)
{
	const char *path = r->paths;

	if (index < 0 || (uint32_t)index >= r->npaths)
		return NULL;
	while (index-- > 0)
		path = after(path);
	return path;
}

static int has_slash(const char *text)
{
	while (*text && *text != '/')
		text++;
	return *text != 0;
}

int explain_program(struct runner *r, int error, const struct mc_program *file)
{
	const char *path = path_at(r, file->path);

	if (file->path == MC_NO_FILTER)
		return complain_errno("--security-opt", "seccomp", error, "the kernel refuses the filter");
	if (error == E2BIG)
		return cannot(r->program, "argument list too long", "the kernel's limit of one argument is 128 KiB");
	if (!path)
		return not_found(r->program, "not found in the container",
				 has_slash(r->program) ? NULL : "in no directory of its PATH");
	if (S_ISDIR(file->mode))
		return cannot(path, "is a directory", NULL);
	if (!S_ISREG(file->mode))
		return cannot(path, "is not a regular file", NULL);
	if (error == EBUSY)
		return cannot(path, "another process holds a lease on it (F_SETLEASE)",
			      "or of its interpreter; once more, when that is given up");
	if (error == EACCES && !(file->mode & 0111))
		return cannot(path, "is not executable", "chmod +x");
	if (error == EACCES)
		return cannot(path, "permission denied", "its mode, its interpreter's, or a noexec mount");
	if (error == ENOENT || error == ENOTDIR)
		return missing_interpreter(path, file);
	if (error == ENOEXEC)
		return bad_format(path, file);
	return cannot(path, error_text(error), NULL);
}

/* ---- a step that failed */

int explain_step(const struct runner *r, uint32_t texts, uint32_t index, long error)
{
	const char *label = step_text(r->c, texts, index, TEXT_LABEL), *hint = step_text(r->c, texts, index, TEXT_HINT);
	char what[1024], reason[64];
	struct text t = { what, what + sizeof(what) - 1 }, why = { reason, reason + sizeof(reason) - 1 };

	put_call(&t, *label ? label : step_text(r->c, texts, index, TEXT_CALL), r->place.id);
	*t.at = 0;
	if (*label)
		return complain_errno(what, NULL, error, hint);
	put_capital(&why, error_text(error));
	*why.at = 0;
	return complain(what, NULL, reason, hint);
}

/* The error output of newuidmap(1), as one line. */
static int explain_helper(const struct runner *r)
{
	char output[1024];
	long n = mc_sys4(SYS_pread64, MC_FD(r->helper_output), MC_PTR(output), sizeof(output) - 1, 0);

	while (n > 0 && output[n - 1] == '\n')
		n--;
	for (long i = 0; i < n; i++)
		if (output[i] == '\n')
			output[i] = ';';
	output[n > 0 ? n : 0] = 0;
	return complain("id maps", NULL, n > 0 ? output : "newuidmap ended without a word", NULL);
}

static int explain_parent(struct runner *r)
{
	const struct mc_run *run = &r->parent->run;
	const uint32_t index = (uint32_t)run->failed;

	if (step_at(run->plan, index)->op == MC_RUN)
		return explain_helper(r);
	return explain_step(r, r->c->parent.texts, index, run->records[index].result);
}

static int explain_end(struct runner *r)
{
	char what[1024];
	struct text t = { what, what + sizeof(what) - 1 };

	put_call(&t, step_text(r->c, r->variant->texts, (uint32_t)r->spawn->run.at, TEXT_CALL), r->place.id);
	*t.at = 0;
	return complain(what, NULL, "the child was killed in it", NULL);
}

int explain_failure(struct runner *r, int result)
{
	const struct mc_run *run = &r->spawn->run;
	const struct mc_step *step = run->failed >= 0 ? step_at(run->plan, (uint32_t)run->failed) : NULL;

	/* A parent-side plan that failed while the child was not waiting for it failed because the child had ended. */
	if (r->spawn->parent && r->parent->run.failed >= 0 && (!step || step->op == MC_WAIT))
		return explain_parent(r);
	if (result < 0)
		return complain_errno("clone3", NULL, result, "minicontainer doctor says what this host permits");
	if (!step)
		return run->at + 1 < (int64_t)run->plan->nsteps ? explain_end(r) : 0;
	if (step->op == MC_EXEC)
		return explain_program(r, (int)-run->records[run->failed].result, &run->program);
	return explain_step(r, r->variant->texts, (uint32_t)run->failed, run->records[run->failed].result);
}
