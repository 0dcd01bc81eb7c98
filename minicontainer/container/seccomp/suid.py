"""``no-new-suid``: the filter under which no file gets a set-uid or set-gid bit, as systemd's RestrictSUIDSGID has it.

Files that a container makes have owners outside: what its root writes to a volume belongs to the host's root. With a
set-uid bit, whoever of the host executes it becomes that owner. File capabilities do the same, so SETFCAP goes too
(Spec.capabilities), and so does a new user namespace, where one could have it.

What is asked for by memory no filter can see: openat2 and clone3 answer ENOSYS, and programs take what was before them.
io_uring opens files unseen.
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
MAKING = (os.O_CREAT, os.O_TMPFILE & ~os.O_DIRECTORY)  # flags with which open(2) looks at a mode
MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "creat": 1, "mknod": 1, "mknodat": 2}  # call -> argument
OPENS = {"open": 1, "openat": 2}  # flags; the mode follows


def program(architectures: tuple[str, ...]) -> bytes:
    """The filter (struct sock_filter[]), for this machine and the others whose calls its kernel takes."""
    rules = [Rule(name, REFUSED, (_has(argument, bit),)) for name, argument in MODES.items() for bit in BITS]
    for name, argument in OPENS.items():
        both = [(_has(argument, flag), _has(argument + 1, bit)) for flag in MAKING for bit in BITS]
        rules += [Rule(name, REFUSED, conditions) for conditions in both]
    rules += [Rule(name, REFUSED, (_has(0, lib.CLONE_NEWUSER),)) for name in ("clone", "unshare")]
    rules += [Rule(name, UNKNOWN) for name in ("openat2", "clone3", "io_uring_setup")]
    return _without_fchmodat2(bpf.optimize(libseccomp.compile(lib.SECCOMP_RET_ALLOW, rules, architectures)))


def _has(argument: int, bit: int) -> Condition:
    return Condition(argument, "MASKED_EQ", bit, bit)


def _without_fchmodat2(made: bytes) -> bytes:
    """libseccomp knows it from 2.5.5 on. Its number is the same on each architecture; C libraries go on without it."""
    numbers = dict.fromkeys((lib.SYS_fchmodat2, lib.SYS_fchmodat2 | lib.X32_SYSCALL_BIT))
    tests = [i for number in numbers for i in ((JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, UNKNOWN))]
    return bpf.pack([(LOAD, 0, 0, NR), *tests]) + made
