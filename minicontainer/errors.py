"""Exceptions with one-line messages: the thing, its value, the reason, and a remedy.

``Error`` is the base class of this package's exceptions. The command line prints it after ``minicontainer: `` and exits
with its ``exit_code`` (125: an error of minicontainer, 126: the program cannot be invoked, 127: it was not found).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    E = TypeVar("E", bound="Error")


# Temporary lack of resources: never a reason to isolate a container less.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)


class Error(Exception):
    """Any error of this package. ``str(error)`` is one line. It can be pickled and copied, with its attributes."""

    exit_code = 125

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without ``__init__``, whose parameters differ by class: all attributes are preserved."""
        args = self.args
        if isinstance(self, OSError):
            args = (self.errno, self.strerror) if self.filename is None else (self.errno, self.strerror, self.filename)
        kind, attributes = _named(type(self)), {name: _plain(value) for name, value in vars(self).items()}
        return _restored, (kind, kind is not type(self), args, attributes)


def _restored(kind: type[Error], by_errno: bool, args: tuple[Any, ...], attributes: dict[str, Any]) -> Error:
    kind = with_errno_class(kind, args[0]) if by_errno else kind
    error: Error = OSError.__new__(kind, *args) if issubclass(kind, OSError) else Exception.__new__(kind, *args)
    vars(error).update(attributes)
    return error


def _named(kind: type[Error]) -> type[Error]:
    """The class that its module defines, instead of a subclass that with_errno_class made."""
    return next(base for base in kind.__mro__ if "_made" not in vars(base))


def _plain(value: object) -> object:
    """A value that can be unpickled in any process: ``value`` of an error may be any object."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else str(value)
    return value if value is None or type(value) in (str, bytes, int, float, bool) else str(value)


class SpecError(Error, ValueError):
    """An invalid spec, detected before any system call. Names the field (or its option), the value and the reason."""

    def __init__(self, what: str, value: object, reason: str, hint: str = "") -> None:
        self.what, self.value, self.reason, self.hint = what, value, reason, hint
        super().__init__(sentence(what, value, reason, hint))


class UnsupportedError(Error):
    """This host does not support a requested feature: the feature, the reason and the remedy."""

    def __init__(self, what: str, value: object, reason: str, hint: str = "") -> None:
        self.what, self.value, self.reason, self.hint = what, value, reason, hint
        super().__init__(sentence(what, value, reason, hint))


class RangeRefusedError(UnsupportedError):
    """This host does not permit root's containers a user namespace with ids of their own."""


class IsolationWarning(UserWarning):
    """A container is less isolated than by default, because the host does not support it."""


class StepError(Error, OSError):
    """A system call failed: an ``OSError`` whose message names the call, its arguments, the reason and a hint.

    It is also an instance of Python's class for the errno: FileNotFoundError, PermissionError, FileExistsError ..."""

    def __new__(cls, number: int, call: str, *, hint: str = "", where: str = "") -> StepError:
        return super().__new__(with_errno_class(cls, number), number, os.strerror(number))

    def __init__(self, number: int, call: str, *, hint: str = "", where: str = "") -> None:
        self.call = call
        self.hint = hint or hint_for(number, call)
        self.where = where

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.call}: {os.strerror(self.errno or 0)}{hint}"


def as_step_error(error: OSError, what: str) -> OSError:
    """The StepError, with a hint, for an OSError of Python. ``what``: the failed operation, if the OSError names no
    file."""
    if isinstance(error, Error) or not error.errno:
        return error
    file = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    return StepError(error.errno, quote(file) if file else what)


_errno_classes: dict[tuple[type[Error], type[OSError]], type[Any]] = {}


def with_errno_class(cls: type[E], number: int) -> type[E]:
    """A subclass of ``cls`` and of Python's class for the errno; cached."""
    builtin = type(OSError(number, ""))
    if issubclass(cls, builtin):
        return cls
    subclass = _errno_classes.get((cls, builtin))
    if subclass is None:
        namespace = {"__module__": cls.__module__, "_made": True}
        subclass = _errno_classes[cls, builtin] = type(cls.__name__, (cls, builtin), namespace)
    return subclass


class ProgramError(Error, OSError):
    """The program cannot be executed in the container. ``exit_code`` 127: not found; 126: it cannot be invoked.

    As in subprocess, it is also a FileNotFoundError if the program is missing, a PermissionError if it may not run."""

    def __new__(cls, number: int, program: str, reason: str, hint: str = "") -> ProgramError:
        kinds = {errno.ENOENT: ProgramNotFoundError, errno.EACCES: ProgramPermissionError}
        kind = kinds.get(number, cls) if cls is ProgramError else cls
        return super().__new__(kind, number, reason, program)

    def __init__(self, number: int, program: str, reason: str, hint: str = "") -> None:
        self.program, self.reason, self.hint = program, reason, hint
        self.exit_code = 127 if number == errno.ENOENT else 126

    def __str__(self) -> str:
        return sentence("program", self.program, self.reason, self.hint)


class ProgramNotFoundError(ProgramError, FileNotFoundError):
    """The program, or its interpreter, does not exist."""


class ProgramPermissionError(ProgramError, PermissionError):
    """The program exists, but may not be executed."""


def sentence(what: str, value: object, reason: str, hint: str = "") -> str:
    """``what value: reason (hint)``, on one line for any value."""
    shown = "" if value is None else f" {quote(str(value))}"
    return f"{what}{shown}: {reason}" + (f" ({hint})" if hint else "")


def quote(text: str) -> str:
    """Text for a one-line message: unchanged if it is printable and has no spaces, else as Python's repr."""
    plain = text and text.isprintable() and not any(c.isspace() for c in text)
    short = text if len(text) <= 200 else f"{text[:180]}...({len(text)} characters)"
    return short if plain else repr(short)


# (errno, call) -> hint; the call "" matches any. Only for misleading errno values.
HINTS: dict[tuple[int, str], str] = {
    (errno.EPERM, "clone3"): (
        "creating these namespaces needs CAP_SYS_ADMIN; without it a user namespace must be among them:"
        " --userns private"
    ),
    (errno.EPERM, "open_tree"): "copying a mount needs CAP_SYS_ADMIN",
    (errno.EINVAL, "clone3"): "the kernel refuses this set of namespaces; is each of them compiled in?",
    (errno.ENOSPC, "clone3"): "a namespace limit is reached: see sysctl user.max_*_namespaces",
    (errno.EUSERS, "clone3"): "user namespaces are nested too deeply (32 levels)",
    (errno.EAGAIN, "clone3"): "a process limit is reached: ulimit -u, pids.max, kernel.pid_max",
    (errno.EBUSY, "clone3"): "the container's cgroup has children with controllers enabled",
    (errno.EPERM, "fsmount"): (
        "in a user namespace, /proc or /sys can only be mounted if no mounts cover parts of the caller's own (in a"
        " container: give that one --privileged), and if the caller has one (else --userns host)"
    ),
    (errno.EINVAL, "pivot_root"): "the root file system must be a mount point that is not shared",
    (errno.EINVAL, "mount_setattr"): "the file system does not support ID-mapped mounts",
    (errno.EPERM, "setgroups"): "supplementary groups need a mapped range of ids: newuidmap and /etc/subgid",
    (errno.EINVAL, "setresuid"): "the user id has no mapping in this user namespace",
    (errno.EINVAL, "setresgid"): "the group id has no mapping in this user namespace",
    (errno.EINVAL, "setgroups"): "a group id has no mapping in this user namespace",
    (errno.EINVAL, "netlink"): "the bridge has been removed; the next start creates it again",
    (errno.EXFULL, "netlink"): "a bridge has at most 1,023 ports: use another network",
    (errno.EOPNOTSUPP, "netlink"): "a kernel module is missing: modprobe veth bridge nf_tables",
    (errno.EBUSY, "KVM_CREATE_VM"): "another hypervisor uses this processor's virtualisation: VirtualBox, VMware?",
    (errno.ENOTTY, "KVM_CREATE_VM"): "/dev/kvm is not KVM's device, which has the number 10:232",
    (errno.ENOMEM, "KVM_CREATE_VM"): "the kernel lacks memory for another machine",
    (errno.EINVAL, "KVM_CREATE_PIT2"): "this KVM has no interval timer; only guests with interrupts need one",
    (errno.ENOTTY, "KVM_CREATE_PIT2"): "this KVM has no interval timer; only guests with interrupts need one",
    (errno.EINVAL, "KVM_SET_SREGS"): "this KVM refuses that state of the processor: another --mode may do",
    (errno.EDQUOT, "keyctl"): "the keyring quota is exhausted: sysctl kernel.keys.maxkeys",
    (errno.EMFILE, ""): "the limit of open descriptors is reached: ulimit -n",
    (errno.ENOSYS, ""): "this kernel does not have the call",
}


def hint_for(number: int, call: str) -> str:
    """The remedy for a misleading errno of a call (written ``name(...)``, ``slot = name(...)`` or ``name``), or ""."""
    name = call.split("(", 1)[0].rpartition(" = ")[2]
    return HINTS.get((number, name)) or HINTS.get((number, ""), "")
