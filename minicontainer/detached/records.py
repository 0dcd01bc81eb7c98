"""What the files of a detached container say: what was asked for, what became of it, and who its processes are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from minicontainer import runtime
from minicontainer.detached.options import check_labels, check_restart
from minicontainer.errors import Error
from minicontainer.linux.process import Process, boot_id
from minicontainer.runtime import of, whole
from minicontainer.spec import Spec, decimal

VERSION = 1


class CorruptError(Error):
    """An entry that cannot be read. It can be removed."""


def _spec_json(spec: Spec) -> str:
    """Made once of a spec."""
    found: str | None = spec.__dict__.get("_json")
    if found is None:
        from minicontainer.spec.data import to_data

        found = json.dumps(to_data(spec))
        object.__setattr__(spec, "_json", found)
    return found


@dataclass(frozen=True)
class Config:
    """What was asked for.

    created   seconds since 1970
    restart   ``no``, ``on-failure``, ``on-failure:N``, ``always``, ``unless-stopped``
    log_size, log_files   bytes of a file of the log (0: any), and how many of them
    interactive   its standard input stays open
    remove    nothing is kept of it after its end
    timeout   seconds after which it is killed; 0: never
    foreground   its maker waits for it, and there is no monitor (foreground.py)
    mark      of the state directory that it was started in (runtime.py)
    renaming  another name that it may have: the new one, or the old one, while it is given another
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
        """The container's name; "" where it has none."""
        return self.spec.name or ""

    @property
    def hostname(self) -> str | None:
        """Its host name, where it has one of its own: its first name, or its short id."""
        spec = self.spec
        return spec.hostname or spec.name or self.id[:12] if spec.uts == "private" else None

    def renamed(self, name: str) -> Config:
        """With another name; its host name stays what it is."""
        return replace(self, spec=replace(self.spec, name=name, hostname=self.hostname))

    def to_json(self) -> str:
        """As the file holds it."""
        own = {"version": VERSION, **self.__dict__, "labels": dict(self.labels)}
        del own["spec"]
        return f'{json.dumps(own)[:-1]}, "spec": {_spec_json(self.spec)}}}'

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The config again. CorruptError where it is none."""
        from minicontainer.spec.data import from_data

        try:
            data = runtime.parsed(text)
            if data.pop("version") != VERSION:
                raise CorruptError("config.json: was written by another version of minicontainer")
            return cls(**{**data, "spec": from_data(data["spec"])})._checked()
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise CorruptError(f"config.json: cannot be read: {e}") from None

    def _checked(self) -> Config:
        """With what the rest of us relies on: types, and numbers that can be times. ValueError."""
        for text in (self.id, self.restart, self.renaming, self.mark):
            of(str, text)
        check_restart(self.restart, self.spec)
        check_labels(of(dict, self.labels))
        for seconds in (self.created, self.timeout):
            decimal("time", None if isinstance(seconds, str) else seconds, 0, YEARS, "seconds")
        whole(self.log_size)
        whole(self.log_files)
        of(bool, self.interactive)
        of(bool, self.remove)
        of(bool, self.foreground)
        return self


YEARS = 10**11  # seconds, far beyond what a time can be


@dataclass(frozen=True)
class State:
    """What became of it, as its monitor wrote last, and as it is.

    status    ``created``, ``running``, ``restarting``, ``paused``, ``stopping`` (its first process has ended, others
              are killed and have not yet), ``exited``, ``dead`` (its monitor was killed)
    started, finished   seconds since 1970; None: not yet
    exit_code  of the last run: 128+n for signal n; None: unknown, or it runs
    reason    ``exited``, ``signal``, ``timeout``, ``oom``, ``failed`` (could not be started again)
    log_lost  bytes of output that could not be written
    upper     its monitor's descriptor of what an ephemeral one has written (changes.py), while it runs
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
        """Whether its monitor is there."""
        return self.status in ("running", "restarting", "paused", "stopping")

    def to_json(self) -> str:
        """As the file holds it, of one that has no process."""
        assert self.monitor is None
        assert self.process is None
        return f"{json.dumps({**vars(self), 'boot': boot_id()})}\n"

    @classmethod
    def from_json(cls, text: str, *, watched: bool) -> State:
        """Of the file; ``watched``: its monitor lives. CorruptError where it is none."""
        try:
            data = runtime.parsed(text)
            same_boot = data.pop("boot") == boot_id()
            for who in ("monitor", "process"):
                data[who] = Process(*map(whole, data[who])) if data[who] and same_boot else None
            for when in ("started", "finished"):
                data[when] = None if data[when] is None else whole(data[when]) / 1e9
            data["exit_code"] = None if data["exit_code"] is None else whole(data["exit_code"])
            data["restarts"], data["log_lost"] = whole(data["restarts"]), whole(data["log_lost"])
            data["upper"] = None if data.get("upper") is None else whole(data["upper"])
            of(str, data["reason"])
            of(bool, data["oom_killed"])
            state = cls(**data)
            if state.status not in ("created", "running", "restarting", "stopping", "exited"):
                raise ValueError(f"status {state.status!r}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
            raise CorruptError(f"state: cannot be read: {e}") from None
        if state.is_running and (state.monitor is None or not watched):
            return replace(state, status="dead")
        return state
