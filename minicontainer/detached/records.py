"""The contents of a container's files: ``Config`` (config.json) and ``State`` (state)."""

from __future__ import annotations

from minicontainer import runtime
from minicontainer.detached.options import check_labels, check_restart
from minicontainer.errors import Error
from minicontainer.linux.process import Process, boot_id
from minicontainer.runtime import integer, typed
from minicontainer.spec import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import dataclass, field, replace

    from minicontainer.spec import Spec
else:
    from minicontainer.records import dataclass, field, replace

VERSION = 1


class CorruptError(Error):
    """A container whose files cannot be read. It can be removed."""


def _json(data: object) -> str:
    import json

    return json.dumps(data)


def _spec_json(spec: Spec) -> str:
    """The spec as JSON, cached in the spec."""
    cached: str | None = spec.__dict__.get("_json")
    if cached is None:
        from minicontainer.spec.data import to_data

        cached = _json(to_data(spec))
        object.__setattr__(spec, "_json", cached)
    return cached


@dataclass(frozen=True)
class Config:
    """The configuration of a container.

    created   seconds since 1970
    restart   ``no``, ``on-failure``, ``on-failure:N``, ``always``, ``unless-stopped``
    log_size, log_files   bytes of a log file (0: no limit), and the number of files
    interactive   standard input stays open
    remove    the container is removed when it ends
    timeout   seconds after which the container is killed; 0: never
    foreground   its creator waits for it, and there is no monitor (foreground.py)
    mark      the mark of the state directory in which the container was started (runtime.py)
    renaming  during a rename: the other name that may be reserved for the container, new or old
    """

    id: str
    spec: Spec
    created: float
    labels: Mapping[str, str] = field(default_factory=dict)
    restart: str = "no"
    log_size: int = 10 * 2**20
    log_files: int = 3
    interactive: bool = False
    remove: bool = False
    timeout: float = 0
    renaming: str = ""
    foreground: bool = False
    mark: str = ""

    @property
    def name(self) -> str:
        """The container's name; "" without one."""
        return self.spec.name or ""

    @property
    def hostname(self) -> str | None:
        """The host name in a UTS namespace of its own: the configured one, else the first name, else the short id; else
        None."""
        spec = self.spec
        return spec.hostname or spec.name or self.id[:12] if spec.uts == "private" else None

    def renamed(self, name: str) -> Config:
        """The config with another name and the same host name."""
        return replace(self, spec=replace(self.spec, name=name, hostname=self.hostname))

    def to_json(self) -> str:
        """The content of config.json."""
        own = {"version": VERSION, **self.__dict__, "labels": dict(self.labels)}
        del own["spec"]
        return f'{_json(own)[:-1]}, "spec": {_spec_json(self.spec)}}}'

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Parses config.json. CorruptError."""
        from minicontainer.spec.data import from_data

        try:
            data = runtime.parse_object(text)
            if data.pop("version") != VERSION:
                raise CorruptError("config.json: was written by another version of minicontainer")
            return cls(**{**data, "spec": from_data(data["spec"])})._checked()
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise CorruptError(f"config.json: cannot be read: {e}") from None

    def _checked(self) -> Config:
        """Checks types and ranges. ValueError."""
        for text in (self.id, self.restart, self.renaming, self.mark):
            typed(str, text)
        check_restart(self.restart, self.spec)
        check_labels(typed(dict, self.labels))
        for seconds in (self.created, self.timeout):
            decimal("time", None if isinstance(seconds, str) else seconds, 0, TIME_MAX, "seconds")
        integer(self.log_size)
        integer(self.log_files)
        typed(bool, self.interactive)
        typed(bool, self.remove)
        typed(bool, self.foreground)
        return self


TIME_MAX = 10**11  # seconds, beyond any valid time


@dataclass(frozen=True)
class State:
    """The state of a container: the monitor's last record, or ``dead`` if the monitor was killed.

    status    ``created``, ``running``, ``restarting``, ``paused``, ``stopping`` (process 1 has ended; others were
              killed and have not ended yet), ``exited``, ``dead`` (the monitor was killed)
    started, finished   seconds since 1970; None: not yet
    exit_code  of the last run: 128+n for signal n; None: unknown, or the container runs
    reason    ``exited``, ``signal``, ``timeout``, ``oom``, ``failed`` (the restart failed)
    log_lost  bytes of output that could not be written
    upper     the monitor's descriptor of the overlay's upper layer (changes.py), while an ephemeral container runs
    """

    status: str
    monitor: Process | None = None
    process: Process | None = None
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    reason: str = ""
    oom_killed: bool = False
    restarts: int = 0
    log_lost: int = 0
    upper: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether the monitor lives."""
        return self.status in ("running", "restarting", "paused", "stopping")

    def to_json(self) -> str:
        """The content of the state file of a container without processes."""
        assert self.monitor is None
        assert self.process is None
        return f"{_json({**vars(self), 'boot': boot_id()})}\n"

    @classmethod
    def from_json(cls, text: str, *, owner_alive: bool) -> State:
        """Parses a state file; ``owner_alive``: the monitor, or the creator of a foreground container, lives.
        CorruptError."""
        try:
            data = runtime.parse_object(text)
            same_boot = data.pop("boot") == boot_id()
            for key in ("monitor", "process"):
                data[key] = Process(*map(integer, data[key])) if data[key] and same_boot else None
            for key in ("started", "finished"):
                data[key] = None if data[key] is None else integer(data[key]) / 1e9
            data["exit_code"] = None if data["exit_code"] is None else integer(data["exit_code"])
            data["restarts"], data["log_lost"] = integer(data["restarts"]), integer(data["log_lost"])
            data["upper"] = None if data.get("upper") is None else integer(data["upper"])
            typed(str, data["reason"])
            typed(bool, data["oom_killed"])
            state = cls(**data)
            if state.status not in ("created", "running", "restarting", "stopping", "exited"):
                raise ValueError(f"status {state.status!r}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
            raise CorruptError(f"state: cannot be read: {e}") from None
        if state.is_running and (state.monitor is None or not owner_alive):
            return replace(state, status="dead")
        return state
