/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * memory.c: guest memory, laid out as minicontainer/kvm/memory.py does: up to 3 GiB from address 0 on, the rest from
 * 4 GiB on. Host and guest addresses are equal modulo a huge page, so that the kernel maps whole ones in the nested
 * page tables.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define HOLE (3ull << 30)
#define HIGH (4ull << 30)
#define HUGE_PAGE (2ull << 20)

static unsigned char *map(struct mc_vmm *vmm, uint64_t size)
{
	void *at = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *aligned;

	if (at == MAP_FAILED)
		mc_vmm_fail(vmm, -errno, "mmap(%llu bytes of guest memory)", (unsigned long long)size);
	aligned = (unsigned char *)(((uintptr_t)at + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	madvise(aligned, size, MADV_HUGEPAGE); /* a kernel without them refuses: then without */
	return aligned;
}

static void add_region(struct mc_vmm *vmm, uint64_t address, uint64_t size, unsigned char *host)
{
	uint32_t slot = vmm->memory.count++;
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = address, .memory_size = size, .userspace_addr = (uintptr_t)host,
	};
	int r;

	vmm->memory.regions[slot] = (struct mc_region){ address, size, host };
	r = mc_ioctl(vmm->vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (r < 0)
		mc_vmm_fail(vmm, r, "KVM_SET_USER_MEMORY_REGION");
}

static void load(struct mc_vmm *vmm, const struct mc_machine_segment *s)
{
	int fd = s->file == MC_MACHINE_SELF ? MC_VMM_MACHINE_FD : MC_VMM_FILES_FD + (int)s->file;
	unsigned char *to = mc_memory_at(&vmm->memory, s->address, s->size);
	uint64_t done = 0;

	if (!to || (s->file != MC_MACHINE_SELF && s->file >= MC_VMM_FILES))
		mc_vmm_fail(vmm, -EINVAL, "machine: a segment is outside of memory");
	while (done < s->size) {
		ssize_t n = pread(fd, to + done, s->size - done, (off_t)(s->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			mc_vmm_fail(vmm, n < 0 ? -errno : -ENODATA, "pread(kernel or initramfs)");
		done += (uint64_t)n;
	}
}

void mc_vmm_make_memory(struct mc_vmm *vmm)
{
	const struct mc_machine *m = vmm->machine;
	const struct mc_machine_segment *segments = (const void *)((const char *)m + m->segments);
	uint64_t low = m->memory < HOLE ? m->memory : HOLE;
	unsigned char *host = map(vmm, m->memory);

	add_region(vmm, 0, low, host);
	if (m->memory > low)
		add_region(vmm, HIGH, m->memory - low, host + low);
	for (uint32_t i = 0; i < m->nsegments; i++)
		load(vmm, segments + i);
}
