"""A foreground container with an entry in the state directory: ``ps`` lists it, and ``exec`` enters it, while it runs.

with RegisteredPopen(spec, labels={"a": "b"}, on_created=print) as p:  # as mc.Popen
    Container.find(p.id).stats()
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from minicontainer import events
from minicontainer.container import start
from minicontainer.container.child import Child
from minicontainer.container.compilation import Compiled
from minicontainer.container.process import Popen
from minicontainer.container.registry.orphans import NO_CGROUP
from minicontainer.detached import creation
from minicontainer.detached.container import Container
from minicontainer.detached.store import Entry
from minicontainer.linux.process import boot_id, stat
from minicontainer.spec import Spec


class RegisteredPopen(Popen[Any]):
    """Popen with an entry in the state directory while the container runs."""

    def __init__(
        self, spec: Spec, *, labels: Mapping[str, str], on_created: Callable[[str], object], **streams: Any
    ) -> None:
        """``on_created`` is called with the id (64 hexadecimal digits) before the program starts."""
        self._labels, self._on_created = labels, on_created
        self._entry: Entry | None = None
        self._started_ns = 0
        super().__init__(spec, **streams)

    def _start(self, stdio: tuple[int, int, int]) -> Child:
        children: list[Child] = []
        options = {**creation.config_options(self.spec, labels=self._labels, remove=True), "foreground": True}

        Container.make(
            self.spec, options, lambda container, _lock: children.append(self._start_registered(container, stdio))
        )
        return children[0]

    def _start_registered(self, container: Container, stdio: tuple[int, int, int]) -> Child:
        self._entry = entry = Entry(container.id)

        def prepare(child: Child) -> None:
            entry.link("cgroup", NO_CGROUP if child.cgroup is None else child.cgroup.path)
            if child.lease is not None:
                entry.link("lease", child.lease.path)
            entry.reserve_state()  # a container whose state could not be written is not started

        def clone(child: Child, spec: Spec, compiled: Compiled) -> int:
            prepare(child)
            return start.clone_child(child, spec, compiled, stdio)

        self._on_created(entry.id)
        self._started_ns = time.time_ns()
        spec = container.config.spec
        if spec.isolation == "kvm":
            child = self._start_machine(spec, stdio, prepare)
        else:
            child = start.start_with(spec, clone, container.id[:12])
        try:
            entry.write_state(self._state(child.spawn.pid))
            self._emit("start")
        except BaseException:
            child.discard()
            raise
        return child

    def _start_machine(self, spec: Spec, stdio: tuple[int, int, int], prepare: Callable[[Child], object]) -> Child:
        from minicontainer.container.machine.start import start_machine
        from minicontainer.detached import vsock

        assert self._entry is not None
        opened = [self._entry.open()]
        try:
            opened.append(vsock.listen(opened[0]))
            return start_machine(spec, stdio, self._entry.id[:12], prepare, opened[1])
        finally:
            for fd in opened:
                os.close(fd)

    def _state(self, pid: int, **changes: object) -> str:
        """The content of the file ``state``, as a monitor writes it (csrc/monitor/state.c)."""
        own, process = stat("self"), stat(pid).start if pid else 0
        state = {
            "boot": boot_id(),
            "status": "running",
            "monitor": [own.pid, own.start],
            "process": [pid, process] if pid else None,
            "started": self._started_ns,
            "finished": None,
            "exit_code": None,
            "reason": "",
            "oom_killed": False,
            "restarts": 0,
            "log_lost": 0,
        }
        return json.dumps({**state, **changes})

    def _release(self, child: Child) -> None:
        super()._release(child)
        if self._entry is None:
            return
        code = self.returncode or 0
        ended = {"status": "exited", "finished": time.time_ns(), "exit_code": code if code >= 0 else 128 - code}
        self._entry.overwrite_state(self._state(0, **ended, reason=self._reason, oom_killed=self._reason == "oom"))
        if self._reason == "oom":
            self._emit("oom")
        self._emit("die", exitCode=ended["exit_code"])
        self._entry.remove()

    def _emit(self, action: str, **attributes: object) -> None:
        """Emits an event, as a monitor does (csrc/monitor/events.c)."""
        if self._entry is not None:
            events.emit("container", action, self._entry.id, name=self.spec.name, **attributes)
