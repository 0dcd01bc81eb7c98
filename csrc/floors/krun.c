/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * krun.c: a machine of libkrun's, for `compare microvm`, by its C API (libkrun, include/libkrun.h):
 *
 *     krun LIBRARY MIB ROOT PROGRAM [KERNEL INITRD COMMAND_LINE]
 *
 * It has one processor and MIB mebibytes; its output is this process's. The kernel is that of the libkrunfw beside the
 * library, and PROGRAM is executed in the directory ROOT, which is shared with it; or KERNEL, an ELF file, and the
 * first program of INITRD. At the end of the machine libkrun ends this process. A call that fails ends it too.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAG "/dev/root" /* of the shared directory that libkrun's init makes its root */
#define ELF 1           /* KRUN_KERNEL_FORMAT_ELF */

static void *library;

static void *function(const char *name)
{
	void *found = dlsym(library, name);

	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return found;
}

static uint32_t check(const char *name, int32_t result)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", name, strerror(-result));
		exit(1);
	}
	return (uint32_t)result;
}

/* Calls a function of the library by its type. */
#define CALL(name, types, ...) check(name, ((int32_t(*) types)function(name))(__VA_ARGS__))

static void set_kernel(uint32_t machine, char **kernel)
{
	CALL("krun_set_kernel", (uint32_t, const char *, uint32_t, const char *, const char *), machine, kernel[0], ELF,
	     kernel[1], kernel[2]);
	CALL("krun_add_serial_console_default", (uint32_t, int, int), machine, STDIN_FILENO, STDOUT_FILENO);
}

static void set_program(uint32_t machine, const char *program)
{
	char *nothing[] = { NULL };

	CALL("krun_add_virtio_console_default", (uint32_t, int, int, int), machine, STDIN_FILENO, STDOUT_FILENO,
	     STDERR_FILENO);
	CALL("krun_set_exec", (uint32_t, const char *, char *const *, char *const *), machine, program, nothing,
	     nothing);
}

int main(int argc, char **argv)
{
	uint32_t machine;

	if (argc != 5 && argc != 8) {
		fprintf(stderr, "krun LIBRARY MIB ROOT PROGRAM [KERNEL INITRD COMMAND_LINE]\n");
		return 2;
	}
	library = dlopen(argv[1], RTLD_LAZY); /* smolmachines 1.32.2: symbols of virgl are undefined */
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	machine = CALL("krun_create_ctx", (void), );
	CALL("krun_set_vm_config", (uint32_t, uint8_t, uint32_t), machine, 1, (uint32_t)atoi(argv[2]));
	CALL("krun_add_virtiofs3", (uint32_t, const char *, const char *, uint64_t, bool), machine, TAG, argv[3], 0,
	     false);
	if (argc == 8)
		set_kernel(machine, argv + 5);
	else
		set_program(machine, argv[4]);
	CALL("krun_start_enter", (uint32_t), machine);
	return 0;
}
