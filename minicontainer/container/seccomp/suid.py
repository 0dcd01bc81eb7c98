"""``no-new-suid``: the filter that refuses set-uid and set-gid bits on files, as systemd's RestrictSUIDSGID.

A file that a container's root creates in a volume belongs to the host's root. With a set-uid bit, a user of the host
who executes it would become root. File capabilities have the same effect, so the container does not get CAP_SETFCAP
(Spec.capabilities), nor new user namespaces, in which it would have that capability.

A seccomp filter cannot read arguments in memory. So openat2 and clone3 return ENOSYS, and programs fall back to older
calls; io_uring, which can open files without a system call, is refused too.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.linux import bpf, libseccomp
from minicontainer.linux.bpf import JUMP_EQUAL, LOAD, NR, RETURN
from minicontainer.linux.libseccomp import Condition, Rule
from minicontainer.native import lib

REFUSED = lib.SECCOMP_RET_ERRNO | errno.EPERM
UNKNOWN = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
BITS = (stat.S_ISUID, stat.S_ISGID)
CREATING = (os.O_CREAT, os.O_TMPFILE & ~os.O_DIRECTORY)  # flags with which open(2) uses its mode argument
MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "creat": 1, "mknod": 1, "mknodat": 2}  # call -> argument
OPENS = {"open": 1, "openat": 2}  # call -> argument with the flags; the mode is the next


def program(architectures: tuple[str, ...]) -> bytes:
    """The filter (struct sock_filter[]), for the native architecture and ``architectures``, whose calls its kernel
    accepts."""
    rules = [Rule(name, REFUSED, (_has(argument, bit),)) for name, argument in MODES.items() for bit in BITS]
    for name, argument in OPENS.items():
        pairs = [(_has(argument, flag), _has(argument + 1, bit)) for flag in CREATING for bit in BITS]
        rules += [Rule(name, REFUSED, conditions) for conditions in pairs]
    rules += [Rule(name, REFUSED, (_has(0, lib.CLONE_NEWUSER),)) for name in ("clone", "unshare")]
    rules += [Rule(name, UNKNOWN) for name in ("openat2", "clone3", "io_uring_setup")]
    return _without_fchmodat2(bpf.optimize(libseccomp.compile(lib.SECCOMP_RET_ALLOW, rules, architectures)))


def _has(argument: int, bit: int) -> Condition:
    return Condition(argument, "MASKED_EQ", bit, bit)


def _without_fchmodat2(filter_: bytes) -> bytes:
    """Adds ENOSYS for fchmodat2, which libseccomp knows from 2.5.5 on. Its number is the same on each architecture; C
    libraries fall back to fchmodat."""
    numbers = dict.fromkeys((lib.SYS_fchmodat2, lib.SYS_fchmodat2 | lib.X32_SYSCALL_BIT))
    tests = [i for number in numbers for i in ((JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, UNKNOWN))]
    return bpf.pack([(LOAD, 0, 0, NR), *tests]) + filter_
