"""``minicontainer inspect``: all that is known of containers, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from minicontainer.cli.names import containers_argument, find
from minicontainer.errors import Error


@click.command("inspect", context_settings={"help_option_names": ["--help"]})
@containers_argument()
def command(containers: Sequence[str]) -> int:
    """Show all that is known of containers, as a JSON list."""
    from minicontainer.cli import report

    found, status = [], 0
    for word in containers:
        try:
            found.append(as_data(find(word)))
        except Error as e:
            report(e)
            status = 1
    click.echo(json.dumps(found, indent=2))
    return status


def as_data(container: Any) -> dict[str, Any]:
    """What was asked for, and what became of it."""
    from minicontainer.spec.data import to_data

    config, state = container.config, container.state
    cgroup = container.open_cgroup()
    path = cgroup.path if cgroup is not None else None
    if cgroup is not None:
        cgroup.close()
    return {
        "id": config.id,
        "name": config.name,
        "created": config.created,
        "state": {
            "status": state.status,
            "running": state.is_running,
            "pid": state.process.pid if state.process is not None else None,
            "monitor": state.monitor.pid if state.monitor is not None else None,
            "started": state.started,
            "finished": state.finished,
            "exit_code": state.exit_code,
            "reason": state.reason,
            "OOMKilled": state.oom_killed,
            "restarts": state.restarts,
            "log_lost": state.log_lost,
        },
        "labels": dict(config.labels),
        "restart": config.restart,
        "log": {"max-size": config.log_size, "max-file": config.log_files},
        "interactive": config.interactive,
        "remove": config.remove,
        "timeout": config.timeout,
        "directory": container.directory,
        "cgroup": path,
        "network": lease.to_data() if (lease := container.lease()) is not None else None,
        "spec": to_data(config.spec),
    }
