/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio_test.h: cases of virtio_test.c. TEST(name) { ... } is run by `virtio_test name`.
 */
#ifndef VIRTIO_TEST_H
#define VIRTIO_TEST_H

#include <stdint.h>
#include <unistd.h>

void test_add(const char *name, void (*body)(void));
_Noreturn void test_fail(const char *file, int line, const char *what);

#define TEST(name)                                            \
	static void test_##name(void);                        \
	__attribute__((constructor)) static void add_##name(void) \
	{                                                     \
		test_add(#name, test_##name);                 \
	}                                                     \
	static void test_##name(void)

#define CHECK(condition) ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition))

/* Waits until it is so; the alarm of main() ends a wait that is too long. */
#define until(condition)             \
	do {                         \
		while (!(condition)) \
			usleep(200); \
	} while (0)

/* The same numbers each time (xorshift64*). */
static inline uint64_t test_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

static inline void test_fill(void *data, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i++)
		((unsigned char *)data)[i] = (unsigned char)(test_random(&seed) >> 56);
}

#endif
