"""``minicontainer ps``: the detached containers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import click

from minicontainer.cli.tables import ago, colored, duration, printable, table
from minicontainer.detached import store
from minicontainer.errors import Error, SpecError
from minicontainer.spec import Port

HEAD: tuple[str, ...] = ("CONTAINER ID", "ROOTFS", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME")
CUT = ("ROOTFS", "COMMAND", "PORTS")  # shortened where the terminal is narrow
FILTERS = ("id", "name", "label", "status", "exited", "restart")


@click.command("ps", context_settings={"help_option_names": ["--help"]})
@click.option("-a", "--all", "everything", is_flag=True, help="Those too that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="id, name, label, status, exited or restart."
)
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), help="json: a line each.")
def command(everything: bool, quiet: bool, no_trunc: bool, filters: Sequence[str], format_: str) -> int:
    """List the detached containers: those that run, the newest first."""
    tests = [_filter(text) for text in filters]
    everything |= any(key in ("status", "exited") for key, _ in tests)
    rows = [row for row in map(row_of, store.ids()) if row is not None]
    rows = [row for row in rows if (everything or row["running"]) and all(_fits(row, *test) for test in tests)]
    rows.sort(key=lambda row: -row["created"])
    if quiet:
        click.echo("".join(f"{row['id'] if no_trunc else row['id'][:12]}\n" for row in rows), nl=False)
    elif format_ == "json":
        click.echo("".join(f"{json.dumps(row)}\n" for row in rows), nl=False)
    else:
        click.echo(_table(rows, no_trunc))
    return 0


def row_of(identifier: str) -> dict[str, Any] | None:
    """What is said of one; None where it is gone by now. A corrupt one is said to be so."""
    entry = store.Entry(identifier)
    try:
        config, state = entry.config(), entry.state()
    except store.NotFoundError:
        return None
    except Error as e:
        return {"id": identifier, "name": "", "status": "corrupt", "error": str(e), "running": False, "created": 0.0}
    return {
        "id": identifier,
        "name": config.name,
        "rootfs": config.spec.rootfs,
        "command": list(config.spec.args),
        "created": config.created,
        "status": state.status,
        "running": state.is_running,
        "pid": state.process.pid if state.process is not None else None,
        "started": state.started,
        "finished": state.finished,
        "exit_code": state.exit_code,
        "oom_killed": state.oom_killed,
        "restarts": state.restarts,
        "restart": config.restart,
        "labels": dict(config.labels),
        "network": config.spec.network,
        "ports": _ports(entry, config.spec.ports),
    }


def _ports(entry: store.Entry, wanted: Sequence[Port]) -> list[str]:
    """Where it is reached while it runs: ``0.0.0.0:8080->80/tcp``, as docker says it."""
    if not wanted:
        return []
    from minicontainer.network import members

    record = members.at(entry.lease())
    shown = wanted if os.geteuid() != 0 else () if record is None else record.ports
    return [str(port) for port in shown]


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise SpecError("filter", text, f"must be KEY=VALUE, of {', '.join(FILTERS)}")
    return key, value


def _fits(row: dict[str, Any], key: str, value: str) -> bool:
    if key == "label":
        name, equals, wanted = value.partition("=")
        labels = row.get("labels", {})
        return name in labels and (not equals or labels[name] == wanted)
    if key == "id":
        return bool(row["id"].startswith(value))
    if key == "name":
        return re.search(re.escape(value), row["name"]) is not None
    if key == "exited":
        return row["status"] == "exited" and str(row["exit_code"]) == value
    if key == "restart":
        return str(row.get("restart")).partition(":")[0] == value
    return bool(row["status"] == value)


def _table(rows: Iterable[dict[str, Any]], no_trunc: bool) -> str:
    rows = list(rows)
    shown: list[tuple[str, ...]] = [
        (
            row["id"] if no_trunc else row["id"][:12],
            row.get("rootfs", ""),
            printable(" ".join(row.get("command", ()))),
            ago(row["created"]) if row["created"] else "",
            status_text(row),
            ", ".join(row.get("ports", ())),
            row["name"],
        )
        for row in rows
    ]
    head, at = HEAD, HEAD.index("PORTS")
    if not any(line[at] for line in shown):  # a terminal is narrow enough without
        head, shown = HEAD[:at] + HEAD[at + 1 :], [line[:at] + line[at + 1 :] for line in shown]
    cut = () if no_trunc else [name for name in head if name in CUT]
    lines = table(head, shown, cut).split("\n")
    return "\n".join([lines[0], *(colored(line, row["status"]) for line, row in zip(lines[1:], rows, strict=True))])


def status_text(row: dict[str, Any]) -> str:
    """``Up 3 minutes``, ``Exited (1) 2 hours ago``, as docker says it."""
    status = row["status"]
    if status in ("running", "paused"):
        import time

        up = f"Up {duration(time.time() - row['started'])}"
        return f"{up} (paused)" if status == "paused" else up
    if status == "exited":
        why = "OOMKilled, " if row["oom_killed"] else ""
        return f"Exited ({why}{row['exit_code']}) {ago(row['finished'])}"
    if status == "restarting":
        return f"Restarting ({row['exit_code']}) {ago(row['finished'])}"
    return {"dead": "Dead (its monitor was killed)", "corrupt": f"Corrupt: {row.get('error')}"}.get(status, "Created")
