/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * sieve: counts the primes below a million by the sieve of Eratosthenes, and prints how many there are: 78498. Long
 * mode at CPL 3, which it requests in its note: there computations are fast even where KVM emulates privileged
 * code. Ends with 0 by the debug-exit port.
 */
#include "freestanding.h"

#define LIMIT 1000000

NOTE(USER64, 1);

/* A bit for each odd number: bit i of byte n stands for 16 n + 2 i + 1, set if that is no prime. */
static uint8_t composite[LIMIT / 16 + 1];

static int is_composite(uint32_t odd)
{
	return composite[odd >> 4] >> (odd >> 1 & 7) & 1;
}

static void strike_out_multiples(uint32_t prime)
{
	/* From the square on: smaller multiples have a smaller factor. Every second multiple is even. */
	for (uint32_t n = prime * prime; n < LIMIT; n += 2 * prime)
		composite[n >> 4] |= (uint8_t)(1 << (n >> 1 & 7));
}

__attribute__((used)) _Noreturn static void guest_main(void)
{
	uint32_t count = 1; /* 2, the only even one */

	for (uint32_t n = 3; n < LIMIT; n += 2) {
		if (is_composite(n))
			continue;
		count++;
		if (n < LIMIT / n)
			strike_out_multiples(n);
	}
	print_number(count);
	print(" primes\n");
	finish(0);
}
