"""The plan's language: system calls as data (see ``csrc/plan/native.h``).

A ``Step`` is one primitive with its arguments; a ``Plan`` is a list of steps, encoded once into the flat buffer that C
walks in the child. The functions below make steps. They are named after the man pages, and arguments are printed as the
man page writes them::

    plan = Plan([sethostname("box"), chdir("/"), execve(["/bin/true"], ["true"], [])])
    print(plan.describe())

Arguments are ints, ``Const("MS_NOSUID|MS_NODEV")``, strings and bytes (passed by address), ``Struct`` (bytes with a
printable form), and ``Slot("name")``: a descriptor that the caller passes or that an earlier step opened (``into=``).
Pure: no function here makes a system call.
"""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it

from minicontainer.native import lib
from minicontainer.plan.builder import Builder, Plan
from minicontainer.plan.step import (
    Const,
    Hex,
    Octal,
    Slot,
    Step,
    Struct,
    check_arguments,
    const,
    constant_value,
    os_bytes,
    show,
    string_list,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Builder", "Const", "FDCWD", "Hex", "Octal", "Plan", "Slot", "Step", "Struct", "await_child", "call",
    "call_parent", "capbset_drop_all_but", "capset", "chdir", "close", "close_range", "const", "dup3", "execve",
    "execveat", "failing", "fchdir", "fork_child", "fork_sibling", "fsconfig", "fsmount", "fsopen", "id_map", "idmap",
    "let_go", "mkdirat", "mknodat", "mount", "mount_setattr", "move_mount", "open_proc", "open_tree", "openat",
    "openat2", "pivot_root", "prctl", "prlimit64", "prlimit64_all", "prlimit64_raise", "reset_signals", "run",
    "seccomp", "send_fd", "setgroups", "sethostname", "setns", "setresgid", "setresuid", "show", "symlinkat",
    "umount2", "unshare", "wait_for_parent", "write",
]  # fmt: skip


# ---- the steps: one function for each primitive, named as its man page


def call(name: str, *args: object, into: str | None = None, tolerate: Sequence[int] = (), skip: int = 0) -> Step:
    """A step for any system call whose number is in ``csrc/plan/constants.h``."""
    return Step(
        name, args, lib.MC_SYSCALL, constant_value(f"SYS_{name}"), Slot(into) if into else None, tuple(tolerate), skip
    )


FDCWD = const("AT_FDCWD")
_call = call  # for the steps below, which have checked their own arguments


def mount(source: str | None, target: str, fstype: str | None, flags: str = "0", data: str | None = None) -> Step:
    """mount(2)."""
    return _call("mount", source, target, fstype, const(flags), data)


def umount2(target: str, flags: str = "0") -> Step:
    """umount2(2)."""
    return _call("umount2", target, const(flags))


def pivot_root(new_root: str, put_old: str) -> Step:
    """pivot_root(2)."""
    return _call("pivot_root", new_root, put_old)


def open_tree(path: str, flags: str, into: str, at: Slot | Const = FDCWD) -> Step:
    """open_tree(2): a detached copy of a mount (OPEN_TREE_CLONE), as a descriptor."""
    return _call("open_tree", at, path, const(flags), into=into)


def move_mount(tree: Slot, target: str, at: Slot | Const = FDCWD, flags: str = "MOVE_MOUNT_F_EMPTY_PATH") -> Step:
    """move_mount(2): attaches a detached mount."""
    return _call("move_mount", tree, "", at, target, const(flags))


MOUNT_ATTR = struct.Struct("=QQQQ")  # struct mount_attr, MOUNT_ATTR_SIZE_VER0


def mount_setattr(tree: Slot | Const, path: str, attrs: str, *, clear: str = "", recursive: bool = False) -> Step:
    """mount_setattr(2): sets (and clears) MOUNT_ATTR_* of a mount."""
    flags = "AT_EMPTY_PATH|AT_RECURSIVE" if recursive else "AT_EMPTY_PATH"
    packed = MOUNT_ATTR.pack(const(attrs), const(clear) if clear else 0, 0, 0)
    text = f"{{attr_set={attrs}{', attr_clr=' + clear if clear else ''}}}"
    return _call("mount_setattr", tree, path, const(flags), Struct(packed, text), MOUNT_ATTR.size)


def idmap(tree: Slot, userns: Slot, *, recursive: bool = False) -> Step:
    """mount_setattr(2) with MOUNT_ATTR_IDMAP: makes a detached tree an ID-mapped mount of a user namespace."""
    return Step("mount_setattr_idmap", (tree, userns, const("AT_RECURSIVE") if recursive else 0), lib.MC_IDMAP)


def fsopen(fstype: str, into: str) -> Step:
    """fsopen(2)."""
    return _call("fsopen", fstype, const("FSOPEN_CLOEXEC"), into=into)


def fsconfig(fs: Slot, key: str | None, value: str | None = None) -> Step:
    """fsconfig(2): FSCONFIG_SET_STRING; without a value FSCONFIG_SET_FLAG; without a key FSCONFIG_CMD_CREATE."""
    if key is None:
        return _call("fsconfig", fs, const("FSCONFIG_CMD_CREATE"), None, None, 0)
    command = "FSCONFIG_SET_FLAG" if value is None else "FSCONFIG_SET_STRING"
    return _call("fsconfig", fs, const(command), key, value, 0)


def fsmount(fs: Slot, attrs: str, into: str) -> Step:
    """fsmount(2): the file system as a detached mount."""
    return _call("fsmount", fs, const("FSMOUNT_CLOEXEC"), const(attrs), into=into)


OPEN_HOW = struct.Struct("=QQQ")  # struct open_how, OPEN_HOW_SIZE_VER0


def openat2(path: str, flags: str, resolve: str, into: str, *, at: Slot | Const = FDCWD, mode: int = 0) -> Step:
    """openat2(2)."""
    how = OPEN_HOW.pack(const(flags), mode, const(resolve))
    text = f"{{flags={flags}, mode={mode:#o}, resolve={resolve}}}"
    return _call("openat2", at, path, Struct(how, text), OPEN_HOW.size, into=into)


def openat(path: str, flags: str, into: str, *, at: Slot | Const = FDCWD, mode: int = 0) -> Step:
    """openat(2)."""
    return _call("openat", at, path, const(flags), mode, into=into)


def mkdirat(at: Slot | Const, path: str, mode: int, *, tolerate: Sequence[int] = ()) -> Step:
    """mkdirat(2)."""
    return _call("mkdirat", at, path, Octal(mode), tolerate=tolerate)


def mknodat(at: Slot | Const, path: str, mode: str, permissions: int, device: int) -> Step:
    """mknodat(2)."""
    return _call("mknodat", at, path, Const(f"{mode}|{permissions:#o}"), device)


def symlinkat(target: str, at: Slot | Const, path: str) -> Step:
    """symlinkat(2)."""
    return _call("symlinkat", target, at, path)


def close(fd: Slot) -> Step:
    """close(2)."""
    return _call("close", fd)


def fchdir(fd: Slot) -> Step:
    """fchdir(2)."""
    return _call("fchdir", fd)


def write(fd: Slot, data: str, *, tolerate: Sequence[int] = ()) -> Step:
    """write(2)."""
    return _call("write", fd, data, len(os_bytes(data)), tolerate=tolerate)


def dup3(fd: Slot, number: int) -> Step:
    """dup3(2); the copy is not close-on-exec."""
    return _call("dup3", fd, number, 0)


def setns(fd: Slot, kind: str) -> Step:
    """setns(2); kind is a CLONE_NEW* name."""
    return _call("setns", fd, const(kind))


def unshare(flags: str) -> Step:
    """unshare(2)."""
    return _call("unshare", const(flags))


def sethostname(name: str) -> Step:
    """sethostname(2)."""
    return _call("sethostname", name, len(os_bytes(name)))


def prctl(option: str, *args: int) -> Step:
    """prctl(2)."""
    return _call("prctl", const(option), *args, *([0] * (4 - len(args))))


def setgroups(groups: Sequence[int]) -> Step:
    """setgroups(2), as a raw system call: for the calling thread alone."""
    return _call("setgroups", len(groups), Struct(struct.pack(f"={len(groups)}I", *groups), show(list(groups))))


def setresgid(gid: int) -> Step:
    """setresgid(2), as a raw system call: for the calling thread alone."""
    return _call("setresgid", gid, gid, gid)


def setresuid(uid: int) -> Step:
    """setresuid(2), as a raw system call: for the calling thread alone."""
    return _call("setresuid", uid, uid, uid)


def capset(effective: int, permitted: int, inheritable: int) -> Step:
    """capset(2) of the calling thread: masks of bit N for capability N."""
    header = struct.pack("=Ii", lib._LINUX_CAPABILITY_VERSION_3, 0)
    masks = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(m & 0xFFFFFFFF for m in masks), *(m >> 32 for m in masks))
    text = f"{{effective={effective:#x}, permitted={permitted:#x}, inheritable={inheritable:#x}}}"
    return _call("capset", Struct(header, "{_LINUX_CAPABILITY_VERSION_3, 0}"), Struct(data, text))


def capbset_drop_all_but(keep: int) -> Step:
    """prctl(PR_CAPBSET_DROP) of every capability whose bit is not in ``keep``."""
    return Step("prctl_capbset_drop_all_but", (Hex(keep),), lib.MC_CAPBSET)


def reset_signals(mask: int = 0) -> Step:
    """rt_sigaction(SIG_DFL) of every signal, then rt_sigprocmask(SIG_SETMASK, mask). All signals are blocked until this
    step (in a plan without it: until the exec, which restores the caller's mask)."""
    return Step("reset_signals", (Hex(mask),), lib.MC_SIGNALS)


def prlimit64(resource: int, soft: int, hard: int) -> Step:
    """prlimit64(2) of the calling process; -1 is RLIM_INFINITY."""
    packed = struct.pack("=QQ", soft & (2**64 - 1), hard & (2**64 - 1))
    text = Struct(packed, f"{{{'RLIM_INFINITY' if soft < 0 else soft}, {'RLIM_INFINITY' if hard < 0 else hard}}}")
    return _call("prlimit64", 0, resource, text, None)


def prlimit64_raise(resource: int, hard: int, pid: Slot | int = 0) -> Step:
    """prlimit64(2) of a process (0: the caller): raises its hard limit to at least ``hard`` (-1: RLIM_INFINITY)."""
    least = const("RLIM_INFINITY") if hard < 0 else hard
    return Step("prlimit64_raise", (pid, resource, least), lib.MC_RAISE)


def prlimit64_all(limits: Sequence[tuple[int, int] | None]) -> Step:
    """prlimit64(2) of each resource in turn: (soft, hard), -1 is RLIM_INFINITY, None leaves the limit as it is. A limit
    above the caller's hard limit is lowered to that."""
    values = [value & (2**64 - 1) for pair in limits for value in (pair or (1, 0))]
    text = Struct(struct.pack(f"={len(values)}Q", *values), f"<{sum(pair is not None for pair in limits)} limits>")
    return Step("prlimit64_all", (text, len(limits)), lib.MC_RLIMITS)


def close_range(first: int) -> Step:
    """close_range(2) of every descriptor from ``first`` up."""
    return _call("close_range", first, 0xFFFFFFFF, 0)


def seccomp(program: bytes, flags: str = "0", *, strict: bool = False) -> Step:
    """seccomp(SECCOMP_SET_MODE_FILTER) with a classic BPF program (8 bytes per instruction). ``strict``: the filter may
    forbid every system call but the ``execve`` that follows, so the executable is inspected before it is loaded."""
    text = Struct(program, f"<{len(program) // 8} instructions>")
    return Step("seccomp", (const(flags), len(program) // 8, text, *([1] if strict else [])), lib.MC_SECCOMP)


def chdir(path: str) -> Step:
    """chdir(2); fails with EXDEV if the path leads outside the root."""
    return Step("chdir", (path,), lib.MC_CHDIR)


def open_proc(pid: Slot, into: str) -> Step:
    """open(2) of /proc/PID, where PID is the number in a slot."""
    return Step("open_proc", (pid,), lib.MC_PROC, into=Slot(into))


def id_map(fd: Slot, first: Slot | int, count: Slot | int) -> Step:
    """write(2) to a uid_map or gid_map (user_namespaces(7)): maps ids from 0 on to ``count`` ids from ``first`` on."""
    return Step("write_id_map", (fd, first, count), lib.MC_ID_MAP)


def call_parent(ready: Slot) -> Step:
    """In the child's plan: starts the second part of the parent-side plan (``await_child``)."""
    return _call("write", ready, chr(lib.MC_READY), 1)


def let_go(answer: Slot) -> Step:
    """In the parent-side plan: ends the child's ``wait_for_parent``."""
    return _call("write", answer, chr(lib.MC_GO), 1)


def run(path: str, argv: Sequence[str], pid: Slot, stderr: Slot) -> Step:
    """execve(2) of a program in a child, which must exit with 0 (else ECHILD): ``argv[1]`` is replaced by the number in
    ``pid``; its standard error goes to ``stderr``."""
    return Step("run", (path, string_list("run: argv", argv), pid, stderr), lib.MC_RUN)


def await_child() -> Step:
    """In the parent-side plan: the steps before it run before the clone, the steps after it after ``call_parent``."""
    return Step("await_child", (), lib.MC_CHILD)


def wait_for_parent(go: Slot) -> Step:
    """In the child's plan: waits for the ``let_go`` of the parent-side plan (ECANCELED: that plan failed)."""
    return Step("wait_for_parent", (go,), lib.MC_WAIT)


def send_fd(sock: Slot, fd: Slot) -> Step:
    """sendmsg(2) with SCM_RIGHTS: sends a descriptor to the parent."""
    return Step("send_fd", (sock, fd), lib.MC_SEND_FD)


def fork_sibling(cgroup: Slot | None = None) -> Step:
    """clone3(CLONE_PARENT): the steps after this one run in a second child, which is necessary after joining a pid
    namespace (setns(2)). ``cgroup``: the second child's cgroup (CLONE_INTO_CGROUP)."""
    return Step("clone3", (const("CLONE_PARENT"), -1 if cgroup is None else cgroup), lib.MC_FORK)


def fork_child() -> Step:
    """clone3: the steps after this one run in a child of the child, which becomes an orphan when the child ends."""
    return Step("clone3", (const("0"), -1), lib.MC_FORK)


def execve(paths: Sequence[str], argv: Sequence[str], envp: Sequence[str]) -> Step:
    """execve(2) of the first of ``paths`` that exists, as execvp(3)."""
    lists = string_list("execve: paths", paths), string_list("execve: argv", argv), string_list("execve: envp", envp)
    return Step("execve", lists, lib.MC_EXEC, len(lists[0]))


def execveat(fd: Slot | int, argv: Sequence[str], envp: Sequence[str]) -> Step:
    """execveat(2) of a descriptor."""
    return Step(
        "execveat", (fd, string_list("execveat: argv", argv), string_list("execveat: envp", envp)), lib.MC_EXEC_FD
    )


def failing(step: Step, number: int) -> Step:
    """A step that is printed as ``step``, but fails with errno ``number``: for tests of error handling."""
    return step._replace(op=lib.MC_FAIL, nr=number)


check_arguments(globals())
