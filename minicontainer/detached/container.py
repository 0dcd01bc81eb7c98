"""``Container``: one that does not end with who started it.

    c = Container.start(["/bin/sh", "-c", "sleep 9"], rootfs="rootfs/", name="box", restart="on-failure:3")
    c = Container.create(["/bin/true"], rootfs="rootfs/"); c.start_again()   # made first, and started later
    c.id, c.status, c.pid; c.stop(); c.wait(); c.remove()
    Container.find("box"); containers()

What is asked of a running one is said to its monitor (csrc/monitor/control.c), which does it, whatever becomes of us.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minicontainer import runtime
from minicontainer.container import start
from minicontainer.container.filesystem.volumes import hold
from minicontainer.container.registry import names, orphans
from minicontainer.detached import creation, foreground, store
from minicontainer.detached.client import PATIENCE
from minicontainer.detached.monitor import MONITOR, Monitored, policy
from minicontainer.detached.options import check_restart
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.detached.store import Entry, NotFoundError
from minicontainer.detached.termination import Ending
from minicontainer.errors import Error, as_step_error
from minicontainer.failpoint import failpoint
from minicontainer.linux.process import boot_id
from minicontainer.linux.processes import check_proc
from minicontainer.native import lib
from minicontainer.plan.timeline import Timeline
from minicontainer.spec import Spec, make, patience, signal_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minicontainer.spec.keywords import Fields, OfDetached

__all__ = ["Config", "Container", "CorruptError", "NotFoundError", "State", "containers"]


class Container(Ending):
    """A detached container, by its directory: nothing is kept open, nothing ends with this object."""

    __slots__ = ("timeline",)

    def __init__(self, identifier: str) -> None:
        super().__init__(identifier)
        self.timeline: Timeline | None = None  # of the start, for who has started it

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
        """Starts one; returns when its program runs. ``fields`` are those of Spec.

        restart      ``no``, ``on-failure[:N]``, ``always``, ``unless-stopped``: what its monitor does at its end
        log          ``max-size`` of a file (bytes, or ``"10m"``; 0: any), ``max-file``: how many
        interactive  its standard input stays open, for who attaches
        remove       nothing is kept of it after its end
        timeout      seconds after which it is killed

        Raises as ``run`` does, and then nothing is left."""
        spec = creation.detached(make(args, **fields))
        wished = creation.wishes(
            spec, labels=labels, restart=restart, log=log, interactive=interactive, remove=remove, timeout=timeout
        )
        return cls.make(spec, wished, cls._start)

    @classmethod
    def create(cls, args: Sequence[str] | Spec, **options: Unpack[OfDetached]) -> Container:
        """Makes one that does not run: its status is ``created`` until ``start_again``. ``options`` are those of
        ``start``; what can be found amiss before that is raised now."""
        fields: dict[str, Any] = dict(options)
        wanted = {name: fields.pop(name) for name in creation.WISHES if name in fields}
        spec = creation.detached(make(args, **fields))
        wished = creation.wishes(spec, **wanted)
        creation.check(spec)
        return cls.make(spec, wished, lambda self, _: self._entry.write_created())

    @classmethod
    def make(cls, spec: Spec, wished: Mapping[str, Any], begin: Callable[[Container, int], None]) -> Container:
        """A new one, which ``begin`` is called for under its lock."""
        check_proc()
        try:
            entry, lock = Entry.create()
        except OSError as e:
            raise as_step_error(e, "container") from None
        try:
            container = cls(entry.id)
            container._config = creation.config(entry, spec, wished)
            container._write()
            begin(container, lock)
        except BaseException as e:
            os.close(lock)  # to remove takes a descriptor, and this may have been the last
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
        for fd in hold(config.spec.volumes, self.id):
            os.close(fd)
        self._tell("create")

    def _start(self, lock: int) -> None:
        """Under the lock, which its monitor has too until it runs."""
        opened = [self._entry.open(), names.open_directory()]
        try:
            monitored = Monitored(
                self.config,
                directory=opened[0],
                lock=lock,
                names=opened[1],
                boot=boot_id(),
                linked=self._entry.link,
            )
            child = start.start_with(self.config.spec, monitored.clone, self.id[:12], MONITOR)
        finally:
            for fd in opened:
                os.close(fd)
        failpoint("started")
        self.timeline = child.timeline()
        child.hand_over()

    @classmethod
    def find(cls, text: str) -> Container:
        """Of an id, an unambiguous beginning of it, or a name. NotFoundError, SpecError (it could be several)."""
        check_proc()
        if left := store.left(text):
            cls(left).remove_left_behind()
        found = cls(store.find(text).id)
        orphans.end_if_dead(found.id)
        if found.was_left_in_the_foreground():
            raise NotFoundError("container", text, "there is no such container", "minicontainer ps -a lists them")
        return found

    # -- its end, and again

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended for good; its exit code (128+n for signal n; 255: unknown; 0, as docker's, where it
        was not started yet). TimeoutError."""
        state = self._await_end(patience(timeout))
        if state is not None and state.status == "created":
            return 0
        return 255 if state is None or state.exit_code is None else state.exit_code

    def stop(self, timeout: float | None = None) -> None:
        """Its stop signal, and a kill after ``timeout`` seconds (None: its own ``stop_timeout``; -1: never). Returns
        when it has ended; Error where something of it survives the kill. Nothing happens where it does not run."""
        given = patience(timeout)
        limit = self.config.spec.stop_timeout if given is None else given
        if not self.state.is_running:
            return
        self._tell("kill", signal=signal_number("stop_signal", self.config.spec.stop_signal))
        if self.config.foreground:
            foreground.stop(self, signal_number("stop_signal", self.config.spec.stop_signal), limit)
            if self._is_in_the_foreground():
                raise self._survives("stop")
        else:
            self.say(lib.MC_REQUEST_STOP, 0, -1 if limit < 0 else round(limit * 1000))
            try:
                self._await_end(None if limit < 0 else limit + PATIENCE)
            except TimeoutError:
                raise self._survives("stop") from None
            self._end_if_left()
        self._tell("stop")

    def kill(self, signal_: int | str = signal.SIGKILL) -> None:
        """A signal to process 1. The kill and the stop signal end its restarts too."""
        number = signal_number("signal", str(int(signal_) if isinstance(signal_, int) else signal_))
        self.needs_running("kill")
        self._tell("kill", signal=number)
        if self.config.foreground:
            foreground.send(self, number)
            return
        self.say(lib.MC_REQUEST_SIGNAL, number)
        if number == signal.SIGKILL and self.status == "paused" and (cgroup := self.open_cgroup()) is not None:
            with cgroup:
                cgroup.kill()

    def start_again(self) -> None:
        """Starts one that was created, or that has ended, as it was started first. Nothing happens where it runs."""
        with self._entry.locked() as lock:
            if self.state.is_running:
                return
            orphans.end(self.id)
            if self._entry.config().mark != runtime.mark():  # its directory was copied
                self._entry.write_config(replace(self._entry.config(), mark=runtime.mark()))
                self._config = None
            self._start(lock)

    def restart(self, timeout: float | None = None) -> None:
        """``stop``, and again."""
        foreground.refuse(self, "restart", "it is gone when it has ended")
        self.stop(timeout)
        failpoint("stopped")
        self.start_again()
        self._tell("restart")

    def remove(self, *, force: bool = False) -> None:
        """Removes what is kept of it. Error where it runs, unless ``force``, which kills it."""
        with self._entry.locked():
            if not force and self._runs():
                raise Error(f"rm {self.id[:12]}: is running (stop it first, or rm -f)")
            self._remove()

    def remove_left_behind(self) -> bool:
        """Removes what a killed process left of it; False where that is not so."""
        try:
            lock = self._entry.lock(wait=False)
        except (BlockingIOError, NotFoundError):
            return False
        try:
            is_so = store.is_left_behind(self._entry)
            if is_so:
                self._remove()
            return is_so
        finally:
            os.close(lock)

    def _remove(self) -> None:
        """Under its lock."""
        self._end_monitor()
        failpoint("kill asked for")
        if os.path.isdir(self._entry.path):
            self._entry.check_removable()
            orphans.end(self.id)
            failpoint("ended")
            self._entry.remove()

    def was_left_in_the_foreground(self) -> bool:
        """Whether its maker was killed; then it is removed."""
        try:
            return self.config.foreground and self.status == "dead" and self.remove_left_behind()
        except (CorruptError, NotFoundError):
            return False

    # -- while it runs

    def update(self, *, restart: str | None = None, **limits: Any) -> None:
        """Changes its limits (fields of Limits) and what its monitor does at its end; at once where it runs."""
        from minicontainer.container.cgroup import limits as kept

        if restart is not None:
            foreground.refuse(self, "update --restart", "nothing starts it again")
        with self._entry.locked():
            config = self._entry.config()
            given = {name: value for name, value in limits.items() if value is not None}
            new = replace(config.spec.limits, **given)
            running = self.state.is_running
            if given and not (running and self._entry.cgroup()):
                kept.check(new)  # says why, where this host is why it has no cgroup
            if given and running:
                with self._needs_cgroup("update") as cgroup:
                    kept.change(cgroup, new, given)
            config = replace(config, spec=replace(config.spec, limits=new))
            if restart is not None:
                config = replace(config, restart=check_restart(restart, config.spec))
                self.say(lib.MC_REQUEST_POLICY, *policy(config.restart))
            self._entry.write_config(config)
            self._config = config
            self._tell("update")

    def pause(self) -> None:
        """Stops every process of it until ``unpause``."""
        with self._needs_cgroup("pause") as cgroup:
            cgroup.freeze()
        self._tell("pause")

    def unpause(self) -> None:
        """Lets them go on."""
        with self._needs_cgroup("unpause") as cgroup:
            cgroup.thaw()
        self._tell("unpause")

    def rename(self, name: str) -> None:
        """Another name. SpecError where it is taken, or none."""
        foreground.refuse(self, "rename", "its name is its maker's to give back")
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
            self.say(lib.MC_REQUEST_NAME, data=name.encode())
            failpoint("new name said")
            if old.name:
                store.forget_name(old.name, self.id)
            failpoint("old name given back")
            self._config = new
            with suppress(OSError):  # then its old name is still noted, which is no more its own
                self._entry.write_config(new)
            self._tell("rename", oldName=old.name)


def end_dead(identifiers: Iterable[str]) -> None:
    """Ends what runs on of those whose monitor was killed. Who cannot, leaves it to the command that asks for it."""
    for one in map(Container, identifiers):
        with suppress(Error, OSError):
            if not one.was_left_in_the_foreground():
                orphans.end_if_dead(one.id)


def containers() -> list[Container]:
    """All of them, the newest first; those that cannot be read (CorruptError at ``config``) last."""
    end_dead(names.ids())
    return sorted(map(Container, names.ids()), key=_created, reverse=True)


def _created(container: Container) -> float:
    try:
        return container.config.created
    except (CorruptError, NotFoundError):
        return 0.0
