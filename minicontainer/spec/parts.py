"""Mounts, devices and resource limits (getrlimit(2)), with parsers for docker's command-line forms."""

from __future__ import annotations

import os

from minicontainer.errors import SpecError
from minicontainer.spec.convert import flag, sequence
from minicontainer.spec.values import (
    ID_MAX,
    NAME_PATTERN,
    RLIMITS,
    absolute,
    error_context,
    is_digits,
    is_name,
    size,
    text,
    whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
    from typing import Any
else:
    from minicontainer.records import dataclass


@dataclass(frozen=True)
class Mount:
    """A mount of the container: ``bind`` (``source`` is a path of the host), ``volume`` (``source`` is the name of a
    volume, which is created where it is missing), or ``tmpfs`` (``size`` in bytes, or ``"50%"`` of the memory;
    ``mode``; ``nr_inodes``; its owner's ``uid`` and ``gid`` inside the container).

    Mounts are nodev, and a tmpfs is also nosuid and noexec, unless ``options`` contain dev, suid, exec."""

    target: str
    source: str | None = None
    type: str = "bind"
    readonly: bool = False
    size: int | str | None = None
    mode: int | None = None
    options: frozenset[str] = frozenset()
    uid: int | None = None
    gid: int | None = None
    nr_inodes: int | str | None = None

    OPTIONS = frozenset({"exec", "noexec", "suid", "nosuid", "dev", "nodev"})

    def __post_init__(self) -> None:
        absolute("mount target", self.target)
        if os.path.normpath(self.target) == "/":
            raise SpecError("mount target", self.target, "is the root itself", "give it as ROOTFS")
        if self.type in ("bind", "volume"):
            self._check_bind()
        elif self.type == "tmpfs":
            self._check_tmpfs()
        else:
            raise SpecError("mount type", self.type, "must be bind, volume or tmpfs")
        flag("readonly", self.readonly)
        object.__setattr__(
            self, "options", frozenset(text("mount option", o) for o in sequence("options", self.options))
        )
        for option in sorted(self.options):
            if option not in self.OPTIONS:
                raise SpecError("mount option", option, f"must be one of {' '.join(sorted(self.OPTIONS))}")
            if f"no{option}" in self.options:
                raise SpecError("mount option", option, f"cannot be combined with no{option}")

    def _check_bind(self) -> None:
        text("mount source", self.source)
        if any(value is not None for value in (self.size, self.mode, self.uid, self.gid, self.nr_inodes)):
            raise SpecError("mount target", self.target, "a bind has no size, mode or owner of its own", "type=tmpfs")
        if self.type == "volume" and not is_name(self.source or ""):
            raise SpecError("volume", self.source, f"must match {NAME_PATTERN}", "a path begins with / or ./")

    def _check_tmpfs(self) -> None:
        if self.source is not None and text("mount source", self.source, empty=True):
            raise SpecError("mount source", self.source, "a tmpfs has none")
        if self.size is not None and not _is_share(str(self.size)):
            object.__setattr__(self, "size", self._tmpfs_size(self.size))
        for name in ("uid", "gid"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(f"tmpfs {name}", getattr(self, name), 0, ID_MAX))
        if self.nr_inodes is not None:
            object.__setattr__(self, "nr_inodes", size("tmpfs nr_inodes", self.nr_inodes))
        if self.mode is not None and (type(self.mode) is not int or not 0 <= self.mode <= 0o7777):
            value = oct(self.mode) if type(self.mode) is int else self.mode
            raise SpecError("tmpfs mode", value, "must be a number from 0 to 7777, in octal")

    @staticmethod
    def _tmpfs_size(value: int | str) -> int:
        if isinstance(value, str) and value.endswith("%"):
            raise SpecError("tmpfs size", value, "is no share of the memory", "1% to 100%, or a size as 64m")
        return size("tmpfs size", value, least=4096)

    @classmethod
    def volume(cls, value: str) -> Mount:
        """docker's ``-v src:dst[:ro|rw]``. A ``src`` with a slash, or with a dot at its start, is a path (a relative
        one is relative to the caller's directory), else the name of a volume."""
        parts = text("volume", value).split(":")
        if len(parts) not in (2, 3) or not all(parts):
            raise SpecError("volume", value, "must be SOURCE:TARGET[:ro]", "SOURCE: a path, or the name of a volume")
        source, target, *rest = parts
        modes = rest[0].split(",") if rest else []
        for mode in modes:
            if mode not in ("ro", "rw", *cls.OPTIONS):
                raise SpecError("volume", value, f"unknown option {mode!r}", "ro, rw, exec, noexec, suid, dev ...")
        if {"ro", "rw"} <= set(modes):
            raise SpecError("volume", value, "cannot be both ro and rw", "one of them")
        options = frozenset(modes) - {"ro", "rw"}
        with error_context("volume", value):
            if "/" in source or source.startswith("."):
                return cls(target, os.path.abspath(source), readonly="ro" in modes, options=options)
            return cls(target, source, "volume", readonly="ro" in modes, options=options)

    @classmethod
    def option(cls, value: str) -> Mount:
        """docker's ``--mount type=bind,source=/a,target=/b,readonly``."""
        known = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
        fields: dict[str, Any] = {"type": "bind"}
        for item in text("mount", value).split(","):
            key, equals, setting = item.partition("=")
            key = known.get(key, key)
            if key == "readonly" and setting in ("", "true", "1", "false", "0"):
                fields[key] = setting in ("", "true", "1")
            elif key in ("type", "source", "target") and equals:
                fields[key] = setting
            elif key == "tmpfs-size" and equals:
                fields["size"] = setting
            elif key == "tmpfs-mode" and _is_mode(setting):
                fields["mode"] = int(setting, 8)
            else:
                raise SpecError("mount", value, f"unknown item {item!r}", "type, source, target, readonly, tmpfs-size")
        if "target" not in fields:
            raise SpecError("mount", value, "has no target", "target=PATH")
        if fields["type"] in ("bind", "volume") and not fields.get("source"):
            raise SpecError("mount", value, "has no source", "source=PATH, or the name of a volume")
        if fields["type"] == "bind":
            fields["source"] = os.path.abspath(fields["source"])
        with error_context("mount", value):
            return cls(**fields)

    @classmethod
    def tmpfs(cls, value: str) -> Mount:
        """docker's ``--tmpfs /path[:size=64m,mode=1777,uid=1,gid=1,nr_inodes=1k,ro,noexec]``; see tmpfs(5)."""
        target, _, items = text("tmpfs", value).partition(":")
        fields: dict[str, Any] = {}
        options = set()
        for item in filter(None, items.split(",")):
            key, _, number = item.partition("=")
            if key in ("size", "nr_inodes"):
                fields[key] = number
            elif key in ("uid", "gid") and is_digits(number, 10):
                fields[key] = int(number)
            elif key == "mode" and _is_mode(number):
                fields["mode"] = int(number, 8)
            elif item in ("ro", "rw"):
                fields["readonly"] = item == "ro"
            elif item in cls.OPTIONS:
                options.add(item)
            else:
                raise SpecError(
                    "tmpfs", value, f"unknown option {item!r}", "size= mode= uid= gid= nr_inodes= ro exec ..."
                )
        with error_context("tmpfs", value):
            return cls(target, type="tmpfs", options=frozenset(options), **fields)


def _is_share(value: str) -> bool:
    """Whether the value is 1% to 100%."""
    return value[-1:] == "%" and is_digits(value[:-1], 3) and value[0] != "0" and int(value[:-1]) <= 100


def _is_mode(value: str) -> bool:
    """Whether the value is a file mode in octal."""
    return is_digits(value, 4) and not {"8", "9"} & set(value)


@dataclass(frozen=True)
class Device:
    """A device node of the host that the container gets, at a path below /dev.

    ``access`` consists of r, w and m, as in the devices controller."""

    source: str
    target: str
    access: str = "rwm"

    def __post_init__(self) -> None:
        if not text("device source", self.source).startswith("/"):
            raise SpecError("device source", self.source, "must be an absolute path of the host", "such as /dev/fuse")
        target = os.path.normpath(absolute("device target", self.target))
        if not target.startswith("/dev/"):
            raise SpecError("device target", self.target, "must be below /dev in the container", "such as /dev/fuse")
        object.__setattr__(self, "target", target)
        if set(text("device access", self.access)) - set("rwm"):
            raise SpecError("device access", self.access, "must be of r, w and m", "such as rw")

    @classmethod
    def option(cls, value: str) -> Device:
        """docker's ``--device /dev/x[:/dev/y[:rwm]]``."""
        parts = text("device", value).split(":")
        if len(parts) > 3:
            raise SpecError("device", value, "must be HOST[:CONTAINER[:rwm]]", "such as /dev/fuse")
        with error_context("device", value):
            if len(parts) == 2 and not parts[1].startswith("/"):
                return cls(parts[0], parts[0], parts[1])
            return cls(parts[0], parts[1] if len(parts) > 1 else parts[0], *parts[2:])


@dataclass(frozen=True)
class Ulimit:
    """A resource limit (getrlimit(2)); -1 is unlimited."""

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if text("ulimit name", self.name) not in RLIMITS:
            raise SpecError("ulimit name", self.name, "is no resource limit", " ".join(RLIMITS))
        for name in ("soft", "hard"):
            object.__setattr__(self, name, whole(f"ulimit {name}", getattr(self, name), -1, 2**63 - 1))
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise SpecError(
                "ulimit",
                f"{self.name}={self.soft}:{self.hard}",
                "the soft limit is above the hard one",
                "NAME=SOFT:HARD",
            )

    @classmethod
    def option(cls, value: str) -> Ulimit:
        """docker's ``--ulimit nofile=1024[:2048]``; ``unlimited`` is -1."""
        name, equals, limits = text("ulimit", value).partition("=")
        numbers = [("-1" if part == "unlimited" else part) for part in limits.split(":")]
        if not equals or len(numbers) > 2 or not all(n == "-1" or is_digits(n, 19) for n in numbers):
            raise SpecError("ulimit", value, "must be NAME=SOFT[:HARD]", "whole numbers or unlimited")
        with error_context("ulimit", value):
            return cls(name, int(numbers[0]), int(numbers[-1]))


@dataclass(frozen=True)
class DeviceRate:
    """A limit of one block device: ``rate`` bytes or operations per second."""

    path: str
    rate: int

    def __post_init__(self) -> None:
        if not text("rate path", self.path).startswith("/"):
            raise SpecError("rate path", self.path, "must be an absolute path of the host", "such as /dev/sda")
        object.__setattr__(self, "rate", size("rate", self.rate))

    @classmethod
    def option(cls, what: str, value: str, *, bytes_per_second: bool) -> DeviceRate:
        """docker's ``--device-read-bps /dev/sda:1m``, ``--device-read-iops /dev/sda:1000`` ..."""
        path, colon, rate = text(what, value).rpartition(":")
        if not colon or not path.startswith("/"):
            raise SpecError(what, value, "must be /DEVICE:RATE", "such as /dev/sda:1m")
        with error_context(what, value):
            if bytes_per_second:
                return cls(path, size("rate", rate))
            return cls(path, whole("rate", rate, 1, 2**63 - 1, "of operations a second"))
