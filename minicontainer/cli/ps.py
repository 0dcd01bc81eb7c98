"""``minicontainer ps``: list containers."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from minicontainer import spec as s
from minicontainer.cli import filters as f
from minicontainer.cli.command import Command
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.tables import ago, bytes_text, colored, duration, printable, shortened, table
from minicontainer.cli.times import format_time
from minicontainer.container.registry import names, orphans
from minicontainer.detached import store
from minicontainer.detached.records import Config, State
from minicontainer.errors import Error

STATES = ("created", "running", "restarting", "paused", "exited", "dead", "corrupt")
HEADINGS = {"ID": "CONTAINER ID", "RunningFor": "CREATED", "CreatedAt": "CREATED AT"}
COMMAND, ROOTFS = 20, 30  # widths of these columns; that of COMMAND is docker's
TABLE = ("ID", "Rootfs", "Command", "RunningFor", "Status", "Ports", "Names")
CUT = ("ROOTFS", "COMMAND", "PORTS")  # columns that are shortened on a narrow terminal


class Summary:
    """One container's configuration and state. A corrupt container has only an ``error``."""

    def __init__(self, entry: store.Entry, config: Config | None, state: State, error: str = "") -> None:
        self.entry, self.config, self.state, self.error = entry, config, state, error
        self.sizes: tuple[int | None, int | None] = (None, None)  # bytes written, and in total with ROOTFS

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.entry.id

    @property
    def name(self) -> str:
        """The name, or ""."""
        return self.config.name if self.config is not None else ""

    @property
    def created(self) -> float:
        """Seconds since 1970; 0.0: unknown."""
        return self.config.created if self.config is not None else 0.0

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return dict(self.config.labels) if self.config is not None else {}

    @property
    def networks(self) -> list[str]:
        """The network, as a list."""
        return [self.config.spec.network] if self.config is not None else []

    @property
    def mounts(self) -> list[str]:
        """The sources of the mounts."""
        mounts = self.config.spec.mounts if self.config is not None else ()
        return [mount.source or mount.type for mount in mounts]

    @property
    def targets(self) -> list[str]:
        """The targets of the mounts."""
        return [os.path.normpath(mount.target) for mount in self.config.spec.mounts] if self.config is not None else []

    @property
    def restart(self) -> str:
        """The restart policy, without its number."""
        return self.config.restart.partition(":")[0] if self.config is not None else ""

    @property
    def ports(self) -> list[str]:
        """The published ports of a running container, as docker prints them: ``0.0.0.0:8080->80/tcp``."""
        if self.config is None or not self.config.spec.ports:
            return []
        from minicontainer.detached.ports import published

        return [str(port) for port in published(self.entry, self.config, self.state)]


FILTERS: dict[str, Callable[[str], f.Test]] = {
    "id": f.matches("id", lambda c: c.id),
    # a name in docker begins with a slash
    "name": lambda value: f.matches("name", lambda c: c.name)(re.sub(r"^(\^?)/", r"\1", value)),
    "label": f.label(lambda c: c.labels),
    "status": f.one_of("status", STATES, lambda c: c.state.status),
    "exited": lambda value: _exited(f.number("exited", lambda c: c.state.exit_code)(value)),
    "restart": f.one_of("restart", ("no", "on-failure", "always", "unless-stopped"), lambda c: c.restart),
    "network": f.equal(lambda c: c.networks),
    "volume": f.equal(lambda c: [*c.mounts, *c.targets]),
    "before": lambda value: _other(value, lambda c, created: 0 < c.created < created),
    "since": lambda value: _other(value, lambda c, created: c.created > created),
}


def _exited(has_code: f.Test) -> f.Test:
    return lambda item: item.state.status == "exited" and has_code(item)


def _other(word: str, fits: Callable[[Summary, float], bool]) -> f.Test:
    """Compare with the creation time of another container."""
    created = store.find(word).config().created
    return lambda item: fits(item, created)


@click.command("ps", cls=Command)
@click.option("-a", "--all", "everything", is_flag=True, help="List stopped containers too.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("-n", "--last", metavar="N", help="List the N latest containers, running or stopped.")
@click.option("-l", "--latest", is_flag=True, help="List the latest container, running or stopped.")
@click.option("-s", "--size", is_flag=True, help="Show the size of written files, and the total size with ROOTFS.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten ids, commands and paths.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help=f"List matching containers only; KEY: {', '.join(FILTERS)}.",
)
@format_option()
def command(*, everything: bool, quiet: bool, filters: Sequence[str], format_: str, **options: Any) -> int:
    """List running containers: detached ones, and foreground ones with a name, label, --cidfile or network.

    The filters id and name take regular expressions (name=^web$).
    """
    chosen = f.Filters(filters, FILTERS)
    most = 1 if options["latest"] else None if options["last"] is None else s.whole("last", options["last"], -1, 10**9)
    most = None if most == -1 else most
    everything |= most is not None or "status" in chosen or "exited" in chosen
    summaries = [summary for summary in map(read_summary, names.ids()) if summary is not None]
    summaries = [summary for summary in summaries if (everything or summary.state.is_running) and chosen.fit(summary)]
    summaries = sorted(summaries, key=lambda summary: -summary.created)[:most]
    if options["size"] or ".Size" in format_:
        _measure(summaries)
    if quiet:
        click.echo(
            "".join(f"{summary.id if options['no_trunc'] else summary.id[:12]}\n" for summary in summaries), nl=False
        )
        return 0
    rows = [row_of(summary, whole=options["no_trunc"]) for summary in summaries]
    click.echo(
        rows_text(rows, format_, HEADINGS, lambda: _table(rows, options["no_trunc"], size=options["size"])), nl=False
    )
    return 0


def read_summary(identifier: str) -> Summary | None:
    """The container's summary; None if it has been removed meanwhile."""
    entry = store.Entry(identifier)
    try:
        summary = Summary(entry, entry.config(), entry.state())
        if summary.state.status == "dead":
            orphans.end_if_dead(identifier)
        return None if _remove_stale(summary) else summary
    except store.NotFoundError:
        return None
    except Error as e:
        return Summary(entry, None, State("corrupt"), str(e))


def _remove_stale(summary: Summary) -> bool:
    """Removes a foreground container whose owner process was killed; returns whether it did."""
    if summary.config is None or not summary.config.foreground or summary.state.status != "dead":
        return False
    from minicontainer.detached.container import Container

    return Container(summary.id).remove_stale_foreground()


def _measure(summaries: Sequence[Summary]) -> None:
    from minicontainer.detached.container import Container

    for summary in summaries:
        try:
            summary.sizes = Container(summary.id).sizes()
        except (Error, OSError):
            pass  # removed meanwhile, or unreadable: the size is unknown


def row_of(summary: Summary, *, whole: bool) -> Row:
    """The row of one container; ``whole``: without shortening."""
    config, state = summary.config, summary.state
    args = config.spec.args if config is not None else ()
    rootfs = config.spec.rootfs if config is not None else ""
    written, size = summary.sizes
    data = {
        "ID": summary.id,
        "Names": summary.name or None,
        "Rootfs": rootfs or None,
        "Command": shlex.join(args) if args else None,
        "CreatedAt": format_time(summary.created or None),
        "RunningFor": ago(summary.created or None),
        "State": state.status,
        "Status": status_text(summary),
        "Ports": summary.ports,
        "Labels": summary.labels,
        "Networks": summary.networks,
        "Mounts": summary.mounts,
        "SizeRw": written,
        "SizeRootFs": size,
        "Pid": state.process.pid if state.process is not None else None,
        "StartedAt": format_time(state.started),
        "FinishedAt": format_time(state.finished),
        "ExitCode": state.exit_code,
        "OOMKilled": state.oom_killed,
        "RestartCount": state.restarts,
        "RestartPolicy": config.restart if config is not None else None,
        "Error": summary.error or None,
    }
    command = printable(" ".join(args))
    return Row(
        data,
        {
            "ID": summary.id if whole else summary.id[:12],
            "Names": summary.name,
            "Rootfs": rootfs if whole else shortened(rootfs, ROOTFS, keep_end=True),
            "Command": f'"{command if whole else shortened(command, COMMAND)}"',
            "Labels": ",".join(f"{name}={value}" for name, value in sorted(summary.labels.items())),
            "Ports": ", ".join(summary.ports),
            "Networks": ",".join(summary.networks),
            "Mounts": ",".join(summary.mounts),
            "Size": f"{bytes_text(written)} (virtual {bytes_text(size)})",
        },
    )


def _table(rows: Sequence[Row], whole: bool, *, size: bool) -> str:
    fields = [*TABLE, *(["Size"] if size else [])]
    if not any(row.text["Ports"] for row in rows):  # leave the space to other columns
        fields.remove("Ports")
    head = [HEADINGS.get(field, field.upper()) for field in fields]
    cells = [[row.text.get(field, row.data.get(field)) or "" for field in fields] for row in rows]
    for line in cells:
        line[fields.index("Command")] = line[fields.index("Command")][1:-1]
    lines = table(head, cells, () if whole else [name for name in head if name in CUT]).split("\n")
    colours = (row.data["State"] for row in rows)
    return "\n".join([lines[0], *(colored(line, state) for line, state in zip(lines[1:], colours, strict=True))])


def status_text(summary: Summary) -> str:
    """``Up 3 minutes`` or ``Exited (1) 2 hours ago``, as in docker."""
    state = summary.state
    if state.status in ("running", "paused"):
        up = f"Up {duration(time.time() - (state.started or 0))}"
        return f"{up} (paused)" if state.status == "paused" else up
    if state.status == "exited":
        why = "OOMKilled, " if state.oom_killed else ""
        return f"Exited ({why}{state.exit_code}) {ago(state.finished)}"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {ago(state.finished)}"
    return {
        "dead": "Dead (its monitor was killed)",
        "stopping": "Stopping (not all of it has ended)",
        "corrupt": f"Corrupt: {summary.error}",
    }.get(state.status, "Created")
