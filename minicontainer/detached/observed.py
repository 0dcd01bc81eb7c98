"""What can be seen of a container from outside, and of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minicontainer.detached import changes, copying, logs, ports, stats
from minicontainer.detached.attachment import Attachment
from minicontainer.detached.changes import Change
from minicontainer.detached.handle import Handle
from minicontainer.detached.ports import Port
from minicontainer.detached.stats import Stats, Task

if TYPE_CHECKING:
    from minicontainer.network.members import Record


class Observed(Handle):
    """A container that is looked into: what it uses, who is in it, what it has written."""

    __slots__ = ()

    def attach(self) -> Attachment:
        """Its streams, from now on."""
        return Attachment(self)

    def logs(
        self, *, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> Iterator[logs.Entry]:
        """What it wrote: from ``since`` (seconds since 1970) on, of the last ``tail`` lines; with ``follow`` what it
        writes from now on too, until it has ended for good."""
        monitor = self.state.monitor
        ended = monitor.pidfd() if follow and monitor is not None else -1
        try:
            yield from logs.entries(
                self._entry.path, None if ended < 0 else ended, follow=follow, since=since, tail=tail
            )
        finally:
            if ended >= 0:
                os.close(ended)

    def copy_in(self, source: str, target: str, **options: bool) -> list[str]:
        """Copies files into it (copying.py); what was left out, a line each."""
        return copying.copy_in(self, source, target, **options)

    def copy_out(self, source: str, target: str, **options: bool) -> list[str]:
        """Copies files out of it (copying.py); what was left out, a line each."""
        return copying.copy_out(self, source, target, **options)

    def changes(self) -> list[Change]:
        """What an ephemeral one has added, changed and deleted. Error where it does not run, or is none."""
        return changes.changes(self)

    def stats(self) -> Stats:
        """What it uses now. Error where it does not run, or has no cgroup."""
        with self._needs_cgroup("stats") as cgroup:
            return stats.measure(cgroup)

    def tasks(self) -> list[Task]:
        """Its processes."""
        with self._needs_cgroup("top") as cgroup:
            return stats.tasks(stats.members(cgroup))

    def lease(self) -> Record | None:
        """What it has of the network that it is on: address, names, published ports; None where it is on none."""
        if not (path := self._entry.lease()):
            return None
        from minicontainer.network import members

        return members.at(path)

    def ports(self) -> list[Port]:
        """Where its processes wait for others."""
        with self._needs_cgroup("port") as cgroup:
            return ports.ports(stats.members(cgroup))
