/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/control.h: the contract between the host and the init of a microVM's guest (csrc/guest/): frames on the
 * virtio-console port "control", in both directions. A frame is struct mc_guest_frame, then `length` bytes of payload.
 * Numbers are little endian, and every field has a fixed size.
 *
 *     guest  READY      init runs, and the ports are open
 *     host   START      what to run: a plan that the guest walks as a container's child does (csrc/plan/)
 *     guest  STARTED    the plan was walked to its exec
 *     host   SIGNAL, RESIZE, FORGET, any number of them
 *     guest  EXITED     the program has ended, no other process is left, and all output is in the queues of the ports
 *
 * FAILED may come in place of any frame of the guest, and is then the last one. After EXITED or FAILED init waits until
 * the host closes its end of the control port, at most MC_GUEST_PATIENCE_MS, and then powers the machine off: a kernel
 * that powers off resets its devices (Linux 6.15), and what the host has not taken from a queue until then is lost. If
 * the host closes the control port earlier, init kills every process and powers off.
 *
 * Ports: "control", "stdin" (guest reads), "stdout" and "stderr" (guest writes). The host adds them in this order, and
 * opens each, PORT_OPEN with value 1, as it gives it its name (virtio 1.3, 5.3.6.2). Init opens them when all four have
 * names, so they are open at the host then; the host must not send input before (Linux drops it), nor the end of input.
 * A port that is closed at the host MC_GUEST_OPEN_MS after init has opened it, and was never seen open, is taken as
 * closed. The end of stdin, an output that the program has closed, and one that the host has closed are passed on; the
 * host must write what is in a port's queue before it closes what the guest has closed.
 *
 * A further process in the container of the program (`exec`) has a connection by virtio-vsock in place of the control
 * port: where the kernel has vsock, init listens at the port MC_GUEST_PORT while the program runs, for the host alone.
 *
 *     guest  LISTEN     at which port the guest listens for its streams: the host makes a connection for each that it
 *                       has, stdin, stdout and stderr, or with MC_GUEST_TTY stdin and stdout, one after the other
 *     host   START      a plan whose slots have MC_GUEST_PROCESS_FD; without tag and time
 *     ...               as above, but without another wait after EXITED
 *
 * If the host closes the connection earlier, the process is killed. If the program ends, all these processes are.
 */
#ifndef MC_GUEST_CONTROL_H
#define MC_GUEST_CONTROL_H

#include "plan/native.h"

/* Of a machine with an image: its device, and the directories at which image and virtio-fs are mounted. */
#define MC_GUEST_IMAGE_DEVICE "/dev/vda"
/* STRINGS BEGIN */
#define MC_GUEST_IMAGE "/image"
#define MC_GUEST_SHARE "/share"
/* STRINGS END */

/* CDEF BEGIN */
#define MC_GUEST_MAGIC 0x31747367
#define MC_GUEST_LONGEST 0x2000000 /* bytes of the longest payload                                      */
#define MC_GUEST_OPEN_MS 100
#define MC_GUEST_PATIENCE_MS 60000
#define MC_GUEST_PORT 1      /* of vsock: for exec. Ports below 1024 need CAP_NET_BIND_SERVICE           */
#define MC_GUEST_PROCESS_FD 3 /* for the plan of exec: a pidfd of the program's process                  */

enum mc_guest_type {
	MC_GUEST_READY = 1,    /* struct mc_guest_ready                                                 */
	MC_GUEST_STARTED = 2,  /* struct mc_guest_started, then the records of the plan's steps         */
	MC_GUEST_FAILED = 3,   /* struct mc_guest_failed, then records and text                         */
	MC_GUEST_EXITED = 4,   /* struct mc_guest_exited                                                */
	MC_GUEST_LISTEN = 5,   /* struct mc_guest_listen                                                */
	MC_GUEST_START = 16,   /* struct mc_guest_start, then what its offsets refer to                 */
	MC_GUEST_SIGNAL = 17,  /* struct mc_guest_signal: for the program's process                     */
	MC_GUEST_RESIZE = 18,  /* struct mc_guest_size: the terminal's window                           */
	MC_GUEST_FORGET = 19,  /* struct mc_guest_forget: the kernel drops inodes that nobody uses     */
};

struct mc_guest_frame {
	uint32_t type;          /* enum mc_guest_type                                                   */
	uint32_t length;        /* bytes of payload                                                     */
};

struct mc_guest_ready {
	uint64_t entry_ns;      /* CLOCK_BOOTTIME of init's first instructions                          */
	uint64_t ready_ns;      /* ... of this message                                                  */
};

/* Offsets count from the beginning of this structure, the beginning of the payload; 0: none. A slot is an index of the
 * plan's slots; -1: none. */
struct mc_guest_start {
	uint32_t magic;         /* MC_GUEST_MAGIC                                                       */
	uint32_t size;          /* bytes of the payload                                                 */
	uint32_t flags;         /* MC_GUEST_TTY                                                         */
	uint32_t plan;          /* offset of the encoded plan (struct mc_plan), a multiple of 8         */
	uint64_t clone_flags;   /* CLONE_NEW* of the process that walks the plan                        */
	uint64_t realtime_ns;   /* CLOCK_REALTIME of the host, which the guest's clock is set to; 0: it is not set */
	uint32_t initial_slots; /* offset of the slots' values before the walk (int32_t), a multiple of 4; none: -1 */
	uint32_t tag;           /* offset of a string: the tag of the virtio-fs that becomes the root; none: the
				 * initramfs stays the root                                             */
	uint32_t filter_data;   /* offset of the content of the file in the slot `filter`               */
	uint32_t filter_size;   /* bytes of it                                                          */
	int32_t input;          /* slots of pipes to and from the ports stdin, stdout, stderr; not with MC_GUEST_TTY */
	int32_t output;
	int32_t error;
	int32_t socket;         /* slot of the socket on which the child sends the master of its pty (MC_SEND_FD):
				 * with MC_GUEST_TTY                                                    */
	int32_t init;           /* slot of the file /init-helper of the initramfs: csrc/helpers/init.c  */
	int32_t report;         /* slot of the pipe for the error report of that program                */
	int32_t filter;         /* slot of a memfd: the seccomp filter that it loads                    */
	uint16_t rows;          /* of the terminal's window, set when the program runs; 0: as the plan has set it,
				 * which is before that                                                 */
	uint16_t columns;
	uint32_t image;         /* offset of a string: the type of the file system on MC_GUEST_IMAGE_DEVICE, which is
				 * mounted at MC_GUEST_IMAGE; the virtio-fs is then at MC_GUEST_SHARE. none: the
				 * virtio-fs is the root                                                */
	uint32_t reserved;
};

/* Bits of mc_guest_start.flags */
#define MC_GUEST_TTY 1

struct mc_guest_started {
	uint64_t start_ns;      /* CLOCK_MONOTONIC of the guest, around clone3, as the records          */
	uint64_t end_ns;
	int32_t pid;            /* of the program's process, in the pid namespace of init               */
	uint32_t nrecords;      /* struct mc_record of each step follow                                 */
};

enum mc_guest_failure {
	MC_GUEST_NO_FAILURE,
	MC_GUEST_INIT_FAILED,  /* init could not do what `text` says                                    */
	MC_GUEST_CLONE_FAILED, /* clone3 failed                                                         */
	MC_GUEST_STEP_FAILED,  /* step `step` failed; if it is an exec, `program` is the executable     */
	MC_GUEST_STEP_ENDED,   /* the child ended in step `step`, with `status`                         */
	MC_GUEST_EXEC_FAILED,  /* the program in the slot `init` could not execute `program`            */
};

struct mc_guest_failed {
	uint32_t kind;          /* enum mc_guest_failure                                                */
	int32_t error;          /* errno                                                                */
	int32_t step;           /* index in the plan; -1: none                                          */
	int32_t status;         /* exit code, or minus the signal                                       */
	uint64_t start_ns;      /* around clone3, as in mc_guest_started; 0: it was not called          */
	uint64_t end_ns;
	uint32_t nrecords;      /* struct mc_record of each step follow                                 */
	uint32_t length;        /* then so many bytes of text, as "mount(virtiofs, root)", without a NUL */
	struct mc_program program;
	uint32_t reserved;
};

struct mc_guest_exited {
	int32_t status;         /* exit code, or minus the signal                                       */
	uint32_t oom_kills;     /* processes that the kernel has killed for memory meanwhile; of exec: 0 */
	uint64_t rusage[3];     /* user and system microseconds, peak resident set in KiB (wait4(2))    */
};

struct mc_guest_listen {
	uint32_t port;
};

struct mc_guest_signal {
	int32_t number;
};

struct mc_guest_forget {
	uint32_t caches;        /* as of /proc/sys/vm/drop_caches: 2 needs 1, which drops their pages   */
};

struct mc_guest_size {
	uint16_t rows, columns;
};
/* CDEF END */

#endif
