/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/payload.h: the contract between Python (minicontainer/compiled/) and the program of a compiled container
 * (csrc/compiled/). The file that `minicontainer compile` writes is
 *
 *     the program | struct mc_compiled, plans, tables, strings: the payload | struct mc_trailer
 *
 * Offsets count from the beginning of the payload, and strings end with a NUL. None is offset 0, and slot -1. Lists of
 * strings are consecutive. The checksum is over all bytes of the file before it.
 */
#ifndef MC_COMPILED_PAYLOAD_H
#define MC_COMPILED_PAYLOAD_H

#include "plan/native.h"

/* CDEF BEGIN */
#define MC_COMPILED_MAGIC 0x64656c69706d6f63
#define MC_COMPILED_VERSION 2
#define MC_CHECKSUM_FACTOR 0x9e3779b97f4a7c15
#define MC_SETTINGS_MAX 32 /* lines that are written to files of the cgroup */

/* `count` bytes, strings or structures. */
struct mc_span {
	uint32_t at, count;
};

struct mc_trailer {
	uint32_t size;    /* of the payload */
	uint32_t version;
	uint64_t magic;
	uint64_t checksum;
};

/* What was true of a path at compile time, and must be true again. */
enum mc_check_kind {
	MC_CHECK_ROOT,      /* the directory with this device, inode and time of birth              */
	MC_CHECK_DIRECTORY, /* a directory                                                          */
	MC_CHECK_FILE,      /* anything else                                                        */
	MC_CHECK_DEVICE,    /* a device node of this number (`device`) and type (`inode`)           */
	MC_CHECK_CONTENT,   /* a regular file with this content, or (size ~0) none                  */
	MC_CHECK_PRESENT,   /* it exists                                                            */
	MC_CHECK_ABSENT,    /* it does not exist                                                    */
	MC_CHECKS
};

struct mc_check {
	uint32_t kind;
	uint32_t what;    /* offset: the name of the option, or of the thing                      */
	uint32_t path;    /* offset                                                                 */
	uint32_t reserved;
	uint64_t device, inode;
	uint64_t time;    /* nanoseconds: of birth (0: unknown), or of the last change of a content */
	uint64_t size, hash;
};

struct mc_namespace {
	int32_t slot;
	uint32_t what, path; /* offsets */
};

/* The child's plan, and what a run puts into it. The exec is its last step. */
struct mc_variant {
	struct mc_span plan;   /* bytes; count 0: there is no such variant                         */
	uint64_t flags;        /* CLONE_NEW* of its clone3                                         */
	struct mc_span ids;    /* uint32_t: offsets in the plan at which the container's id belongs */
	uint32_t window;       /* offset in the plan of a struct winsize; 0: none                   */
	uint32_t texts;        /* offset: for each step its phase, its call, and what a failure is called and the hint
				* (both may be empty)                                                  */
	int32_t input, output, error; /* slots                                                             */
	int32_t socket, report, init, filter;
	struct mc_span namespaces; /* struct mc_namespace                                           */
	struct mc_span shared; /* pairs of int32_t: see struct mc_parent                            */
	int32_t ready, go, answer;
};

/* The parent-side plan. */
struct mc_parent_part {
	struct mc_span plan;   /* bytes; count 0: there is none                                     */
	uint32_t texts;        /* as of mc_variant                                                  */
	uint32_t ninputs;
	int32_t uid, gid, count, helper_output; /* slots                                            */
};

/* A file of a machine, which its monitor reads: opened by path, and the same as at compile time. */
struct mc_machine_file {
	uint32_t what, path;   /* offsets                                                           */
	uint64_t device, inode, size;
	uint64_t modified, changed; /* nanoseconds; changed 0: of the cache, where each use sets the time of access */
};

#define MC_MACHINE_FILES 2 /* at most: MC_VMM_FILES of vmm/machine.h */

/* What the guest's init gets, and what the plan of the monitor, which is the child's, needs beside its streams. */
struct mc_guest_part {
	struct mc_span start;  /* bytes: struct mc_guest_start, whose plan ends it; the exec is the plan's last step */
	struct mc_span ids;    /* as of mc_variant: offsets in `start`                              */
	uint32_t texts;        /* as of mc_variant                                                  */
	int32_t kvm, machine, run, report, program, files[MC_MACHINE_FILES]; /* slots of the child's plan */
};

struct mc_machine_part {
	struct mc_span data;   /* bytes: struct mc_machine; count 0: there is no machine            */
	struct mc_span program; /* bytes: csrc/vmm                                                  */
	struct mc_span files;  /* struct mc_machine_file                                            */
	struct mc_guest_part plain, terminal;
	uint64_t processor;    /* checksum of what KVM supports of the processor                    */
};

/* A line for a file of the cgroup. */
struct mc_line {
	uint32_t file, data;   /* offsets                                                           */
	uint32_t what, value;  /* offsets: the option and its value                                 */
	uint32_t group;        /* at least one file of each group must exist; 0: it need not        */
	uint32_t effective;    /* offset: what the kernel must then show in FILE.effective; 0: anything */
};

enum mc_ids { MC_IDS_NONE, MC_IDS_POOL, MC_IDS_SHARED };

/* Bits of mc_compiled.flags */
#define MC_COMPILED_FIRST_USERNS 1  /* the caller is in the first user namespace                     */
#define MC_COMPILED_CAPABILITIES 2  /* the plan depends on the caller's capabilities: `permitted`     */
#define MC_COMPILED_ROOT_GIVEN 4    /* the state directory was given by $MINICONTAINER_ROOT           */
#define MC_COMPILED_MUST_HAVE_CGROUP 8 /* a limit or a device needs the cgroup                        */
#define MC_COMPILED_CGROUP_OF_CALLER 16 /* the cgroup is below the caller's own, not below `base`     */
#define MC_COMPILED_INIT 32         /* --init: the program is a child of process 1                    */
#define MC_COMPILED_HOST_DEVICES 64 /* without the program for devices, the container can use those of the host */

struct mc_compiled {
	uint32_t size;         /* of the payload                                                   */
	uint32_t flags;
	uint32_t uid, gid;     /* the caller's effective ids                                       */
	uint64_t permitted;
	uint32_t release, hardware; /* offsets: of uname(2)                                        */
	uint32_t nodename;     /* ... with the host's UTS namespace; 0: any                         */
	struct mc_span checks; /* struct mc_check                                                  */
	struct mc_variant plain, terminal; /* the second one where stdin and stdout are a terminal  */
	struct mc_parent_part parent;
	struct mc_machine_part machine;
	struct mc_span args;   /* strings                                                          */
	uint32_t kept;         /* of them, in front of arguments that are given to the run         */
	struct mc_span env;    /* strings: "=KEY=VALUE"; "tKEY=VALUE" with a terminal; "iKEY=" and the id follows;
				* "cKEY" is the caller's                                              */
	struct mc_span stage;  /* strings: the first arguments of init, if init executes the program */
	struct mc_span init, filter; /* bytes: the program init, and the filter that it loads       */
	/* resources */
	uint32_t state;        /* offset: the state directory                                      */
	char mark[12];         /* of the state directory, while its file is this one                */
	uint64_t mark_device, mark_inode, mark_time; /* of the last change, in nanoseconds          */
	uint32_t base;         /* offset: the cgroup below which the cgroup of all containers is; 0: none */
	uint32_t needed;       /* offset: controllers, as cgroup.subtree_control takes them         */
	uint32_t accounted;    /* offset: those that are of use                                    */
	uint32_t pids;         /* offset: pids.max where there is a pids controller; 0: as the limits say */
	struct mc_span lines;  /* struct mc_line                                                   */
	struct mc_span devices; /* bytes: struct bpf_insn[]; count 0: any device                   */
	uint32_t ids;          /* enum mc_ids                                                      */
	uint32_t uid_first, gid_first, id_count; /* the first range and the number of ranges; or the shared range */
	struct mc_span excluded; /* pairs of uint32_t: [start, end) of ids that are not to be given away */
	/* the end */
	int32_t stop_signal;
	uint64_t stop_timeout_ns, timeout_ns; /* timeout 0: none                                   */
	uint32_t timeout_text, memory_text; /* offsets                                             */
};
/* CDEF END */

#endif
