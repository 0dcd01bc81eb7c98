"""What is to run, as immutable data: ``Spec`` and its parts. No system calls; a mistake is a ``SpecError`` here.

Texts are taken as docker's command line takes them (``"64M"``, ``"src:dst:ro"``, ``"nofile=1024:2048"``), so that the
command line and a script say the same; sizes are bytes, times seconds.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from minicontainer.errors import SpecError, quote

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
HOSTNAME_MAX = 64  # sethostname(2): HOST_NAME_MAX
ID_MAX = 2**32 - 2  # 2^32-1 is "no change" to setresuid(2)
UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}")
SIGNAL_MAX = 64  # signal(7): the highest real-time signal
SECONDS_MAX = 10**9

# getrlimit(2), by docker's names: the number is the kernel's, the same on every architecture we know.
RLIMITS = {
    name: number
    for number, name in enumerate(
        "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split()
    )
}

# capabilities(7), in the kernel's order.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT"
    " SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL"
    " SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

# docker's fourteen (0xa80425fb).
DEFAULT_CAPABILITIES = frozenset(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    " AUDIT_WRITE".split()
)

# sysctl(8) names that a namespace keeps to itself, and the namespace they need.
NAMESPACED_SYSCTLS = (
    ("net.", "network"),
    ("kernel.msgmax", "ipc"),
    ("kernel.msgmnb", "ipc"),
    ("kernel.msgmni", "ipc"),
    ("kernel.sem", "ipc"),
    ("kernel.shm", "ipc"),
    ("fs.mqueue.", "ipc"),
    ("kernel.domainname", "uts"),
)


# ---- texts and numbers


def text(what: str, value: object, *, empty: bool = False) -> str:
    """A string that the kernel can take: no NUL byte in it."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise SpecError(what, value, f"must be a string, not {type(value).__name__}")
    if "\0" in value:
        raise SpecError(what, value, "holds a NUL byte")
    if not value and not empty:
        raise SpecError(what, value, "is empty")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise SpecError(what, value, "holds half a character (a lone surrogate)") from None
    return value


def size(what: str, value: int | str, *, least: int = 1) -> int:
    """Bytes of ``1024``, ``64M``, ``1.5g``: powers of 1024, as docker's."""
    number = value
    if isinstance(value, str):
        match = SIZE.fullmatch(value.strip())
        unit = UNITS[match[2].lower()] if match else 1
        number = (int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit) if match else "no number"
    if isinstance(number, bool) or not isinstance(number, int):
        raise SpecError(what, value, "is no size", "bytes, or a number with b, k, m, g or t")
    if not least <= number < 2**63:
        raise SpecError(what, value, f"must be at least {least} and below 2^63 bytes")
    return number


def whole(what: str, value: object, least: int, most: int, unit: str = "") -> int:
    """A whole number within bounds; digits in a string are taken too."""
    unit = f" {unit}" if unit else ""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value):
        number = int(value)
    if number is None or not least <= number <= most:
        raise SpecError(what, value, f"must be a whole number{unit} from {least} to {most}")
    return number


def decimal(what: str, value: object, least: float, most: float, unit: str) -> float:
    """A number within bounds; a string such as ``1.5`` is taken too."""
    number: float = math.nan
    if isinstance(value, str):
        number = float(value) if DECIMAL.fullmatch(value) else math.nan
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    if not least <= number <= most:
        raise SpecError(what, value, f"must be a number of {unit} from {least} to {most}")
    return float(number)


def absolute(what: str, value: object) -> str:
    """An absolute path of the container; ``..`` cannot lead above its root (the kernel clamps it there)."""
    path = text(what, value)
    if not path.startswith("/"):
        raise SpecError(what, path, "must be an absolute path in the container")
    return path


def distinct(what: str, targets: list[str]) -> None:
    """No path of the container may be given twice: the one would hide the other."""
    for target in targets:
        if targets.count(target) > 1:
            raise SpecError(what, target, "is given more than once")


def cpu_list(what: str, value: object) -> str:
    """``0-2,5``, as in cpuset(7) "List format"."""
    value = text(what, value)
    for part in value.split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise SpecError(what, value, "is no list of CPUs", "for example 0-2,5")
    return value


@contextmanager
def said_of(what: str, value: str) -> Iterator[None]:
    """An error about a part of an option's value is said of the whole value, as it was typed."""
    try:
        yield
    except SpecError as e:
        part = e.what.split()[-1]
        detail = e.reason if e.value is None or str(e.value) == value else f"{part} {quote(str(e.value))} {e.reason}"
        raise SpecError(what, value, detail, e.hint) from None


# ---- parts


@dataclass(frozen=True)
class Mount:
    """One mount of the container: ``bind`` (``source`` on the host) or ``tmpfs`` (``size`` bytes, ``mode``)."""

    target: str
    source: str | None = None
    type: str = "bind"
    readonly: bool = False
    size: int | str | None = None
    mode: int | None = None
    options: frozenset[str] = frozenset()

    OPTIONS = frozenset({"exec", "noexec", "suid", "nosuid", "dev", "nodev"})

    def __post_init__(self) -> None:
        absolute("mount target", self.target)
        if os.path.normpath(self.target) == "/":
            raise SpecError("mount target", self.target, "is the root itself", "give it as ROOTFS")
        if self.type == "bind":
            self._check_bind()
        elif self.type == "tmpfs":
            self._check_tmpfs()
        else:
            raise SpecError("mount type", self.type, "must be bind or tmpfs")
        object.__setattr__(self, "options", frozenset(self.options))
        for option in sorted(self.options):
            if option not in self.OPTIONS:
                raise SpecError("mount option", option, f"must be one of {' '.join(sorted(self.OPTIONS))}")
            if f"no{option}" in self.options:
                raise SpecError("mount option", option, f"cannot be with no{option}")

    def _check_bind(self) -> None:
        text("mount source", self.source)
        if self.size is not None or self.mode is not None:
            raise SpecError("mount target", self.target, "a bind has no size or mode of its own", "type=tmpfs")

    def _check_tmpfs(self) -> None:
        if self.source:
            raise SpecError("mount source", self.source, "a tmpfs has none")
        if self.size is not None:
            object.__setattr__(self, "size", size("tmpfs size", self.size, least=4096))
        if self.mode is not None and not 0 <= self.mode <= 0o7777:
            raise SpecError("tmpfs mode", oct(self.mode), "must be from 0 to 7777, in octal")

    @classmethod
    def volume(cls, value: str) -> Mount:
        """``src:dst[:ro|rw]``; a relative ``src`` is the caller's, as podman takes ``./src``."""
        parts = text("volume", value).split(":")
        if len(parts) not in (2, 3) or not all(parts):
            raise SpecError("volume", value, "must be SOURCE:TARGET[:ro]")
        source, target, *rest = parts
        modes = rest[0].split(",") if rest else []
        for mode in modes:
            if mode not in ("ro", "rw", *cls.OPTIONS):
                raise SpecError("volume", value, f"unknown option {mode!r}", "ro, rw, exec, noexec, suid, dev ...")
        if {"ro", "rw"} <= set(modes):
            raise SpecError("volume", value, "cannot be both ro and rw")
        options = frozenset(modes) - {"ro", "rw"}
        with said_of("volume", value):
            return cls(target, os.path.abspath(source), readonly="ro" in modes, options=options)

    @classmethod
    def option(cls, value: str) -> Mount:
        """docker's ``--mount type=bind,source=/a,target=/b,readonly``."""
        known = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
        fields: dict[str, Any] = {"type": "bind"}
        for item in text("mount", value).split(","):
            key, equals, given = item.partition("=")
            key = known.get(key, key)
            if key == "readonly" and given in ("", "true", "1", "false", "0"):
                fields[key] = given in ("", "true", "1")
            elif key in ("type", "source", "target") and equals:
                fields[key] = given
            elif key == "tmpfs-size" and equals:
                fields["size"] = given
            elif key == "tmpfs-mode" and re.fullmatch(r"[0-7]{1,4}", given):
                fields["mode"] = int(given, 8)
            else:
                raise SpecError("mount", value, f"unknown item {item!r}", "type, source, target, readonly, tmpfs-size")
        if "target" not in fields:
            raise SpecError("mount", value, "has no target")
        if fields["type"] == "bind":
            if not fields.get("source"):
                raise SpecError("mount", value, "has no source")
            fields["source"] = os.path.abspath(fields["source"])
        with said_of("mount", value):
            return cls(**fields)

    @classmethod
    def tmpfs(cls, value: str) -> Mount:
        """docker's ``--tmpfs /path[:size=64m,mode=1777,ro,noexec]``."""
        target, _, given = text("tmpfs", value).partition(":")
        fields: dict[str, Any] = {}
        options = set()
        for item in filter(None, given.split(",")):
            key, _, number = item.partition("=")
            if key == "size":
                fields["size"] = number
            elif key == "mode" and re.fullmatch(r"[0-7]{1,4}", number):
                fields["mode"] = int(number, 8)
            elif item in ("ro", "rw"):
                fields["readonly"] = item == "ro"
            elif item in cls.OPTIONS:
                options.add(item)
            else:
                raise SpecError("tmpfs", value, f"unknown option {item!r}", "size=, mode=, ro, exec, noexec ...")
        with said_of("tmpfs", value):
            return cls(target, type="tmpfs", options=frozenset(options), **fields)


@dataclass(frozen=True)
class Device:
    """A device node of the host shown in the container, at a path below /dev.

    ``access`` is of r, w and m, as in the devices controller; less than ``rw`` needs a device filter, which is not
    there yet, and is refused."""

    source: str
    target: str
    access: str = "rwm"

    def __post_init__(self) -> None:
        shown = f"{self.source}:{self.target}:{self.access}"
        absolute("device", self.source)
        target = os.path.normpath(absolute("device", self.target))
        if not target.startswith("/dev/"):
            raise SpecError("device", shown, "must be below /dev in the container")
        object.__setattr__(self, "target", target)
        if not self.access or set(self.access) - set("rwm"):
            raise SpecError("device", shown, "access must be of r, w and m")
        if not {"r", "w"} <= set(self.access):
            raise SpecError("device", shown, "access cannot be restricted to less than rw yet", "leave it out")

    @classmethod
    def option(cls, value: str) -> Device:
        """``/dev/x[:/dev/y[:rwm]]``."""
        parts = text("device", value).split(":")
        if len(parts) > 3:
            raise SpecError("device", value, "must be HOST[:CONTAINER[:rwm]]")
        if len(parts) == 2 and not parts[1].startswith("/"):
            return cls(parts[0], parts[0], parts[1])
        return cls(parts[0], parts[1] if len(parts) > 1 else parts[0], *parts[2:])


@dataclass(frozen=True)
class Ulimit:
    """One resource limit (getrlimit(2)); -1 is unlimited."""

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if self.name not in RLIMITS:
            raise SpecError("ulimit", self.name, "is no resource limit", " ".join(RLIMITS))
        for value in (self.soft, self.hard):
            whole(f"ulimit {self.name}", value, -1, 2**63 - 1)
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise SpecError("ulimit", f"{self.name}={self.soft}:{self.hard}", "the soft limit is above the hard one")

    @classmethod
    def option(cls, value: str) -> Ulimit:
        """``nofile=1024[:2048]``; ``unlimited`` or -1."""
        name, equals, given = text("ulimit", value).partition("=")
        numbers = [("-1" if part == "unlimited" else part) for part in given.split(":")]
        if not equals or len(numbers) > 2 or not all(re.fullmatch(r"-1|[0-9]{1,19}", n) for n in numbers):
            raise SpecError("ulimit", value, "must be NAME=SOFT[:HARD]", "whole numbers or unlimited")
        return cls(name, int(numbers[0]), int(numbers[-1]))


@dataclass(frozen=True)
class DeviceRate:
    """A limit of one block device: ``rate`` bytes or operations per second."""

    path: str
    rate: int

    @classmethod
    def option(cls, what: str, value: str, *, bytes_per_second: bool) -> DeviceRate:
        """``/dev/sda:1m`` or ``/dev/sda:1000``."""
        path, colon, rate = text(what, value).rpartition(":")
        if not colon or not path.startswith("/"):
            raise SpecError(what, value, "must be /DEVICE:RATE")
        number = size(what, rate) if bytes_per_second else whole(what, rate, 1, 2**63 - 1, "of operations a second")
        return cls(path, number)


@dataclass(frozen=True)
class Limits:
    """What the container's cgroup may use. None: no limit. Sizes in bytes (or ``"64M"``), ``cpus`` a number of CPUs."""

    memory: int | str | None = None
    memory_swap: int | str | None = None  # memory and swap together, as docker's; -1 unlimited
    memory_reservation: int | str | None = None
    cpus: float | str | None = None
    cpu_shares: int | str | None = None  # docker's 2 to 262144; 1024 is the default weight
    cpuset_cpus: str | None = None
    pids: int | str | None = None  # -1: unlimited
    blkio_weight: int | str | None = None  # docker's 10 to 1000
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if self.memory is not None:
            put("memory", size("memory", self.memory, least=4096))
        if self.memory_reservation is not None:
            put("memory_reservation", size("memory-reservation", self.memory_reservation, least=4096))
            if self.memory is not None and int(self.memory_reservation) > int(self.memory):
                raise SpecError("memory-reservation", self.memory_reservation, f"is above memory ({self.memory})")
        if self.memory_swap is not None:
            put("memory_swap", self._swap())
        if self.cpus is not None:
            put("cpus", decimal("cpus", self.cpus, 0.01, 100_000, "CPUs"))
        if self.cpu_shares is not None:
            put("cpu_shares", whole("cpu-shares", self.cpu_shares, 2, 262144))
        if self.cpuset_cpus is not None:
            cpu_list("cpuset-cpus", self.cpuset_cpus)
        if self.pids is not None:
            put("pids", whole("pids-limit", self.pids, -1, 2**22, "of processes (-1: unlimited)"))
            if self.pids == 0:
                raise SpecError("pids-limit", 0, "must be at least 1 (or -1: unlimited)")
        if self.blkio_weight is not None:
            put("blkio_weight", whole("blkio-weight", self.blkio_weight, 10, 1000))

    def _swap(self) -> int:
        if self.memory_swap in (-1, "-1"):
            return -1
        total = size("memory-swap", self.memory_swap)  # type: ignore[arg-type]
        if self.memory is None:
            raise SpecError("memory-swap", total, "needs a limit of memory", "--memory")
        if total < int(self.memory):
            raise SpecError("memory-swap", total, f"is below memory ({self.memory})", "it is memory and swap together")
        return total

    def __bool__(self) -> bool:
        return self != Limits()


# ---- the whole


@dataclass(frozen=True)
class Spec:
    """One container to be: immutable, checked when it is made. ``replace(spec, ...)`` gives a changed copy.

    args         what to run; args[0] is found by the container's PATH (empty: /bin/sh)
    rootfs       directory that becomes ``/``
    ephemeral    rootfs is the lower layer of an overlay whose changes vanish
    user         ``NAME|UID[:GROUP|GID]``, names looked up in the container's /etc/passwd and /etc/group
    network      ``none`` or ``host``; this and ``pid ipc uts userns cgroupns timens`` also take ``ns:PATH`` (a
                 /proc/PID/ns file) or ``pid:N`` (that process's)
    userns       ``host``, ``private`` (the caller is root inside, with further ids where newuidmap gives them),
                 ``keep-id`` (the caller is itself inside); None: ``host`` for root, else ``private``
    """

    args: Sequence[str] = ()  # kept as a tuple
    rootfs: str = ""
    ephemeral: bool = False
    name: str | None = None
    hostname: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str | None = None
    group_add: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    shm_size: int | str = 64 * 2**20
    devices: tuple[Device, ...] = ()
    init: bool = False
    tty: bool = False
    limits: Limits = Limits()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: str | None = None  # None or "unconfined": no filter; else a file of compiled classic BPF
    no_new_privileges: bool = True
    privileged: bool = False
    network: str = "none"
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    cgroupns: str = "private"
    timens: str = "host"
    userns: str | None = None
    stop_signal: str = "TERM"
    stop_timeout: float = 10.0
    oom_score_adj: int | None = None
    umask: int = 0o022
    die_with_parent: bool = False

    def __post_init__(self) -> None:
        self._check_program()
        self._check_identity()
        self._check_environment()
        self._check_kernel_settings()
        self._check_namespaces()

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_program(self) -> None:
        if isinstance(self.args, (str, bytes)):
            raise SpecError("args", self.args, "must be a sequence of strings", "as subprocess takes them")
        args = tuple(text("argument", os.fspath(a), empty=True) for a in self.args)
        self._put("args", args or ("/bin/sh",))
        rootfs = text("rootfs", self.rootfs)
        self._put("rootfs", os.path.abspath(rootfs))
        self._put("cwd", absolute("workdir", self.cwd))
        self._put("mounts", tuple(self.mounts))
        self._put("devices", tuple(self.devices))
        distinct("target", [os.path.normpath(mount.target) for mount in self.mounts])
        distinct("device", [device.target for device in self.devices])

    def _check_identity(self) -> None:
        if self.name is not None and not NAME.fullmatch(text("name", self.name, empty=True)):
            raise SpecError("name", self.name, f"must match {NAME.pattern}")
        if self.hostname is not None:
            text("hostname", self.hostname)
            if len(os.fsencode(self.hostname)) > HOSTNAME_MAX:
                raise SpecError("hostname", self.hostname, f"is longer than {HOSTNAME_MAX} bytes")
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", self.hostname):
                raise SpecError("hostname", self.hostname, "must be of letters, digits, - _ and .")
        if self.user is not None:
            check_user("user", self.user)
        self._put("group_add", tuple(self.group_add))
        for group in self.group_add:
            check_id("group-add", group)

    def _check_environment(self) -> None:
        env = {}
        for key, value in dict(self.env).items():
            if "=" in text("env", key):
                raise SpecError("env", key, "a name cannot hold =")
            env[key] = text(f"env {key}", value, empty=True)
        self._put("env", env)

    def _check_kernel_settings(self) -> None:
        self._put("shm_size", size("shm-size", self.shm_size, least=4096))
        self._put("ulimits", tuple(self.ulimits))
        for what, names in (("cap-add", self.cap_add), ("cap-drop", self.cap_drop)):
            for name in names:
                capability(what, name)
        self._put("cap_add", tuple(self.cap_add))
        self._put("cap_drop", tuple(self.cap_drop))
        whole("umask", self.umask, 0, 0o777)
        if self.oom_score_adj is not None:
            whole("oom-score-adj", self.oom_score_adj, -1000, 1000)
        signal_number("stop-signal", self.stop_signal)
        self._put("stop_timeout", decimal("stop-timeout", self.stop_timeout, 0, SECONDS_MAX, "seconds"))
        if self.seccomp and self.seccomp.endswith(".json"):
            raise SpecError("seccomp", self.seccomp, "JSON profiles are not read yet", "unconfined, or compiled BPF")

    def _check_namespaces(self) -> None:
        plain = {"network": ("none", "host"), "userns": ("private", "host", "keep-id")}
        for kind in ("network", "pid", "ipc", "uts", "cgroupns", "timens", "userns"):
            value = getattr(self, kind)
            choices = plain.get(kind, ("private", "host"))
            if kind == "userns" and value is None:
                continue
            if value not in choices and not re.fullmatch(r"ns:/.+|pid:[1-9][0-9]{0,9}", text(kind, value)):
                raise SpecError(kind, value, f"must be {', '.join(choices)}, ns:PATH or pid:N")
        if self.hostname is not None and self.uts != "private":
            raise SpecError("hostname", self.hostname, f"cannot be set with uts={self.uts}", "uts=private")
        for key, value in self.sysctls.items():
            check_sysctl(key, value, self)

    def capabilities(self, permitted: int = -1) -> int:
        """The capability mask (bit N: capability N) that the program gets: ``--privileged`` and ALL mean all that are
        in ``permitted``, the caller's."""
        names = set(CAPABILITIES if self.privileged else DEFAULT_CAPABILITIES)
        add = {capability("cap-add", name) for name in self.cap_add}
        drop = {capability("cap-drop", name) for name in self.cap_drop}
        names = set(CAPABILITIES) if "ALL" in add else names
        if self.wants_all:
            names = {name for name in names if permitted >> CAPABILITIES.index(name) & 1}
        names = (set() if "ALL" in drop else names) | (add - {"ALL"})
        names -= drop
        return sum(1 << CAPABILITIES.index(name) for name in names)

    @property
    def wants_all(self) -> bool:
        """Whether it asks for all capabilities without naming them."""
        return self.privileged or any(capability("cap-add", name) == "ALL" for name in self.cap_add)

    def joined(self, kind: str) -> str | None:
        """The path of the namespace to join for ``kind`` (a field name), or None for private and host."""
        value = getattr(self, kind) or ""
        files = {"network": "net", "userns": "user", "cgroupns": "cgroup", "timens": "time"}
        if value.startswith("pid:"):
            return f"/proc/{value[4:]}/ns/{files.get(kind, kind)}"
        return value[3:] if value.startswith("ns:") else None


def capability(what: str, name: str) -> str:
    """``NET_ADMIN`` of ``net_admin``, ``CAP_NET_ADMIN``; ``ALL`` stays."""
    short = text(what, name).upper().removeprefix("CAP_")
    if short != "ALL" and short not in CAPABILITIES:
        raise SpecError(what, name, "is no capability", "see capabilities(7), or ALL")
    return short


def signal_number(what: str, name: str) -> int:
    """15 of ``TERM``, ``SIGTERM``, ``15``; also ``RTMIN+3``."""
    short = text(what, name).upper().removeprefix("SIG")
    if re.fullmatch(r"[0-9]{1,2}", short):
        return whole(what, name, 1, SIGNAL_MAX)
    if match := re.fullmatch(r"RTMIN\+([0-9]{1,2})", short):
        number = signal.SIGRTMIN + int(match[1])
    else:
        number = getattr(signal.Signals, f"SIG{short}", 0)
    if not 1 <= number <= SIGNAL_MAX:
        raise SpecError(what, name, "is no signal", "such as TERM, SIGINT, 15 or RTMIN+3")
    return int(number)


def check_id(what: str, value: str) -> None:
    """A numeric id in range, or a name to be looked up later."""
    text(what, value)
    if re.fullmatch(r"[+-]?[0-9]+", value):
        whole(what, value, 0, ID_MAX)


def check_user(what: str, value: str) -> None:
    """``NAME|UID[:GROUP|GID]``."""
    user, colon, group = text(what, value).partition(":")
    if not user or (colon and not group) or ":" in group:
        raise SpecError(what, value, "must be NAME|UID[:GROUP|GID]")
    check_id(what, user)
    if group:
        check_id(what, group)


def check_sysctl(key: str, value: str, spec: Spec) -> None:
    """Only what a namespace of the container's own keeps apart: the host's are not its to set."""
    text("sysctl", value)
    if not re.fullmatch(r"[a-zA-Z0-9_-]+([./][a-zA-Z0-9_-]+)+", text("sysctl", key)):
        raise SpecError("sysctl", key, "must be NAME=VALUE", "as in net.ipv4.ip_forward=1")
    for prefix, kind in NAMESPACED_SYSCTLS:
        if key.replace("/", ".").startswith(prefix):
            if getattr(spec, kind) == "host":
                raise SpecError("sysctl", key, f"is the host's with {kind}=host")
            return
    raise SpecError("sysctl", key, "is the host's: no namespace keeps it apart")


def parse_env(items: Iterable[str], caller: Mapping[str, str] = os.environ, what: str = "env") -> dict[str, str]:
    """docker's ``KEY=VALUE``; ``KEY`` alone copies the caller's, and leaves it out where the caller has none."""
    env: dict[str, str] = {}
    for item in items:
        key, equals, value = text(what, item, empty=True).partition("=")
        if not key:
            raise SpecError(what, item, "has no name", "KEY=VALUE, or KEY to copy the caller's")
        if equals:
            env[key] = value
        elif key in caller:
            env[key] = caller[key]
    return env


def make(args: Sequence[str] | Spec, **fields: Any) -> Spec:
    """The spec that ``run``, ``Popen`` and the asyncio form are given: a Spec (with changes), or its fields."""
    if isinstance(args, Spec):
        return replace(args, **fields) if fields else args
    unknown = set(fields) - set(Spec.__dataclass_fields__)
    if unknown:
        raise TypeError(f"unexpected keyword argument {sorted(unknown)[0]!r}")
    return Spec(args if isinstance(args, (str, bytes)) else tuple(args), **fields)
