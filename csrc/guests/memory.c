/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * memory: writes a word to every page from address 0 to the end of memory, reads it back, and prints the size of
 * memory: at most 3 GiB, where a PC has a hole. At addresses without memory, writes are lost and reads return all
 * ones. Long mode at CPL 3, which it requests in its note: there computations are fast on every host. Ends by the
 * debug-exit port: with 0, or with 1 if a page does not store the word.
 */
#include "freestanding.h"

#define PAGE 4096
#define END (4ull << 30) /* mapped at least (minicontainer/kvm/x86.py)                               */
#define ALL_ONES (~0ull)
#define PATTERN 0x5a5a5a5a00000000ull

NOTE(USER64, 1);

enum page_state { MEMORY, NOTHING, BROKEN };

/* Tests the last word of the page, which is unused in the guest's own pages too (code, stack, page tables). */
static enum page_state try_page(uint64_t page)
{
	volatile uint64_t *word = (uint64_t *)(page + PAGE - sizeof(uint64_t));
	const uint64_t before = *word, written = PATTERN | page;
	uint64_t read;

	*word = written; /* a different word in every page detects aliased pages */
	read = *word;
	*word = before;
	if (read == written)
		return MEMORY;
	return read == ALL_ONES ? NOTHING : BROKEN;
}

__attribute__((used)) _Noreturn static void guest_main(void)
{
	enum page_state state = MEMORY;
	uint64_t page = 0;

	while (page < END && (state = try_page(page)) == MEMORY)
		page += PAGE;
	print_number(page / 1024);
	print(state == BROKEN ? " KiB, and then a page that does not keep what is written\n" : " KiB\n");
	finish(state == BROKEN);
}
