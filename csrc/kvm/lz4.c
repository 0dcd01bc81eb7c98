/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * lz4.c: unpacks one LZ4 block (lz4's doc/lz4_Block_format.md) of a packed kernel. The input is untrusted: every read
 * and write is checked against its buffer.
 */
#include <string.h>

#include "kvm/vcpu.h"

#define LEAST_MATCH 4

struct reader {
	const unsigned char *at, *end;
};

/* A length: its nibble and, if that is 15, the bytes up to the first that is not 255, added. SIZE_MAX: cut off. */
static size_t length(struct reader *in, unsigned nibble)
{
	size_t n = nibble;
	unsigned char byte = 255;

	while (nibble == 15 && byte == 255) {
		if (in->at == in->end)
			return SIZE_MAX;
		byte = *in->at++;
		n += byte;
	}
	return n;
}

/* Returns the number of unpacked bytes; -1: `block` is no LZ4 block, or needs more than `size` bytes. */
long mc_lz4_block(const char *block, size_t packed, char *out, size_t size)
{
	struct reader in = { (const unsigned char *)block, (const unsigned char *)block + packed };
	size_t done = 0, n, back;

	while (in.at < in.end) {
		unsigned token = *in.at++;

		n = length(&in, token >> 4);
		if (n > (size_t)(in.end - in.at) || n > size - done)
			return -1;
		memcpy(out + done, in.at, n);
		done += n;
		in.at += n;
		if (in.at == in.end)
			return (long)done; /* the last sequence has literals only */
		if (in.end - in.at < 2)
			return -1;
		back = in.at[0] | (size_t)in.at[1] << 8;
		in.at += 2;
		n = length(&in, token & 15);
		if (n == SIZE_MAX || back == 0 || back > done)
			return -1;
		n += LEAST_MATCH;
		if (n > size - done)
			return -1;
		if (back >= n) {
			memcpy(out + done, out + done - back, n);
			done += n;
		} else {
			for (; n; n--, done++) /* source and target overlap */
				out[done] = out[done - back];
		}
	}
	return (long)done;
}
