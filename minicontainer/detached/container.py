"""``Container``: a detached container, which outlives the process that started it.

    c = Container.start(["/bin/sh", "-c", "sleep 9"], rootfs="rootfs/", name="box", restart="on-failure:3")
    c = Container.create(["/bin/true"], rootfs="rootfs/"); c.start_again()   # created first, started later
    c.id, c.status, c.pid; c.stop(); c.wait(); c.remove()
    Container.find("box"); containers()

A method that changes a running container sends a request to its monitor (csrc/monitor/control.c), which executes it
even if the caller dies.
"""

from __future__ import annotations

import _signal  # signal imports enum
import os

from minicontainer import runtime
from minicontainer.container.registry import names, orphans
from minicontainer.detached import foreground, store
from minicontainer.detached.client import MONITOR_TIMEOUT
from minicontainer.detached.options import check_restart
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.detached.store import Entry, NotFoundError
from minicontainer.detached.termination import Terminable
from minicontainer.errors import Error, as_step_error
from minicontainer.failpoint import failpoint
from minicontainer.linux.process import boot_id
from minicontainer.linux.processes import check_proc
from minicontainer.native import lib
from minicontainer.spec import check_timeout, make, signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import suppress
    from dataclasses import replace
    from typing import Any

    from typing_extensions import Unpack

    from minicontainer.plan.timeline import Timeline
    from minicontainer.spec import Spec
    from minicontainer.spec.keywords import CreateKeywords, Fields
else:
    from minicontainer.light import suppress
    from minicontainer.records import replace

__all__ = ["Config", "Container", "CorruptError", "NotFoundError", "State", "containers"]


class Container(Terminable):
    """A detached container. The object holds no descriptor; the container does not end with it."""

    __slots__ = ("timeline",)

    def __init__(self, identifier: str) -> None:
        super().__init__(identifier)
        self.timeline: Timeline | None = None  # of the start; only in the process that started the container

    @classmethod
    def start(
        cls,
        args: Sequence[str] | Spec,
        *,
        labels: Mapping[str, str] | None = None,
        restart: str = "no",
        log: Mapping[str, Any] | None = None,
        interactive: bool = False,
        remove: bool = False,
        timeout: float = 0,
        **fields: Unpack[Fields],
    ) -> Container:
        """Starts a container; returns when its program runs. ``fields`` are those of Spec.

        restart      ``no``, ``on-failure[:N]``, ``always``, ``unless-stopped``: whether the monitor starts it again
        log          ``max-size`` of a file (bytes, or ``"10m"``; 0: no limit), ``max-file``: number of files
        interactive  standard input stays open, for clients that attach
        remove       the container is removed when it ends
        timeout      seconds after which the container is killed

        Raises as ``run`` does, and then leaves nothing behind."""
        from minicontainer.detached import creation

        spec = creation.detached_spec(make(args, **fields))
        options = creation.config_options(
            spec, labels=labels, restart=restart, log=log, interactive=interactive, remove=remove, timeout=timeout
        )
        return cls.make(spec, options, cls._start)

    @classmethod
    def create(cls, args: Sequence[str] | Spec, **options: Unpack[CreateKeywords]) -> Container:
        """Creates a container that does not run: its status is ``created`` until ``start_again``. ``options`` are those
        of ``start``; errors that can be detected before the start are raised now."""
        from minicontainer.detached import creation

        fields: dict[str, Any] = dict(options)
        of_config = {name: fields.pop(name) for name in creation.CONFIG_OPTIONS if name in fields}
        spec = creation.detached_spec(make(args, **fields))
        checked = creation.config_options(spec, **of_config)
        creation.check_host(spec)
        return cls.make(spec, checked, lambda self, _: self._entry.write_created())

    @classmethod
    def make(cls, spec: Spec, options: Mapping[str, Any], starter: Callable[[Container, int], None]) -> Container:
        """Creates the directory of a container, and calls ``starter`` with the container and the descriptor of its
        lock, which is held meanwhile."""
        from minicontainer.detached import creation

        check_proc()
        try:
            entry, lock = Entry.create()
        except OSError as e:
            raise as_step_error(e, "container") from None
        try:
            container = cls(entry.id)
            container._config = creation.new_config(entry, spec, options)
            container._write()
            starter(container, lock)
        except BaseException as e:
            os.close(lock)  # the removal needs a descriptor, and no other may be free
            entry.remove()
            if spec.name:
                store.forget_name(spec.name, entry.id)
            if isinstance(e, OSError):
                raise as_step_error(e, "container") from None
            raise
        os.close(lock)
        return container

    def _write(self) -> None:
        config = self.config
        failpoint("directory made")
        if config.name:
            if left := names.left_in_foreground(config.name):
                Container(left).remove_left_behind()
            os.close(orphans.reserve_name(config.name, self.id, persistent=not config.foreground))
        failpoint("name taken")
        self._entry.write_config(config)
        failpoint("config written")
        from minicontainer.container.filesystem.volumes import hold

        for fd in hold(config.spec.volumes, self.id):
            os.close(fd)
        self._emit("create")

    def _start(self, lock: int) -> None:
        """Starts the container under a monitor. The caller holds the lock; the monitor holds it too until the first
        start is over."""
        from minicontainer.container import start
        from minicontainer.container.compilation import compile_spec
        from minicontainer.detached.monitor import MONITOR, MonitorLauncher

        opened = [self._entry.open()]
        try:
            opened.append(names.open_directory())
            launcher = MonitorLauncher(
                self.config,
                directory=opened[0],
                lock=lock,
                names=opened[1],
                boot=boot_id(),
                link=self._entry.link,
            )
            spec = self.config.spec
            if spec.isolation == "kvm":
                from minicontainer.container.machine import start as machine
                from minicontainer.detached import vsock

                opened.append(vsock.listen(opened[0]))
                child = machine.start_with(spec, launcher.clone, self.id[:12], MONITOR, opened[-1])
            else:
                child = start.start_with(spec, launcher.clone, self.id[:12], lambda spec: compile_spec(spec, MONITOR))
        finally:
            for fd in opened:
                os.close(fd)
        failpoint("started")
        self.timeline = child.timeline()
        child.hand_over()

    @classmethod
    def find(cls, text: str) -> Container:
        """The container of an id, an unambiguous beginning of an id, or a name. NotFoundError; SpecError if it is
        ambiguous."""
        check_proc()
        if left := store.left(text):
            cls(left).remove_left_behind()
        container = cls(store.find(text).id)
        orphans.end_if_dead(container.id)
        if container.remove_stale_foreground():
            raise NotFoundError("container", text, "there is no such container", "minicontainer ps -a lists them")
        return container

    # -- end and restart

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the container has ended for good; its exit code (128+n for signal n; 255: unknown; 0, as
        in docker, if it was not started yet). TimeoutError."""
        state = self._await_end(check_timeout(timeout))
        if state is not None and state.status == "created":
            return 0
        return 255 if state is None or state.exit_code is None else state.exit_code

    def stop(self, timeout: float | None = None) -> None:
        """Sends the stop signal, and SIGKILL after ``timeout`` seconds (None: the spec's ``stop_timeout``; -1: never).
        Returns when the container has ended; Error if a process survives. No effect if it does not run."""
        checked = check_timeout(timeout)
        limit = self.config.spec.stop_timeout if checked is None else checked
        if not self.state.is_running:
            self._end_start("stop")
            return
        self._emit("kill", signal=signal_number("stop_signal", self.config.spec.stop_signal))
        if self.config.foreground:
            foreground.stop(self, signal_number("stop_signal", self.config.spec.stop_signal), limit)
            if self._is_in_the_foreground():
                raise self._survival_error("stop")
        else:
            self.send_request(lib.MC_REQUEST_STOP, 0, -1 if limit < 0 else round(limit * 1000))
            try:
                self._await_end(None if limit < 0 else limit + MONITOR_TIMEOUT)
            except TimeoutError:
                raise self._survival_error("stop") from None
            self._end_if_dead()
        self._emit("stop")

    def kill(self, signal_: int | str = int(_signal.SIGKILL)) -> None:
        """Sends a signal to process 1. After SIGKILL or the stop signal the container is not restarted."""
        number = signal_number("signal", str(int(signal_) if isinstance(signal_, int) else signal_))
        self.check_running("kill")
        self._emit("kill", signal=number)
        if self.config.foreground:
            foreground.send(self, number)
            return
        self.send_request(lib.MC_REQUEST_SIGNAL, number)
        if number == int(_signal.SIGKILL) and self.status == "paused" and (cgroup := self.open_cgroup()) is not None:
            with cgroup:
                cgroup.kill()

    def start_again(self) -> None:
        """Starts a container that was created or has ended, with the same options. No effect if it runs."""
        with self._entry.locked() as lock:
            if self.state.is_running:
                return
            orphans.end(self.id)
            if self._entry.config().mark != runtime.mark():  # the state directory is a copy
                self._entry.write_config(replace(self._entry.config(), mark=runtime.mark()))
                self._config = None
            self._start(lock)

    def restart(self, timeout: float | None = None) -> None:
        """Calls ``stop``, then ``start_again``."""
        foreground.refuse(self, "restart", "it is gone when it has ended")
        self.stop(timeout)
        failpoint("stopped")
        self.start_again()
        self._emit("restart")

    def remove(self, *, force: bool = False) -> None:
        """Removes the container's files. Error if it runs, unless ``force``, which kills it."""
        if force:
            self._end_start("rm")
        elif self._boots() and self._entry.is_owner_alive():
            raise Error(f"rm {self.id[:12]}: is being started (stop it first, or rm -f)")
        with self._entry.locked():
            if not force and self._runs():
                raise Error(f"rm {self.id[:12]}: is running (stop it first, or rm -f)")
            self._remove()

    def remove_left_behind(self) -> bool:
        """Removes the container if a killed creator or monitor has left it behind; returns whether that was so."""
        try:
            with self._entry.locked(wait=False):
                is_left_behind = store.is_left_behind(self._entry)
                if is_left_behind:
                    self._remove()
                return is_left_behind
        except (BlockingIOError, NotFoundError):
            return False

    def _remove(self) -> None:
        """``remove``, whose caller holds the lock."""
        self._kill_by_monitor()
        failpoint("kill asked for")
        if os.path.isdir(self._entry.path):
            self._entry.check_removable()
            orphans.end(self.id)
            failpoint("ended")
            self._entry.remove()

    def remove_stale_foreground(self) -> bool:
        """Removes a foreground container whose creator was killed; returns whether that was so."""
        try:
            return self.config.foreground and self.status == "dead" and self.remove_left_behind()
        except (CorruptError, NotFoundError):
            return False

    # -- while it runs

    def update(self, *, restart: str | None = None, **limits: Any) -> None:
        """Changes the limits (fields of Limits) and the restart policy; those of a running container at once."""
        from minicontainer.container.cgroup import limits as cgroup_limits

        if restart is not None:
            foreground.refuse(self, "update --restart", "nothing starts it again")
        with self._entry.locked():
            config = self._entry.config()
            changed = {name: value for name, value in limits.items() if value is not None}
            new = replace(config.spec.limits, **changed)
            running = self.state.is_running
            if config.spec.isolation == "kvm":
                from minicontainer.container.machine import division

                division.check_change(replace(config.spec, limits=new), changed, running=running)
            if changed and not (running and self._entry.cgroup()):
                cgroup_limits.check(new)  # raises the reason if this host gives the container no cgroup
            if changed and running:
                with self._open_cgroup_of_running("update") as cgroup:
                    cgroup_limits.change(cgroup, new, changed)
            config = replace(config, spec=replace(config.spec, limits=new))
            if restart is not None:
                from minicontainer.detached.monitor import policy

                config = replace(config, restart=check_restart(restart, config.spec))
                self.send_request(lib.MC_REQUEST_POLICY, *policy(config.restart))
            self._entry.write_config(config)
            self._config = config
            self._emit("update")

    def pause(self) -> None:
        """Freezes every process until ``unpause``."""
        with self._open_cgroup_of_running("pause") as cgroup:
            cgroup.freeze()
        self._emit("pause")

    def unpause(self) -> None:
        """Thaws every process."""
        with self._open_cgroup_of_running("unpause") as cgroup:
            cgroup.thaw()
        self._emit("unpause")

    def rename(self, name: str) -> None:
        """Renames the container. SpecError if the name is invalid or taken."""
        foreground.refuse(self, "rename", "its creator releases its name")
        with self._entry.locked():
            old = self._entry.config()
            new = old.renamed(name)
            if name == old.name:
                return
            self._entry.write_config(replace(old, renaming=name))
            failpoint("renaming")
            try:
                os.close(orphans.reserve_name(name, self.id))
                failpoint("new name taken")
                self._entry.write_config(replace(new, renaming=old.name))
            except BaseException:
                store.forget_name(name, self.id)
                self._entry.write_config(old)
                raise
            failpoint("new name written")
            self.send_request(lib.MC_REQUEST_NAME, data=name.encode())
            failpoint("new name sent")
            if old.name:
                store.forget_name(old.name, self.id)
            failpoint("old name released")
            self._config = new
            with suppress(OSError):  # the config still has the old name as ``renaming`` then, which is harmless
                self._entry.write_config(new)
            self._emit("rename", oldName=old.name)


def end_dead(identifiers: Iterable[str]) -> None:
    """Ends processes of containers whose monitor was killed; errors are left to the commands that need their end."""
    for container in map(Container, identifiers):
        with suppress(Error, OSError):
            if not container.remove_stale_foreground():
                orphans.end_if_dead(container.id)


def containers() -> list[Container]:
    """All containers, the newest first; those that cannot be read (CorruptError at ``config``) last."""
    end_dead(names.ids())
    return sorted(map(Container, names.ids()), key=_created, reverse=True)


def _created(container: Container) -> float:
    try:
        return container.config.created
    except (CorruptError, NotFoundError):
        return 0.0
