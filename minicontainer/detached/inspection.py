"""Methods that read from a container: output, processes, statistics, ports, files."""

from __future__ import annotations

import os

from minicontainer.detached import foreground
from minicontainer.detached.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from typing import IO

    from minicontainer import spec as s
    from minicontainer.detached import logs
    from minicontainer.detached.attachment import Attachment
    from minicontainer.detached.changes import Change
    from minicontainer.detached.ports import Port
    from minicontainer.detached.stats import Stats, Task
    from minicontainer.network.members import Record


class Inspectable(Client):
    """A container whose output, processes and files can be read."""

    __slots__ = ()

    def attach(self) -> Attachment:
        """Attaches to the container's streams: output from now on, and standard input."""
        from minicontainer.detached.attachment import Attachment

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
        """The output from ``since`` to ``until`` (seconds since 1970), of the last ``tail`` lines; with ``follow`` also
        later output, until the container has ended for good, or ``until``."""
        from minicontainer.detached import logs

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
        """Copies files into the container (copying.py); returns a line for each file that was left out."""
        from minicontainer.detached import copying

        return copying.copy_in(self, source, target, **options)

    def copy_out(self, source: str, target: str, **options: bool) -> list[str]:
        """Copies files out of the container (copying.py); returns a line for each file that was left out."""
        from minicontainer.detached import copying

        return copying.copy_out(self, source, target, **options)

    def export(self, target: str | IO[bytes]) -> list[str]:
        """Writes the root file system as a tar archive to a path or a file (exporting.py); returns a line for each file
        that was left out. Error if the container is ephemeral and does not run."""
        from minicontainer.detached import exporting

        return exporting.export(self, target)

    def changes(self) -> list[Change]:
        """The files that an ephemeral container has added, changed and deleted. Error if it does not run, or is not
        ephemeral."""
        from minicontainer.detached import changes

        foreground.refuse(self, "diff", "no process holds its upper layer")
        return changes.changes(self)

    def sizes(self) -> tuple[int | None, int | None]:
        """Bytes that a running ephemeral container has written (None: its writes go to ROOTFS), and the sum of these
        and ROOTFS."""
        from minicontainer.detached import sizes

        return sizes.sizes(self)

    def stats(self) -> Stats:
        """The current resource usage, from the cgroup, or else from the processes. Error if the container does not
        run."""
        from minicontainer.detached import members, stats

        with members.of(self, "stats") as (cgroup, pids):
            return stats.measure(cgroup, pids)

    def tasks(self) -> list[Task]:
        """The container's processes. Error if it does not run."""
        from minicontainer.detached import members, stats

        with members.of(self, "top") as (_, pids):
            return stats.tasks(pids)

    def lease(self) -> Record | None:
        """The network lease: address, names, published ports; None without a network."""
        if not (path := self._entry.lease()):
            return None
        from minicontainer.network import members

        return members.at(path)

    def published(self) -> tuple[s.Port, ...]:
        """The published ports of the host, while the container runs."""
        from minicontainer.detached import ports

        return ports.published(self._entry, self.config, self.state)

    def ports(self) -> list[Port]:
        """The ports on which the container's processes listen. Error if it does not run."""
        from minicontainer.detached import members, ports

        with members.of(self, "port") as (_, pids):
            return ports.ports(pids)
