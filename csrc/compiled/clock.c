/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/clock.c: clock_gettime(2) by the vDSO (vdso(7)), which the kernel maps into every process: a start reads the
 * clock some three hundred times. It is an ELF library, whose dynamic section names its symbols.
 */
#include <elf.h>
#include <link.h>
#include <time.h>

#include "compiled/compiled.h"

static int (*gettime)(clockid_t clock, struct timespec *time);

struct library {
	const char *base;
	const ElfW(Sym) *symbols;
	const char *names;
	const uint32_t *hash; /* nbucket, nchain (the number of symbols), ... */
};

static void read_dynamic(struct library *l, const ElfW(Dyn) *entry)
{
	for (; entry->d_tag != DT_NULL; entry++) {
		const void *place = l->base + entry->d_un.d_ptr;

		if (entry->d_tag == DT_SYMTAB)
			l->symbols = place;
		else if (entry->d_tag == DT_STRTAB)
			l->names = place;
		else if (entry->d_tag == DT_HASH)
			l->hash = place;
	}
}

#ifdef __x86_64__
#define NAME "__vdso_clock_gettime"
#else
#define NAME "__kernel_clock_gettime"
#endif

void clock_find(const void *vdso)
{
	const ElfW(Ehdr) *header = vdso;
	struct library l = { .base = vdso };

	for (int i = 0; header && i < header->e_phnum; i++) {
		const ElfW(Phdr) *part = (const void *)(l.base + header->e_phoff + (size_t)i * header->e_phentsize);

		if (part->p_type == PT_DYNAMIC)
			read_dynamic(&l, (const void *)(l.base + part->p_offset));
	}
	if (!l.symbols || !l.names || !l.hash)
		return;
	for (uint32_t i = 0; i < l.hash[1]; i++)
		if (same(l.names + l.symbols[i].st_name, NAME))
			gettime = (int (*)(clockid_t, struct timespec *))(l.base + l.symbols[i].st_value);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	if (gettime)
		return gettime(clock, time);
	return (int)mc_sys2(SYS_clock_gettime, (uint64_t)clock, MC_PTR(time));
}
