/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/cgroup.h: a container's cgroup (its descriptor; -1: it has none), and the removal of directories.
 */
#ifndef MC_MONITOR_CGROUP_H
#define MC_MONITOR_CGROUP_H

#include <stddef.h>
#include <stdint.h>

/* ---- cgroup.c */

uint64_t cgroup_oom_kills(int cgroup);
void cgroup_thaw(int cgroup);
int cgroup_is_populated(int cgroup);
void cgroup_kill(int cgroup, int reuse); /* `reuse`: a child will be cloned into the cgroup */
long cgroup_remove(int cgroup, int parent, const char *name); /* 0, or -errno */

/* ---- remove.c */

void remove_entries(int directory, int files); /* subdirectories, and if `files` the files too */
int is_removable(int directory);               /* with its entries: no immutable file, no mount point */
int open_directory(int at, const char *name);
uint64_t inode_of(int fd);
long next_entries(int directory, void *entries, size_t size); /* getdents64(2) */
struct dirent64;
int is_subdirectory(const struct dirent64 *entry); /* not "." or ".." */
void close_fd(int *fd);

#endif
