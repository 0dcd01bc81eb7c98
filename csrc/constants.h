/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * constants.h: the kernel's numbers that Python needs. Only names stand here: csrc/build.py declares each to
 * cffi as "#define NAME ...", and the compiler fills in the value from the headers below.
 */
#ifndef MC_CONSTANTS_H
#define MC_CONSTANTS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <linux/close_range.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#ifndef MOUNT_ATTR_RDONLY /* glibc before 2.36 */
#include <linux/mount.h>
#endif
#ifndef TIOCGPTPEER
#include <asm/ioctls.h>
#endif

#ifndef SYS_mkdir /* x86 alone has the calls without ...at */
#define SYS_mkdir -1
#endif

#if defined(__x86_64__) /* what seccomp(2) is told of this program's own calls */
#define AUDIT_ARCH_NATIVE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define AUDIT_ARCH_NATIVE AUDIT_ARCH_AARCH64
#endif
#ifdef __X32_SYSCALL_BIT /* the same AUDIT_ARCH, and a second table of calls with this bit set */
#define X32_SYSCALL_BIT __X32_SYSCALL_BIT
#else
#define X32_SYSCALL_BIT 0
#endif

#if 0 /* for csrc/build.py alone */
/* NAMES BEGIN */
SYS_bpf SYS_capget SYS_capset SYS_clone3 SYS_close SYS_close_range SYS_chdir SYS_chroot SYS_dup3 SYS_execve SYS_execveat
SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_getpid SYS_ioctl
SYS_keyctl SYS_kill SYS_memfd_create SYS_mkdir SYS_mkdirat SYS_mknodat SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree
SYS_openat SYS_openat2 SYS_personality SYS_pidfd_getfd SYS_pidfd_open SYS_pidfd_send_signal SYS_pivot_root SYS_prctl
SYS_prlimit64 SYS_read SYS_seccomp SYS_setdomainname SYS_setfsgid SYS_setfsuid SYS_setgroups SYS_sethostname SYS_setns
SYS_setpriority SYS_setresgid SYS_setresuid SYS_setsid SYS_socket SYS_symlinkat SYS_umask SYS_umount2 SYS_unshare
SYS_write SYS_linkat SYS_unlinkat SYS_fchownat SYS_sched_setscheduler SYS_ioprio_set SYS_statfs SYS_fstatfs
SYS_acct SYS_add_key SYS_bind SYS_clock_settime SYS_clone SYS_connect SYS_delete_module SYS_finit_module SYS_init_module
SYS_io_uring_setup SYS_kexec_load SYS_name_to_handle_at SYS_open_by_handle_at SYS_perf_event_open SYS_process_vm_readv
SYS_process_vm_writev SYS_ptrace SYS_quotactl SYS_reboot SYS_request_key SYS_socketpair SYS_settimeofday SYS_swapoff
SYS_readlinkat SYS_swapon SYS_syslog SYS_userfaultfd SYS_vhangup

CLONE_NEWCGROUP CLONE_NEWIPC CLONE_NEWNET CLONE_NEWNS CLONE_NEWPID CLONE_NEWTIME CLONE_NEWUSER CLONE_NEWUTS
CLONE_CLEAR_SIGHAND CLONE_INTO_CGROUP CLONE_PIDFD CLONE_PARENT_SETTID CLONE_VFORK CLONE_VM CLONE_PARENT CLONE_FILES CLONE_FS

MS_BIND MS_NODEV MS_NOEXEC MS_NOSUID MS_PRIVATE MS_RDONLY MS_REC MS_REMOUNT MS_SHARED MS_SLAVE MS_UNBINDABLE
MS_MOVE MS_NOATIME MS_RELATIME MS_STRICTATIME MS_SYNCHRONOUS MS_NODIRATIME MS_SILENT MS_LAZYTIME
MNT_DETACH MNT_FORCE MNT_EXPIRE UMOUNT_NOFOLLOW
OPEN_TREE_CLONE OPEN_TREE_CLOEXEC FSOPEN_CLOEXEC FSMOUNT_CLOEXEC FSPICK_CLOEXEC
FSCONFIG_SET_FLAG FSCONFIG_SET_STRING FSCONFIG_SET_BINARY FSCONFIG_SET_PATH FSCONFIG_SET_FD FSCONFIG_CMD_CREATE FSCONFIG_CMD_RECONFIGURE
MOVE_MOUNT_F_EMPTY_PATH MOVE_MOUNT_T_EMPTY_PATH MOVE_MOUNT_F_SYMLINKS MOVE_MOUNT_T_SYMLINKS
MOUNT_ATTR_RDONLY MOUNT_ATTR_NOSUID MOUNT_ATTR_NODEV MOUNT_ATTR_NOEXEC MOUNT_ATTR_IDMAP MOUNT_ATTR_NOATIME
MOUNT_ATTR_NOSYMFOLLOW MOUNT_ATTR__ATIME MOUNT_ATTR_RELATIME MOUNT_ATTR_STRICTATIME
RESOLVE_BENEATH RESOLVE_IN_ROOT RESOLVE_NO_MAGICLINKS RESOLVE_NO_SYMLINKS RESOLVE_NO_XDEV
AT_FDCWD AT_EMPTY_PATH AT_RECURSIVE AT_SYMLINK_NOFOLLOW AT_REMOVEDIR AT_SYMLINK_FOLLOW
O_CLOEXEC O_CREAT O_DIRECTORY O_EXCL O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_RDONLY O_RDWR O_TRUNC O_WRONLY
S_IFCHR S_IFBLK S_IFREG S_IFDIR S_IFIFO
CLOSE_RANGE_CLOEXEC CLOSE_RANGE_UNSHARE MFD_CLOEXEC MFD_ALLOW_SEALING F_ADD_SEALS F_SEAL_GROW F_SEAL_SEAL
F_SEAL_SHRINK F_SEAL_WRITE F_GET_SEALS
PR_CAPBSET_DROP PR_CAPBSET_READ PR_CAP_AMBIENT PR_CAP_AMBIENT_CLEAR_ALL PR_CAP_AMBIENT_IS_SET PR_CAP_AMBIENT_LOWER
PR_CAP_AMBIENT_RAISE PR_GET_NO_NEW_PRIVS PR_SET_DUMPABLE PR_GET_DUMPABLE PR_SET_KEEPCAPS PR_SET_NAME PR_SET_NO_NEW_PRIVS
PR_SET_PDEATHSIG PR_SET_SECUREBITS PR_SET_CHILD_SUBREAPER PR_GET_CHILD_SUBREAPER PR_GET_SECUREBITS
SECCOMP_SET_MODE_FILTER SECCOMP_GET_ACTION_AVAIL SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_TSYNC
SECCOMP_RET_ALLOW SECCOMP_RET_ERRNO SECCOMP_RET_KILL_PROCESS SECCOMP_RET_KILL_THREAD SECCOMP_RET_LOG SECCOMP_RET_TRAP
AF_INET SOCK_DGRAM SOCK_CLOEXEC
KEYCTL_JOIN_SESSION_KEYRING _LINUX_CAPABILITY_VERSION_3
TIOCSCTTY TIOCGPTPEER TIOCSPTLCK TIOCSWINSZ SIOCGIFFLAGS SIOCSIFFLAGS IFF_UP IFF_RUNNING
NSFS_MAGIC CGROUP2_SUPER_MAGIC PROC_SUPER_MAGIC SYSFS_MAGIC TMPFS_MAGIC OVERLAYFS_SUPER_MAGIC
AUDIT_ARCH_X86_64 AUDIT_ARCH_AARCH64 AUDIT_ARCH_NATIVE X32_SYSCALL_BIT
ADDR_NO_RANDOMIZE PER_LINUX
/* NAMES END */
#endif

#endif
