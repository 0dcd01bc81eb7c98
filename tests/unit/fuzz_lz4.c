/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fuzz_lz4.c: unpacks blocks from standard input under the sanitizers; each lies in a buffer of exactly its size, and
 * unpacks into one of exactly the size that is asked for. Input: uint32 size to unpack to, uint32 length, that many
 * bytes, again and again. Output: for each, what mc_lz4_block gave.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../csrc/kvm/lz4.c"

int main(void)
{
	uint32_t head[2];

	while (fread(head, sizeof(head), 1, stdin) == 1) {
		char *out = malloc(head[0]), *block = malloc(head[1]);

		if (!out || !block || fread(block, 1, head[1], stdin) != head[1])
			return 1;
		printf("%ld\n", mc_lz4_block(block, head[1], out, head[0]));
		free(block);
		free(out);
	}
	return 0;
}
