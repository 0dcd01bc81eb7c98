/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * memory: walks through memory from address 0 to where there is none, writes a word into every page and reads it
 * back, and prints how much it has found: at most 3 GiB, since a PC has a hole there. Where nobody answers, writes
 * are lost and reads give all ones. Long mode at CPL 3, which it asks for by its note: it is quick there everywhere.
 * Ends by the debug-exit port: with 0, or 1 when a page has not kept its word.
 */
#include "freestanding.h"

#define PAGE 4096
#define END (4ull << 30) /* so much is mapped at least (minicontainer/kvm/x86.py)                    */
#define NOBODY (~0ull)
#define PATTERN 0x5a5a5a5a00000000ull

NOTE(USER64, 1);

enum found { MEMORY, NOTHING, BROKEN };

/* The last word of the page: of those pages that this guest lives in (code, stack, page tables) the one not in use. */
static enum found try_page(uint64_t page)
{
	volatile uint64_t *word = (uint64_t *)(page + PAGE - sizeof(uint64_t));
	const uint64_t before = *word, written = PATTERN | page;
	uint64_t read;

	*word = written; /* another word in every page: a page that is there twice is seen */
	read = *word;
	*word = before;
	if (read == written)
		return MEMORY;
	return read == NOBODY ? NOTHING : BROKEN;
}

__attribute__((used)) _Noreturn static void guest_main(void)
{
	enum found found = MEMORY;
	uint64_t page = 0;

	while (page < END && (found = try_page(page)) == MEMORY)
		page += PAGE;
	print_number(page / 1024);
	print(found == BROKEN ? " KiB, and then a page that does not keep what is written\n" : " KiB\n");
	finish(found == BROKEN);
}
