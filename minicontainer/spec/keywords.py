"""The keyword arguments of ``run``, ``Popen``, ``Container.start`` ... as types, so that a type checker finds unknown
names. Imported by type checkers only."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from minicontainer.spec.limits import Limits
from minicontainer.spec.network import Port
from minicontainer.spec.parts import Device, Mount, Ulimit

if TYPE_CHECKING:
    from typing_extensions import Required

BytesInput = bytes | bytearray | memoryview | None


class HasFileno(Protocol):
    """An object with a descriptor, such as a file."""

    def fileno(self) -> int:
        """The descriptor."""


Stream = int | IO[Any] | HasFileno | None
Path = str | os.PathLike[str]


class Fields(TypedDict, total=False):
    """The fields of Spec except ``args``, with the types that each accepts, strings of the command line included."""

    rootfs: Path
    executable: Path | None
    isolation: str
    kernel: Path | None
    root_image: str | None
    ephemeral: bool
    name: str | None
    hostname: str | None
    env: Mapping[str, str] | Sequence[str]
    cwd: Path
    user: str | int | None
    group_add: Iterable[str | int]
    mounts: Iterable[Mount | str]
    read_only: bool
    shm_size: int | str
    devices: Iterable[Device | str]
    init: bool
    tty: bool
    limits: Limits | Mapping[str, Any]
    ulimits: Iterable[Ulimit | str]
    sysctls: Mapping[str, str] | Sequence[str]
    cap_add: Iterable[str]
    cap_drop: Iterable[str]
    seccomp: Path | None
    no_new_privileges: bool
    no_new_suid: bool | None
    privileged: bool
    network: str
    ports: Iterable[Port | str | int]
    ip: str | None
    mac_address: str | None
    dns: Iterable[str]
    add_hosts: Mapping[str, str] | Sequence[str]
    pid: str
    ipc: str
    uts: str
    cgroupns: str
    timens: str
    userns: str | None
    stop_signal: str | int | signal.Signals
    stop_timeout: float
    oom_score_adj: int | None
    umask: int
    die_with_parent: bool


class ByteStreams(TypedDict, total=False):
    """Streams of bytes (asyncio's)."""

    stdin: Stream
    stdout: Stream
    stderr: Stream
    max_output: int | str | None


class Streams(ByteStreams, total=False):
    """The keywords of Popen besides the fields."""

    text: bool | None
    encoding: str | None
    errors: str | None


class Text(ByteStreams, total=False):
    """Streams of text, by ``text``."""

    text: Required[Literal[True]]
    encoding: str | None
    errors: str | None


class Encoded(ByteStreams, total=False):
    """Streams of text, by ``encoding``."""

    text: bool | None
    encoding: Required[str]
    errors: str | None


class Bytes(ByteStreams, total=False):
    """Streams of bytes."""

    text: Literal[False] | None
    encoding: None
    errors: None


class PoolOptions(TypedDict, total=False):
    """The fields that differ from program to program in a pool."""

    env: Mapping[str, str] | Sequence[str] | None
    cwd: Path | None


class ExecOptions(TypedDict, total=False):
    """The keywords of ``Container.exec`` that override the container's spec."""

    env: Mapping[str, str] | None
    cwd: str | None
    user: str | None
    tty: bool


class RunOptions(TypedDict, total=False):
    """The keywords of ``run`` besides Popen's and ``input``."""

    capture_output: bool
    timeout: float | None
    check: bool


class RunAnyOptions(RunOptions, total=False):
    """The keywords of ``run`` besides Popen's."""

    input: Any


class RunTextOptions(RunOptions, total=False):
    """The keywords of ``run`` besides Popen's, with an input of text."""

    input: str | None


class RunBytesOptions(RunOptions, total=False):
    """The keywords of ``run`` besides Popen's, with an input of bytes."""

    input: BytesInput


class DetachedOptions(TypedDict, total=False):
    """The keywords of a detached container besides the fields."""

    labels: Mapping[str, str] | None
    restart: str
    log: Mapping[str, Any] | None
    interactive: bool
    remove: bool
    timeout: float


class CreateKeywords(DetachedOptions, Fields, total=False):
    """Keywords of ``Container.create``."""


class PopenKeywords(Streams, Fields, total=False):
    """Keywords of ``Popen``, whatever its streams are."""


class TextPopenKeywords(Text, Fields, total=False):
    """Keywords of ``Popen[str]``."""


class EncodedPopenKeywords(Encoded, Fields, total=False):
    """Keywords of ``Popen[str]``."""


class BytesPopenKeywords(Bytes, Fields, total=False):
    """Keywords of ``Popen[bytes]``."""


class RunKeywords(RunAnyOptions, Streams, Fields, total=False):
    """Keywords of ``run``, whatever its streams are."""


class TextRunKeywords(RunTextOptions, Text, Fields, total=False):
    """Keywords of ``run`` for a ``Result[str]``."""


class EncodedRunKeywords(RunTextOptions, Encoded, Fields, total=False):
    """Keywords of ``run`` for a ``Result[str]``."""


class BytesRunKeywords(RunBytesOptions, Bytes, Fields, total=False):
    """Keywords of ``run`` for a ``Result[bytes]``."""


class AsyncioKeywords(ByteStreams, Fields, total=False):
    """Keywords of ``create_container_exec``."""


class ExecKeywords(Streams, ExecOptions, total=False):
    """Keywords of ``Container.exec``, whatever its streams are."""


class TextExecKeywords(Text, ExecOptions, total=False):
    """Keywords of ``Container.exec`` for an ``Exec[str]``."""


class EncodedExecKeywords(Encoded, ExecOptions, total=False):
    """Keywords of ``Container.exec`` for an ``Exec[str]``."""


class BytesExecKeywords(Bytes, ExecOptions, total=False):
    """Keywords of ``Container.exec`` for an ``Exec[bytes]``."""


class ExecRunKeywords(RunAnyOptions, Streams, ExecOptions, total=False):
    """Keywords of ``Container.run``, whatever its streams are."""


class TextExecRunKeywords(RunTextOptions, Text, ExecOptions, total=False):
    """Keywords of ``Container.run`` for a ``Result[str]``."""


class EncodedExecRunKeywords(RunTextOptions, Encoded, ExecOptions, total=False):
    """Keywords of ``Container.run`` for a ``Result[str]``."""


class BytesExecRunKeywords(RunBytesOptions, Bytes, ExecOptions, total=False):
    """Keywords of ``Container.run`` for a ``Result[bytes]``."""


class PoolPopenKeywords(Streams, PoolOptions, total=False):
    """Keywords of ``Pool.Popen``, whatever its streams are."""


class TextPoolPopenKeywords(Text, PoolOptions, total=False):
    """Keywords of ``Pool.Popen`` for a ``Popen[str]``."""


class EncodedPoolPopenKeywords(Encoded, PoolOptions, total=False):
    """Keywords of ``Pool.Popen`` for a ``Popen[str]``."""


class BytesPoolPopenKeywords(Bytes, PoolOptions, total=False):
    """Keywords of ``Pool.Popen`` for a ``Popen[bytes]``."""


class PoolRunKeywords(RunAnyOptions, Streams, PoolOptions, total=False):
    """Keywords of ``Pool.run``, whatever its streams are."""


class TextPoolRunKeywords(RunTextOptions, Text, PoolOptions, total=False):
    """Keywords of ``Pool.run`` for a ``Result[str]``."""


class EncodedPoolRunKeywords(RunTextOptions, Encoded, PoolOptions, total=False):
    """Keywords of ``Pool.run`` for a ``Result[str]``."""


class BytesPoolRunKeywords(RunBytesOptions, Bytes, PoolOptions, total=False):
    """Keywords of ``Pool.run`` for a ``Result[bytes]``."""
