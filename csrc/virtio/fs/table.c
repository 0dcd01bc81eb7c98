/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * table.c: a hash table whose items are parts of larger structures.
 */
#include <errno.h>
#include <stdlib.h>

#include "virtio/fs/server.h"

#define LEAST_BITS 6

static struct mc_fs_item **bucket_of(const struct mc_fs_table *table, uint64_t key)
{
	return &table->buckets[key * 0x9e3779b97f4a7c15u >> (64 - table->bits)]; /* 2^64 / golden ratio */
}

static void insert(struct mc_fs_table *table, struct mc_fs_item *item)
{
	struct mc_fs_item **bucket = bucket_of(table, item->key);

	item->next = *bucket;
	*bucket = item;
}

static int grow(struct mc_fs_table *table)
{
	struct mc_fs_table larger = { .bits = table->buckets ? table->bits + 1 : LEAST_BITS, .count = table->count };

	larger.buckets = calloc((size_t)1 << larger.bits, sizeof(*larger.buckets));
	if (!larger.buckets)
		return -ENOMEM;
	for (size_t i = 0; table->buckets && i < (size_t)1 << table->bits; i++) {
		for (struct mc_fs_item *item = table->buckets[i], *next; item; item = next) {
			next = item->next;
			insert(&larger, item);
		}
	}
	free(table->buckets);
	*table = larger;
	return 0;
}

/* 0, or -ENOMEM. A table that cannot grow gets slower. */
int mc_fs_table_add(struct mc_fs_table *table, struct mc_fs_item *item)
{
	if ((!table->buckets || table->count >> table->bits) && grow(table) < 0 && !table->buckets)
		return -ENOMEM;
	insert(table, item);
	table->count++;
	return 0;
}

void mc_fs_table_remove(struct mc_fs_table *table, struct mc_fs_item *item)
{
	struct mc_fs_item **place = bucket_of(table, item->key);

	while (*place != item)
		place = &(*place)->next;
	*place = item->next;
	table->count--;
}

static struct mc_fs_item *of_key(struct mc_fs_item *item, uint64_t key)
{
	while (item && item->key != key)
		item = item->next;
	return item;
}

struct mc_fs_item *mc_fs_table_find(const struct mc_fs_table *table, uint64_t key)
{
	return table->buckets ? of_key(*bucket_of(table, key), key) : NULL;
}

/* The next item with the same key. */
struct mc_fs_item *mc_fs_table_next(const struct mc_fs_item *item)
{
	return of_key(item->next, item->key);
}

/* An item at or behind the bucket `*from`, which becomes its bucket; NULL: there is none. */
struct mc_fs_item *mc_fs_table_from(const struct mc_fs_table *table, size_t *from)
{
	for (; table->buckets && *from < (size_t)1 << table->bits; ++*from)
		if (table->buckets[*from])
			return table->buckets[*from];
	return NULL;
}

void mc_fs_table_free(struct mc_fs_table *table)
{
	free(table->buckets);
}
