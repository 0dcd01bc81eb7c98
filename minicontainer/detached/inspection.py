"""What can be seen of a container from outside, and of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from minicontainer.detached import changes, copying, foreground, logs, members, ports, sizes, stats
from minicontainer.detached.attachment import Attachment
from minicontainer.detached.changes import Change
from minicontainer.detached.client import Handle
from minicontainer.detached.ports import Port
from minicontainer.detached.stats import Stats, Task

if TYPE_CHECKING:
    from fractions import Fraction

    from minicontainer import spec as s
    from minicontainer.network.members import Record


class Observed(Handle):
    """A container that is looked into: what it uses, who is in it, what it has written."""

    __slots__ = ()

    def attach(self) -> Attachment:
        """Its streams, from now on."""
        foreground.refuse(self, "attach", "its streams are there")
        return Attachment(self)

    def logs(
        self,
        *,
        follow: bool = False,
        since: float | Fraction | None = None,
        until: float | Fraction | None = None,
        tail: int | None = None,
    ) -> Iterator[logs.Entry]:
        """What it wrote: from ``since`` on, to ``until`` (seconds since 1970), of the last ``tail`` lines; with
        ``follow`` what it writes from now on too, until it has ended for good, or ``until``."""
        foreground.refuse(self, "logs", "what it writes is there")
        monitor = self.state.monitor
        ended = monitor.pidfd() if follow and monitor is not None else -1
        try:
            yield from logs.entries(
                self._entry.path, None if ended < 0 else ended, follow=follow, since=since, until=until, tail=tail
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

    def export(self, target: str | IO[bytes]) -> list[str]:
        """Writes its root file system as a tar archive to a path or a file (exporting.py); what was left out, a line
        each. Error where it is ephemeral and does not run."""
        from minicontainer.detached import exporting

        return exporting.export(self, target)

    def changes(self) -> list[Change]:
        """What an ephemeral one has added, changed and deleted. Error where it does not run, or is none."""
        foreground.refuse(self, "diff", "nobody has kept what lies below its root")
        return changes.changes(self)

    def sizes(self) -> tuple[int | None, int | None]:
        """Bytes of what an ephemeral one that runs has written (None: its writes go to ROOTFS), and of that and ROOTFS
        together."""
        return sizes.sizes(self)

    def stats(self) -> Stats:
        """What it uses now: of its cgroup, and what that does not tell, of its processes. Error where it does not
        run."""
        with members.of(self, "stats") as (cgroup, pids):
            return stats.measure(cgroup, pids)

    def tasks(self) -> list[Task]:
        """Its processes. Error where it does not run."""
        with members.of(self, "top") as (_, pids):
            return stats.tasks(pids)

    def lease(self) -> Record | None:
        """What it has of the network that it is on: address, names, published ports; None where it is on none."""
        if not (path := self._entry.lease()):
            return None
        from minicontainer.network import members

        return members.at(path)

    def published(self) -> tuple[s.Port, ...]:
        """The ports of the host that lead to it while it runs."""
        return ports.published(self._entry, self.config, self.state)

    def ports(self) -> list[Port]:
        """Where its processes wait for others. Error where it does not run."""
        with members.of(self, "port") as (_, pids):
            return ports.ports(pids)
