"""``compile``: writes a container as a file, an executable that starts it without Python.

Theory of operation. The spec is compiled as for a start, once without and once with a terminal, and the plans are
appended to the program csrc/compiled with what a run needs beside them: how arguments and variables are put in, the
cgroup's place and its limits, the pool of ids, and what was true of the host and must be true again. Before that the
container is started once up to its exec, so that what this host refuses is refused now.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minicontainer import runtime
from minicontainer.compiled import resources, variants
from minicontainer.compiled.checks import Checks
from minicontainer.compiled.payload import Payload
from minicontainer.container import compiler, placeholders
from minicontainer.container.host import Host
from minicontainer.container.ids import ranges
from minicontainer.container.machine import division
from minicontainer.container.start import start
from minicontainer.errors import ProgramError, SpecError, StepError
from minicontainer.linux import caps
from minicontainer.linux.userns import is_first_user_namespace
from minicontainer.native import LIBEXEC, lib
from minicontainer.records import replace
from minicontainer.spec import Spec, check_timeout, make, signal_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minicontainer.spec.keywords import Fields

PROGRAM = f"{LIBEXEC}/compiled"
MODE = 0o700  # the environment may hold secrets, and nobody else may start it
NOWHERE = "/proc/-"  # no program has this path: procfs has no such entry, and nobody can make one


def compile(
    args: Sequence[str] | Spec,
    file: str | os.PathLike[str],
    *,
    timeout: float | None = None,
    terminal: bool | None = None,
    replace_args: bool = False,
    inherit_env: Iterable[str] = (),
    **fields: Unpack[Fields],
) -> None:
    """Writes the container as ``file``, an executable: ``./file [ARG...]`` starts it without Python, as ``run`` would.

    args          the command, or a Spec; spec fields by keyword, as in ``run``
    timeout       seconds after which a run is killed (exit code 124)
    terminal      whether a run allocates a terminal; None: where its stdin and stdout are one
    replace_args  the arguments of a run replace the command, instead of following it
    inherit_env   names of variables that are the caller's of the run

    SpecError names what a file cannot have: a name, a network with addresses, a named volume, other containers'
    namespaces. An existing file is replaced at once. The other errors are those of a start."""
    spec = make(args, **fields)
    kept = 0 if replace_args else len(spec.args)
    write(spec, file, Manner(check_timeout(timeout), terminal, kept, tuple(dict.fromkeys(inherit_env))))


class Manner(NamedTuple):
    """How the file runs, as the arguments of ``compile``. ``kept``: how many of the arguments stay where a run gives
    others; ``name``: what messages call a field of Spec."""

    timeout: float | None
    terminal: bool | None
    kept: int
    inherit_env: tuple[str, ...]
    name: variants.Name = str


def write(spec: Spec, file: str | os.PathLike[str], manner: Manner) -> None:
    """``compile`` of a spec."""
    if not os.fspath(file):
        raise SpecError("output", "", "is empty", "the path of the file to write")
    _refuse(spec)
    spec = _tried(replace(spec, tty=False, die_with_parent=True))
    with NewFile(os.fspath(file)) as new:
        new.write(_contents(spec, new.part, manner))


def _refuse(spec: Spec) -> None:
    """SpecError for what needs the library at each start."""
    reason = "needs more than a file can hold"
    if spec.isolation == "kvm":
        from minicontainer.compiled import machine

        machine.refuse(spec)
    if spec.name is not None:
        raise SpecError("name", spec.name, "cannot be that of a file, of which many may run", "leave it out")
    if spec.attached or spec.network.startswith("container:"):
        raise SpecError("network", spec.network, f"{reason}: an address for each run", "none, host or ns:PATH")
    if spec.ports:
        raise SpecError("ports", spec.ports[0].number, f"{reason}: an address for each run", "--network host")
    if spec.volumes:
        raise SpecError("mounts", spec.volumes[0], f"{reason}: a mark that the volume is in use", "give its path")
    if spec.executable:
        raise SpecError("executable", spec.executable, "is for programs of the host, not for files")
    for kind in ("network", "pid", "ipc", "uts", "cgroupns", "userns"):
        value = getattr(spec, kind) or ""
        if value.startswith("pid:"):
            raise SpecError(kind, value, "may be another process when the file runs", "ns:PATH")
        if kind == "userns" and value.startswith("ns:"):
            raise SpecError(kind, value, reason, "auto, private, host, keep-id or UID:GID:COUNT")
    ids = ranges.parse_range(spec.userns)
    if ids is not None and ids.width > ranges.IDS_PER_FILE:
        raise SpecError("userns", spec.userns, f"a file takes at most {ranges.IDS_PER_FILE} ids")


def _tried(spec: Spec) -> Spec:
    """The spec, with the user namespace that this host permits: a start up to the exec has shown it."""
    trial = replace(division.outer(spec) if spec.isolation == "kvm" else spec, args=(NOWHERE,))
    with suppress(ProgramError):
        start(trial, (-1, -1, -1)).discard()
    fallback: Spec | None = trial.__dict__.get("_fallback")
    return spec if fallback is None else replace(spec, userns=fallback.userns)


def _contents(spec: Spec, exe: str, manner: Manner) -> bytes:
    """The bytes of the file. ``exe``: a file with the owner and the mode that it will have."""
    payload = Payload()
    struct = payload.struct
    made, programs, facts = _put_plans(payload, spec, exe, manner)
    variants.put_parent(payload, struct.parent, made[0], manner.name)
    variants.put_stage(payload, struct, programs[0])
    _put_caller(payload, spec, made[0].host)
    struct.checks = payload.array("struct mc_check", Checks(payload, spec, facts).all())
    struct.args, struct.kept = payload.list(spec.args), manner.kept
    struct.env = payload.list(_environment(programs, manner.inherit_env))
    resources.put(payload, made[0].spec, made[0].host, manner.name)
    struct.stop_signal = signal_number("stop_signal", spec.stop_signal)
    struct.stop_timeout_ns = int(spec.stop_timeout * 10**9)
    if manner.timeout is not None:
        struct.timeout_ns = max(1, int(manner.timeout * 10**9))
        struct.timeout_text = payload.string(f"{manner.timeout:g}")
    if spec.limits.memory is not None:
        struct.memory_text = payload.string(str(spec.limits.memory))
    with open(PROGRAM, "rb") as file:
        return payload.file(file.read())


def _put_plans(
    payload: Payload, spec: Spec, exe: str, manner: Manner
) -> tuple[list[variants.Variant], list[variants.Variant], Host]:
    """Writes the child's plans. Returns what is cloned, what executes the program, without and with a terminal, and the
    facts for the spec."""
    ttys = [tty for tty in (False, True) if manner.terminal in (None, tty)]
    if spec.isolation == "kvm":
        from minicontainer.compiled import machine

        made = [machine.outside(spec, exe, tty=tty) for tty in ttys]
        guests = [machine.inside(spec, tty=tty) for tty in ttys]
        machine.put(payload, made, guests, manner.name)
        programs, facts, own = [machine.program(each) for each in guests], guests[0].host, machine.INPUTS
    else:
        programs = made = [variants.variant(spec, exe, tty=tty) for tty in ttys]
        facts, own = made[0].host, ()
    for each in made:
        target = payload.struct.terminal if each.spec.tty else payload.struct.plain
        variants.put_variant(payload, target, each, manner.name, own)
    return made, programs, facts


def _put_caller(payload: Payload, spec: Spec, host: Host) -> None:
    """The kernel and the caller."""
    struct, kernel = payload.struct, os.uname()
    struct.uid, struct.gid = os.geteuid(), os.getegid()
    struct.release, struct.hardware = payload.string(kernel.release), payload.string(kernel.machine)
    if spec.uts == "host":
        struct.nodename = payload.string(kernel.nodename)
    if is_first_user_namespace():
        struct.flags |= lib.MC_COMPILED_FIRST_USERNS
    if host.permitted != -1:
        struct.flags |= lib.MC_COMPILED_CAPABILITIES
        struct.permitted = caps.capabilities().permitted
    if spec.init:
        struct.flags |= lib.MC_COMPILED_INIT
    struct.state = payload.string(runtime.directory())


def _environment(made: Sequence[variants.Variant], inherited: Sequence[str]) -> list[str]:
    """The variables as csrc/compiled/payload.h describes them."""
    by_variant = [compiler.environment(each.spec, each.host) for each in made]
    entries: dict[str, str] = {}
    names = {name for variables in by_variant for name in variables}
    common: Mapping[str, str] = by_variant[0]
    for name, value in (*common.items(), *by_variant[-1].items()):
        if name in common or len(made) == 1:
            entries[name] = f"={name}={value}"
        else:
            entries.setdefault(name, f"t{name}={value}")
        if value == placeholders.ID:
            entries[name] = f"i{name}="
    for name in inherited:
        if not name or "=" in name:
            raise SpecError("env", name, "is no name of a variable")
        entries[name] = f"c{name}"
    assert names <= set(entries)
    return list(entries.values())


class NewFile:
    """A file that appears at its path when it is complete. ``part`` is its path until then."""

    def __init__(self, path: str) -> None:
        self.path, self.part = path, f"{path}.{secrets.token_hex(6)}.part"
        self._fd = -1

    def __enter__(self) -> NewFile:
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise SpecError("output", self.path, "is no regular file")
        try:
            self._fd = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            os.fchmod(self._fd, MODE)
        except OSError as e:
            self.__exit__()
            raise SpecError("output", self.path, (e.strerror or str(e)).lower()) from None
        return self

    def write(self, data: bytes) -> None:
        """Writes the whole content; the file is then in its place."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
            os.rename(self.part, self.path)
        except OSError as e:
            raise StepError(e.errno or 0, f"write({self.path!r})") from None

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(self.part)
