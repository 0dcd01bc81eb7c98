/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * kvmfloor.c: boots a tiny machine with nothing but the necessary system calls: the floor of `compare boot`.
 *
 *     kvmfloor boot GUEST CPUID          creates a machine of 2 MiB, runs it to the guest's HLT, and frees it
 *     kvmfloor exits GUEST CPUID N PORT  csrc/guests/exits.S writes N times to PORT, which has no device
 *
 * Theory of operation. Hand-written: the system calls that minicontainer.kvm.Machine makes for a flat binary in real
 * mode, in the same order (a test compares them by strace). CPUID is a file with the library's struct kvm_cpuid2 for
 * this host. For each line on standard input it creates one machine and prints nanoseconds: `boot` three numbers,
 * from the first call to the guest's entry, to its first exit, and to the end; `exits` one, the time of one exit. A
 * call that fails ends the program.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (2ul << 20)
#define ADDRESS 0x1000 /* the address of minicontainer/kvm/boot/flat.py */
#define COUNT_PORT 0x510
#define PORT_PORT 0x514
#define ENTRIES 256

static const char *guest;
static struct {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[ENTRIES];
} cpuid;

struct machine {
	char *memory;
	int kvm, vm, vcpu;
	size_t run_size;
	struct kvm_run *run;
};

static long must(long result)
{
	if (result < 0) {
		perror("kvmfloor");
		exit(120);
	}
	return result;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *map(size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	must(p == MAP_FAILED ? -1 : 0);
	return p;
}

/* ---- a machine, created as in minicontainer/kvm/machine.py */

static void load(struct machine *m)
{
	char code[36 << 10]; /* as much as the library reads first, of a file of any size */
	struct stat status;
	int fd = (int)must(open(guest, O_RDONLY | O_CLOEXEC | O_NONBLOCK));

	must(fstat(fd, &status));
	memcpy(m->memory + ADDRESS, code, (size_t)must(pread(fd, code, sizeof(code), 0)));
	close(fd);
}

static void set_registers(int vcpu)
{
	struct kvm_regs regs = { .rip = ADDRESS, .rsp = ADDRESS, .rflags = 2 };
	struct kvm_sregs sregs;
	struct kvm_segment *segments[] = { &sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss };

	must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid));
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs));
	for (int i = 0; i < 6; i++) {
		segments[i]->base = segments[i]->selector = 0;
		segments[i]->limit = 0xffff;
	}
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs));
	must(ioctl(vcpu, KVM_SET_REGS, &regs));
}

static void create(struct machine *m)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };

	m->memory = map(MEMORY, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	region.userspace_addr = (uintptr_t)m->memory;
	m->kvm = (int)must(open("/dev/kvm", O_RDWR | O_CLOEXEC));
	m->vm = (int)must(ioctl(m->kvm, KVM_CREATE_VM, 0));
	m->run_size = (size_t)must(ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	must(ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region));
	load(m);
	m->vcpu = (int)must(ioctl(m->vm, KVM_CREATE_VCPU, 0));
	m->run = map(m->run_size, MAP_SHARED, m->vcpu);
	set_registers(m->vcpu);
}

static void read_registers(int vcpu)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	must(ioctl(vcpu, KVM_GET_REGS, &regs));
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs));
}

static void destroy(struct machine *m)
{
	close(m->vcpu);
	munmap(m->run, m->run_size);
	close(m->vm);
	close(m->kvm);
	munmap(m->memory, MEMORY);
}

/* Runs the guest to its first exit that is not a port access: it must be HLT. */
static void run_to_halt(const struct machine *m)
{
	while (m->run->exit_reason == KVM_EXIT_IO)
		must(ioctl(m->vcpu, KVM_RUN, 0));
	must(m->run->exit_reason == KVM_EXIT_HLT ? 0 : -1);
}

/* ---- the two measurements */

static void boot(void)
{
	struct machine m;
	uint64_t start = now(), created, first;

	create(&m);
	created = now();
	must(ioctl(m.vcpu, KVM_RUN, 0));
	first = now();
	run_to_halt(&m);
	read_registers(m.vcpu);
	destroy(&m);
	printf("%llu %llu %llu\n", (unsigned long long)(created - start), (unsigned long long)(first - start),
	       (unsigned long long)(now() - start));
}

/* Enters the guest, which reads `value` from the port. */
static void answer(const struct machine *m, uint16_t port, uint32_t value)
{
	must(ioctl(m->vcpu, KVM_RUN, 0));
	must(m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == port ? 0 : -1);
	memcpy((char *)m->run + m->run->io.data_offset, &value, m->run->io.size);
}

static void exits(uint32_t count, uint16_t port)
{
	struct machine m;
	uint64_t start, took;

	create(&m);
	answer(&m, COUNT_PORT, count);
	answer(&m, PORT_PORT, port);
	start = now();
	run_to_halt(&m);
	took = now() - start;
	destroy(&m);
	printf("%llu\n", (unsigned long long)(took / count));
}

static int read_cpuid(const char *path)
{
	int fd = (int)must(open(path, O_RDONLY | O_CLOEXEC));
	long size = must(read(fd, &cpuid, sizeof(cpuid)));

	close(fd);
	return size == (long)(sizeof(cpuid.head) + cpuid.head.nent * sizeof(cpuid.entries[0]));
}

int main(int argc, char **argv)
{
	char line[64];
	int is_boot = argc == 4 && strcmp(argv[1], "boot") == 0;

	if ((!is_boot && (argc != 6 || strcmp(argv[1], "exits") != 0 || atoi(argv[4]) < 1)) || !read_cpuid(argv[3])) {
		fprintf(stderr, "usage: kvmfloor boot GUEST CPUID | exits GUEST CPUID N PORT\n");
		return 2;
	}
	guest = argv[2];
	while (fgets(line, sizeof(line), stdin)) {
		if (is_boot)
			boot();
		else
			exits((uint32_t)atoi(argv[4]), (uint16_t)strtoul(argv[5], NULL, 0));
		fflush(stdout);
	}
	return 0;
}
