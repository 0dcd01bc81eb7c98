"""``Spec``: a container, immutable and checked when it is created."""

from __future__ import annotations

import os

from minicontainer.errors import SpecError
from minicontainer.records import defaults, names, replace
from minicontainer.spec import family
from minicontainer.spec.convert import mapping, sequence
from minicontainer.spec.limits import NO_LIMITS, Limits
from minicontainer.spec.normalize import limits, normalize
from minicontainer.spec.values import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    HOSTNAME_MAX,
    NAME_PATTERN,
    NO_NETWORKS,
    OUTSIDE_MAX,
    SECONDS_MAX,
    absolute,
    capability,
    check_id,
    check_user,
    decimal,
    distinct,
    is_digits,
    is_name,
    is_range,
    is_word,
    network_name,
    parse_env,
    signal_number,
    size,
    text,
    whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import dataclass, field
    from typing import Any

    from minicontainer.spec.network import Port
    from minicontainer.spec.parts import Device, Mount, Ulimit
else:
    from minicontainer.records import dataclass, field

# (prefix of a namespaced sysctl, the field of the namespace that it belongs to)
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
ISOLATIONS = ("container", "kvm")
ROOT_IMAGES = ("erofs", "ext4")
SYSCTLS = " ".join(f"{name}*" if name.endswith((".", "shm")) else name for name, _ in NAMESPACED_SYSCTLS)


@dataclass(frozen=True)
class Spec:
    """A container: immutable, checked when it is created. ``replace(spec, ...)`` returns a changed copy. Its
    mappings are read-only dicts: ``replace(spec, env={**spec.env, "A": "1"})``.

    args         the program and its arguments; args[0] is looked up in the container's PATH (empty: /bin/sh)
    executable   a static program of the host, executed from a sealed copy instead of args[0]
    rootfs       the directory that becomes ``/``
    isolation    ``container``, or ``kvm``: a virtual machine with a kernel of its own, which sees rootfs and mounts
                 through a file server
    kernel       with ``kvm``: a kernel's file, or the name of a kernel that was added; None: the host's own, or the
                 newest
    root_image   with ``kvm``, and ``ephemeral`` or ``read_only``: ``erofs`` or ``ext4``, the file system of an image
                 that is made of rootfs, once for each state of it; the guest reads it as a disk
    ephemeral    rootfs is the lower layer of an overlay, whose upper layer vanishes with the container
    user         ``[NAME|UID][:GROUP|GID]`` or a number, looked up in the container's /etc/passwd and /etc/group.
                 Without a group, the program gets the user's group and supplementary groups
    group_add    further groups, by name or number
    seccomp      None: the default profile (none with ``privileged``); ``unconfined``: none; else a file: a profile
                 in JSON, or compiled classic BPF
    network      ``none``, ``host``, ``bridge`` (the default with ``ports``), another network's name, or
                 ``container:NAME``; this and ``pid ipc uts userns cgroupns`` also take ``ns:PATH`` (a /proc/PID/ns
                 file) or ``pid:N`` (the namespace of process N)
    no_new_suid  refuses set-uid and set-gid bits and file capabilities, with which a file in a volume would run with
                 its owner's rights on the host; None: with ``read_only``, and where the program is not root, since
                 only root installs packages
    ports        the published ports
    ip, mac_address  the container's addresses on its network, instead of free ones
    dns          the name servers, instead of the host's
    add_hosts    further lines of /etc/hosts: name -> address, or ``host-gateway``
    userns       ``private`` (root inside is another id outside: with root as caller, the first of 65,536 ids from
                 /etc/subuid that no other container has; with an ordinary user, the caller, with further ids where
                 newuidmap maps them), ``UID:GID:COUNT`` (a range that root chooses), ``keep-id`` (the caller has the
                 same id inside), ``host``; ``auto`` and None: ``private``, or ``host`` where this host cannot give
                 root's container a user namespace (IsolationWarning), with ``privileged``, and with joined namespaces
    timens       ``host`` or ``private``; ``auto``: private where the kernel enters it at exec (Linux 6.3)
    """

    args: Sequence[str] = ()  # stored as a tuple
    rootfs: str = ""
    executable: str | None = None
    isolation: str = "container"
    kernel: str | None = None
    root_image: str | None = None
    ephemeral: bool = False
    name: str | None = None
    hostname: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str | int | None = None
    group_add: tuple[str | int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    shm_size: int | str = 64 * 2**20
    devices: tuple[Device, ...] = ()
    init: bool = False
    tty: bool = False
    limits: Limits = NO_LIMITS
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: str | None = None
    no_new_privileges: bool = True
    no_new_suid: bool | None = None
    privileged: bool = False
    network: str = "none"
    ports: tuple[Port, ...] = ()
    ip: str | None = None
    mac_address: str | None = None
    dns: tuple[str, ...] = ()
    add_hosts: Mapping[str, str] = field(default_factory=dict)
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    cgroupns: str = "private"
    timens: str = "auto"
    userns: str | None = None
    stop_signal: str = "TERM"
    stop_timeout: float = 10.0
    oom_score_adj: int | None = None
    umask: int = 0o022
    die_with_parent: bool = False

    def __post_init__(self) -> None:
        key = family.key_of(self.__dict__, DEFAULTS)
        shared = family.find(key)
        if shared is None:
            self.__dict__.update(normalize(self.__dict__))
            self._check_files()
            self._check_identity()
            self._check_kernel_settings()
            self._check_namespaces()
            self._check_own()
            shared = family.Family(self.__dict__)
            family.add(key, shared)
        else:
            self.__dict__.update(shared.fields)
            self._check_own()
        self._put("_family", shared)

    def __getstate__(self) -> dict[str, Any]:
        """The fields, without the values that are cached beside them."""
        return {name: getattr(self, name) for name in names(Spec)}

    @property
    def family(self) -> family.Family:
        """What all specs share that differ from this one in family.CHANGING alone."""
        if "_family" not in self.__dict__:  # a copy, or unpickled
            self._put("_family", family.Family(self.__dict__))
        shared: family.Family = self.__dict__["_family"]
        return shared

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_own(self) -> None:
        """Checks the fields of family.CHANGING."""
        args = tuple([text(f"args[{i}]", a, empty=True) for i, a in enumerate(sequence("args", self.args))])
        env = mapping("env", self.env, parse_env)
        self.__dict__.update(args=args or ("/bin/sh",), cwd=absolute("cwd", self.cwd), env=env)
        self._check_names()
        for key, value in env.items():
            if "=" in text("env", key):
                raise SpecError("env", key, "a name cannot hold =")
            text(f"env {key}", value, empty=True)
        if self.limits is not NO_LIMITS:
            self._put("limits", limits(self.limits))

    def _check_names(self) -> None:
        if self.name is not None and not is_name(text("name", self.name, empty=True)):
            raise SpecError("name", self.name, f"must match {NAME_PATTERN}")
        if self.hostname is None:
            return
        if self.uts != "private":
            raise SpecError("hostname", self.hostname, f"cannot be set with uts={self.uts}", "uts=private")
        name = text("hostname", self.hostname)
        if len(os.fsencode(name)) > HOSTNAME_MAX:
            raise SpecError("hostname", name, f"is longer than {HOSTNAME_MAX} bytes")
        if not (is_word(name, "._-") and is_word(name[0] + name[-1], "")):
            raise SpecError("hostname", name, "must be of letters, digits, - _ and .")

    def _check_files(self) -> None:
        rootfs = text("rootfs", self.rootfs, empty=True)
        if not rootfs:
            raise SpecError("rootfs", None, "none was given", "a directory to be its root, such as rootfs='/srv/x'")
        self._put("rootfs", os.path.abspath(rootfs))
        if self.executable is not None:
            self._put("executable", absolute("executable", self.executable))
            if self.init:
                raise SpecError("init", None, "cannot be combined with a program of the host's", "leave init out")
        self._check_isolation()
        distinct("mounts", [os.path.normpath(mount.target) for mount in self.mounts])
        distinct("devices", [device.target for device in self.devices])

    def _check_isolation(self) -> None:
        if self.isolation not in ISOLATIONS:
            raise SpecError("isolation", self.isolation, f"must be {' or '.join(ISOLATIONS)}")
        if self.root_image is not None:
            self._check_root_image(text("root_image", self.root_image))
        if self.kernel is None:
            return
        kernel = text("kernel", self.kernel)
        if self.isolation == "container":
            raise SpecError("kernel", kernel, "is for a virtual machine: a container has the host's", "--isolation kvm")
        self._put("kernel", os.path.abspath(kernel) if "/" in kernel else kernel)

    def _check_root_image(self, kind: str) -> None:
        if kind not in ROOT_IMAGES:
            raise SpecError("root_image", kind, f"must be {' or '.join(ROOT_IMAGES)}")
        if self.isolation == "container":
            reason = "is for a virtual machine: a container has ROOTFS itself"
            raise SpecError("root_image", kind, reason, "--isolation kvm")
        if not (self.ephemeral or self.read_only):
            raise SpecError("root_image", kind, "is read-only: changes would be lost", "--ephemeral or --read-only")

    def _check_identity(self) -> None:
        if self.user is not None:
            self._put("user", check_user("user", self.user))
        self._put("group_add", tuple(check_id(f"group_add[{i}]", group) for i, group in enumerate(self.group_add)))

    def _check_kernel_settings(self) -> None:
        self._put("shm_size", size("shm_size", self.shm_size, least=4096))
        for what, listed in (("cap_add", self.cap_add), ("cap_drop", self.cap_drop)):
            for i, name in enumerate(listed):
                capability(f"{what}[{i}]", name)
        if self.no_new_suid and "SETFCAP" in map(_capability, self.cap_add):
            raise SpecError("cap_add", "SETFCAP", "cannot be combined with no-new-suid", "no-new-suid=false")
        if isinstance(self.umask, str):
            raise SpecError("umask", self.umask, "must be a number", "0o022")  # digits alone may be octal or decimal
        whole("umask", self.umask, 0, 0o777)
        if self.oom_score_adj is not None:
            self._put("oom_score_adj", whole("oom_score_adj", self.oom_score_adj, -1000, 1000))
        signal_number("stop_signal", self.stop_signal)
        self._put("stop_timeout", decimal("stop_timeout", self.stop_timeout, 0, SECONDS_MAX, "seconds"))
        if self.seccomp is not None:
            self._put("seccomp", text("seccomp", self.seccomp))

    def _check_namespaces(self) -> None:
        plain = {"network": ("none", "host", "bridge"), "userns": ("auto", "private", "host", "keep-id")}
        further = {"network": ("another network's name", "container:NAME"), "userns": ("UID:GID:COUNT",)}
        if self.timens not in ("auto", "private", "host"):
            hint = "one cannot be joined here: setns(2) wants a process that shares no memory"
            raise SpecError("timens", self.timens, "must be auto, private or host", hint)
        for kind in ("network", "pid", "ipc", "uts", "cgroupns", "userns"):
            value = getattr(self, kind)
            choices = plain.get(kind, ("private", "host"))
            if kind == "userns" and (value is None or _is_range(text(kind, value))):
                continue
            if kind == "network" and _is_network(text(kind, value)):
                continue
            if value not in choices and not _is_joined(text(kind, value)):
                raise SpecError(
                    kind, value, f"must be {', '.join((*choices, *further.get(kind, ())))}, ns:PATH or pid:N"
                )
        if self.ports or self.ip or self.mac_address or self.dns or self.add_hosts:
            from minicontainer.spec import network

            self.__dict__.update(network.check_network(self.__dict__))
        for key, value in self.sysctls.items():
            check_sysctl(key, value, self)

    def capabilities(self, permitted: int = -1) -> int:
        """The program's capability mask (bit N: capability N). With ``privileged`` or ALL, all that are in
        ``permitted``, the caller's."""
        names = set(CAPABILITIES if self.privileged else DEFAULT_CAPABILITIES)
        add = {capability("cap_add", name) for name in self.cap_add}
        drop = {capability("cap_drop", name) for name in self.cap_drop}
        names = set(CAPABILITIES) if "ALL" in add else names
        if self.wants_all:
            names = {name for name in names if permitted >> CAPABILITIES.index(name) & 1}
        names = (set() if "ALL" in drop else names) | (add - {"ALL"})
        names -= drop | ({"SETFCAP"} if self.bars_new_suid else set())
        return sum(1 << CAPABILITIES.index(name) for name in names)

    @property
    def wants_all(self) -> bool:
        """Whether the spec asks for all capabilities, by ``privileged`` or ALL."""
        return self.privileged or any(capability("cap_add", name) == "ALL" for name in self.cap_add)

    @property
    def bars_new_suid(self) -> bool:
        """The effective value of ``no_new_suid``."""
        if self.no_new_suid is not None:
            return self.no_new_suid
        if self.privileged or not self.no_new_privileges or self.seccomp == "unconfined":
            return False
        if "SETFCAP" in map(_capability, self.cap_add):
            return False
        is_root = self.user is None or str(self.user).partition(":")[0] in ("", "0", "root")
        return self.read_only or not is_root

    @property
    def attached(self) -> str:
        """The name of the network on which the container gets an address; "" where there is none."""
        return network_name(self.network)

    @property
    def volumes(self) -> tuple[str, ...]:
        """The names of the volumes."""
        return tuple(dict.fromkeys(mount.source or "" for mount in self.mounts if mount.type == "volume"))

    def joined(self, kind: str) -> str | None:
        """The path of the namespace to join for ``kind`` (a field name), or None for private and host."""
        value = getattr(self, kind) or ""
        files = {"network": "net", "userns": "user", "cgroupns": "cgroup"}
        if value.startswith("pid:"):
            return f"/proc/{value[4:]}/ns/{files.get(kind, kind)}"
        return value[3:] if value.startswith("ns:") else None


NAMES = frozenset(names(Spec))
DEFAULTS = defaults(Spec)


def _is_network(value: str) -> bool:
    """Whether the value is a name of a network, or ``container:NAME``."""
    return is_name(value.removeprefix("container:")) and value not in NO_NETWORKS


def _is_joined(value: str) -> bool:
    """Whether the value is ns:PATH or pid:N."""
    number = value.removeprefix("pid:")
    by_pid = number != value and is_digits(number, 10) and number[0] != "0"
    return by_pid or (value.startswith("ns:/") and len(value) > 4 and "\n" not in value)


def _capability(name: str) -> str:
    return capability("cap_add", name)


def _is_range(value: str) -> bool:
    """Whether the value is UID:GID:COUNT. SpecError where the range exceeds the valid ids."""
    if not is_range(value):
        return False
    uid, gid, count = map(int, value.split(":"))
    if max(uid, gid) + count - 1 > OUTSIDE_MAX:
        raise SpecError("userns", value, f"leads beyond the last id that can be mapped to ({OUTSIDE_MAX})")
    return True


def check_sysctl(key: str, value: str, spec: Spec) -> None:
    """SpecError unless the sysctl belongs to a namespace that the container does not share with the host."""
    text(f"sysctls {key}", value)
    if not all(is_word(part, "_-") for part in text("sysctls", key).replace("/", ".").split(".")):
        raise SpecError("sysctls", key, "is no name of a sysctl", "such as net.ipv4.ip_forward")
    for prefix, kind in NAMESPACED_SYSCTLS:
        if key.replace("/", ".").startswith(prefix):
            if getattr(spec, kind) == "host":
                raise SpecError("sysctls", key, f"is the host's with {kind}=host", f"{kind}=private")
            return
    raise SpecError("sysctls", key, "is none that a namespace keeps apart from the host's", f"those are {SYSCTLS}")


def make(args: Sequence[str] | Spec, **fields: Any) -> Spec:
    """The spec for the arguments of ``run``, ``Popen`` and ``create_container_exec``: a Spec, with ``fields`` as
    changes; or the arguments of the program, with the fields of a new Spec."""
    if isinstance(args, Spec):
        return replace(args, **fields) if fields else args
    unknown = fields.keys() - NAMES
    if unknown:
        raise TypeError(f"unexpected keyword argument {sorted(unknown)[0]!r}")
    return Spec(args, **fields)
