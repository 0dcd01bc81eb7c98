/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/report.c: a failure of init, to whoever may read it: the console, the kernel's log, and the host as the frame
 * FAILED.
 */
#define _GNU_SOURCE
#include <string.h>

#include "guest/guest.h"
#include "monitor/text.h"

#define ERROR "<3>" /* KERN_ERR, kmsg(4) */

/* A console or log that cannot be written leaves nobody to tell. */
static void log_failure(const struct guest *g)
{
	char line[sizeof(g->text) + 64];
	struct text t = { line, line + sizeof(line) };

	put(&t, ERROR "minicontainer: ");
	put_bytes(&t, g->text, g->failed.length);
	put(&t, ": errno ");
	put_number(&t, g->failed.error);
	put(&t, "\n");
	mc_sys3(SYS_write, MC_FD(g->kmsg), MC_PTR(line), (uint64_t)(t.at - line));
	mc_sys3(SYS_write, 2, MC_PTR(line + strlen(ERROR)), (uint64_t)(t.at - line) - strlen(ERROR));
}

long report(struct guest *g, const char *call, const char *arguments, long error)
{
	struct text t = { g->text, g->text + sizeof(g->text) };

	if (g->failed.kind != MC_GUEST_NO_FAILURE)
		return error;
	put(&t, call);
	put(&t, "(");
	put(&t, arguments);
	put(&t, ")");
	g->failed = (struct mc_guest_failed){
		.kind = MC_GUEST_INIT_FAILED,
		.error = (int32_t)-error,
		.step = -1,
		.length = (uint32_t)(t.at - g->text),
	};
	log_failure(g);
	return error;
}

static long send_failed(const struct guest *g)
{
	const struct mc_spawn *spawn = g->spawn;
	const struct part parts[] = {
		{ &g->failed, sizeof(g->failed) },
		{ spawn ? spawn->run.records : NULL, g->failed.nrecords * sizeof(struct mc_record) },
		{ g->text, g->failed.length },
	};

	return frames_send(&g->control, MC_GUEST_FAILED, parts, 3);
}

void report_end(struct guest *g)
{
	if (g->control.fd < 0 || g->is_hung_up)
		return;
	if (g->failed.kind == MC_GUEST_NO_FAILURE || send_failed(g) == 0)
		frames_await_end(&g->control, MC_GUEST_PATIENCE_MS);
}
