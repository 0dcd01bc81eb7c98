"""The typed surface of the extension: csrc/plan/native.h's declarations; a test compares the two."""

from typing import Any

class _Lib:
    MC_SYSCALL: int
    MC_CHDIR: int
    MC_SIGNALS: int
    MC_CAPBSET: int
    MC_SECCOMP: int
    MC_RLIMITS: int
    MC_RAISE: int
    MC_IDMAP: int
    MC_MOUNT_POINT: int
    MC_PROC: int
    MC_ID_MAP: int
    MC_RUN: int
    MC_CHILD: int
    MC_WAIT: int
    MC_NETLINK: int
    MC_IF_INDEX: int
    MC_PACKET: int
    MC_END_FLOWS: int
    MC_COMMENT_OUT: int
    MC_SEND_FD: int
    MC_FORK: int
    MC_EXEC: int
    MC_EXEC_FD: int
    MC_FAIL: int
    MC_OPS: int
    MC_PLACE_LOCK: int
    MC_PLACE_MKDIR: int
    MC_PLACE_OPEN: int
    MC_PLACE_PIDS: int
    MC_PLACE_DEVICES: int
    MC_PLACINGS: int
    MC_CPU_STAT: int
    MC_IO_STAT: int
    MC_MEMORY_PEAK: int
    MC_PIDS_PEAK: int
    MC_CPU_PRESSURE: int
    MC_MEMORY_PRESSURE: int
    MC_IO_PRESSURE: int
    MC_WAITED: int
    MC_REMOVED: int
    MC_MEASURINGS: int
    MC_ID_DIGITS: int
    MC_CGROUP_NAME: int
    MC_IMM: int
    MC_BYTES: int
    MC_SLOT: int
    MC_PLAN_MAGIC: int
    MC_HANDOVER_ROOM: int
    MC_NO_DIRECTORY: int
    MC_NO_FILTER: int
    MC_ARGS: int
    MC_GO: int
    MC_READY: int
    MC_MESSAGE: int
    MC_HEAD: int
    MC_MONITOR_MAGIC: int
    MC_ENTER_MAGIC: int
    MC_SHARED_FD: int
    MC_STARTED_FD: int
    MC_FIRST_FREE_FD: int
    MC_NAME: int
    MC_NO_BYTE: int
    MC_INTERACTIVE: int
    MC_TERMINAL: int
    MC_REMOVE: int
    MC_UPPER: int
    MC_NEVER: int
    MC_ON_FAILURE: int
    MC_ALWAYS: int
    MC_ANSWERS: int
    MC_REQUEST_INPUT: int
    MC_REQUEST_EOF: int
    MC_REQUEST_WINDOW: int
    MC_REQUEST_SIGNAL: int
    MC_REQUEST_STOP: int
    MC_REQUEST_NAME: int
    MC_REQUEST_POLICY: int
    MC_COMPILED_MAGIC: int
    MC_COMPILED_VERSION: int
    MC_MACHINE_FILES: int
    MC_CHECKS: int
    MC_CHECKSUM_FACTOR: int
    MC_SETTINGS_MAX: int
    MC_CHECK_ROOT: int
    MC_CHECK_DIRECTORY: int
    MC_CHECK_FILE: int
    MC_CHECK_DEVICE: int
    MC_CHECK_CONTENT: int
    MC_CHECK_PRESENT: int
    MC_CHECK_ABSENT: int
    MC_IDS_NONE: int
    MC_IDS_POOL: int
    MC_IDS_SHARED: int
    MC_COMPILED_FIRST_USERNS: int
    MC_COMPILED_CAPABILITIES: int
    MC_COMPILED_ROOT_GIVEN: int
    MC_COMPILED_MUST_HAVE_CGROUP: int
    MC_COMPILED_CGROUP_OF_CALLER: int
    MC_COMPILED_INIT: int
    MC_COMPILED_HOST_DEVICES: int
    MC_REASONS: int
    MC_WORDS: int
    MC_IO_PORTS: int
    MC_SERIAL_PORT: int
    MC_SERIAL_IRQ: int
    MC_SLEEP_CONTROL: int
    MC_SLEEP_STATUS: int
    MC_DEBUG_EXIT_PORT: int
    MC_DEBUG_CONSOLE_PORT: int
    MC_STOP_SIGNAL: int
    MC_STOP_REQUESTED: int
    MC_STOP_DEADLINE: int
    MC_STOP_EXITS: int
    MC_STOP_DEBUG_EXIT: int
    MC_STOP_HALTED: int
    MC_STOP_OUTPUT: int
    MC_STOP_TRACE: int
    MC_DEVICE_BALLOON: int
    MC_DEVICE_BLOCK: int
    MC_DEVICE_CONSOLE: int
    MC_DEVICE_FILE_SYSTEM: int
    MC_DEVICE_NETWORK: int
    MC_DEVICE_RNG: int
    MC_DEVICE_VSOCK: int
    MC_GUEST_CLONE_FAILED: int
    MC_GUEST_EXEC_FAILED: int
    MC_GUEST_EXITED: int
    MC_GUEST_FAILED: int
    MC_GUEST_FORGET: int
    MC_GUEST_IMAGE: Any
    MC_GUEST_INIT_FAILED: int
    MC_GUEST_LISTEN: int
    MC_GUEST_LONGEST: int
    MC_GUEST_MAGIC: int
    MC_GUEST_NO_FAILURE: int
    MC_GUEST_OPEN_MS: int
    MC_GUEST_PATIENCE_MS: int
    MC_GUEST_PORT: int
    MC_GUEST_PROCESS_FD: int
    MC_GUEST_READY: int
    MC_GUEST_RESIZE: int
    MC_GUEST_SHARE: Any
    MC_GUEST_SIGNAL: int
    MC_GUEST_START: int
    MC_GUEST_STARTED: int
    MC_GUEST_STEP_ENDED: int
    MC_GUEST_STEP_FAILED: int
    MC_GUEST_TTY: int
    MC_MACHINE_MAGIC: int
    MC_MACHINE_SELF: int
    MC_ROLE_DISK: int
    MC_ROLE_FILES: int
    MC_ROLE_MAIN: int
    MC_ROLE_NETWORK: int
    MC_ROLE_PROCESSOR: int
    MC_ROLE_VSOCK: int
    MC_ROLE_WORKER: int
    MC_VMEXEC_CONTROL_FD: int
    MC_VMEXEC_STREAM_FD: int
    MC_VMM_CONSOLE: int
    MC_VMM_CPUS: int
    MC_VMM_DEVICES: int
    MC_VMM_FILES: int
    MC_VMM_FILES_FD: int
    MC_VMM_GIVEN_FD: int
    MC_VMM_KVM_ERROR: int
    MC_VMM_KVM_FD: int
    MC_VMM_MACHINE_FD: int
    MC_VMM_POWEROFF: int
    MC_VMM_PROC_FD: int
    MC_VMM_REPORT_FD: int
    MC_VMM_RESET: int
    MC_VMM_ROLES: int
    MC_VMM_RUNS: int
    MC_VMM_RUN_FD: int
    MC_VMM_RUN_MAGIC: int
    MC_VMM_TEXT: int
    MC_VMM_TRIPLE_FAULT: int
    def mc_now(self) -> int: ...
    def mc_plan_check(self, plan: Any, size: int, /) -> int: ...
    def mc_plan_walk(self, run: Any, /) -> int: ...
    def mc_plan_walk_from(self, run: Any, first: int, /) -> int: ...
    def mc_spawn(self, spawn: Any, /) -> int: ...
    def mc_pidfd_wait(self, pidfd: int, timeout_ms: int, /) -> int: ...
    def mc_spawn_reap(self, spawn: Any, /) -> int: ...
    def mc_pidfd_reap(self, pidfd: int, status: Any, rusage_us: Any, /) -> int: ...
    def mc_syscall(self, nr: int, a: int, b: int, c: int, d: int, e: int, f: int, /) -> int: ...
    def mc_syscall_as(self, uid: int, gid: int, nr: int, a: int, b: int, c: int, d: int, e: int, /) -> int: ...
    def mc_caller(self, rootfs: Any, out: Any, /) -> None: ...
    def mc_is_caller(self, rootfs: Any, known: Any, /) -> int: ...
    def mc_lock(self, fd: int, type: int, start: int, length: int, /) -> int: ...
    def mc_is_locked(self, fd: int, start: int, /) -> int: ...
    def mc_place_like(self, place: Any, like: Any, id: Any, /) -> None: ...
    def mc_place(self, place: Any, /) -> int: ...
    def mc_measure(self, cgroup: int, files: int, out: Any, /) -> None: ...
    def mc_finish(self, spawn: Any, place: Any, files: int, out: Any, /) -> int: ...
    def mc_run_room(self, plan: Any, /) -> int: ...
    def mc_spawn_lay(self, memory: Any, plan: Any, /) -> Any: ...
    def mc_parent_lay(self, memory: Any, like: Any, /) -> Any: ...
    def mc_read_at(self, dirfd: int, name: Any, buffer: Any, size: int, /) -> int: ...
    def mc_write_at(self, dirfd: int, name: Any, data: Any, size: int, /) -> int: ...
    def mc_ioctl(self, fd: int, request: int, argument: Any, /) -> int: ...
    def mc_ioctl_value(self, fd: int, request: int, argument: int, /) -> int: ...
    def mc_exit_decode(self, run: Any, exit: Any, /) -> None: ...
    def mc_run_map(self, fd: int, size: int, offset: int, run: Any, /) -> int: ...
    def mc_run_answer_msr(self, run: Any, value: int, fault: int, /) -> None: ...
    def mc_run_unmap(self, run: Any, size: int, /) -> int: ...
    def mc_run_sync(self, run: Any, valid: int, dirty: int, /) -> Any: ...
    def mc_run_immediate(self, run: Any, on: int, /) -> None: ...
    def mc_vcpu_attach(self, vcpu: Any, /) -> int: ...
    def mc_vcpu_run(self, vcpu: Any, /) -> int: ...
    def mc_vcpu_detach(self, vcpu: Any, /) -> int: ...
    def mc_vcpu_kick(self, vcpu: Any, /) -> int: ...
    def mc_vcpu_thread_ns(self, vcpu: Any, /) -> int: ...
    def mc_serial_new(self, fd: int, vm: int, eager: int, /) -> Any: ...
    def mc_serial_free(self, serial: Any, /) -> None: ...
    def mc_serial_read(self, serial: Any, offset: int, /) -> int: ...
    def mc_serial_write(self, serial: Any, offset: int, value: int, /) -> int: ...
    def mc_serial_input(self, serial: Any, data: Any, size: int, overrun: int, /) -> int: ...
    def mc_serial_output(self, serial: Any, data: Any, size: int, /) -> int: ...
    def mc_serial_flush(self, serial: Any, wait: int, /) -> int: ...
    def mc_serial_unplug(self, serial: Any, /) -> None: ...
    def mc_lz4_block(self, block: Any, packed: int, out: Any, size: int, /) -> int: ...
    def __getattr__(self, constant: str) -> int: ...  # the names of csrc/plan/constants.h

class _FFI:
    CData: type
    NULL: Any
    def new(self, ctype: Any, init: Any = ..., /) -> Any: ...
    def cast(self, ctype: str, value: Any, /) -> Any: ...
    def from_buffer(self, *data: Any) -> Any: ...
    def buffer(self, cdata: Any, size: int = ..., /) -> Any: ...
    def sizeof(self, what: Any, /) -> int: ...
    def offsetof(self, ctype: str, field: str, /) -> int: ...
    def typeof(self, what: Any, /) -> Any: ...
    def new_allocator(self, alloc: Any = ..., free: Any = ..., should_clear_after_alloc: bool = ...) -> Any: ...
    def string(self, cdata: Any, maxlen: int = ..., /) -> bytes: ...
    def unpack(self, cdata: Any, length: int, /) -> Any: ...
    def release(self, cdata: Any, /) -> None: ...
    def addressof(self, cdata: Any, /, *fields: Any) -> Any: ...
    def gc(self, cdata: Any, destructor: Any, size: int = ..., /) -> Any: ...
    def memmove(self, dest: Any, src: Any, n: int, /) -> None: ...

lib: _Lib
ffi: _FFI
