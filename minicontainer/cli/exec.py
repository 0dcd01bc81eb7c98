"""``minicontainer exec``: a further process in a running container."""

from __future__ import annotations

import os

from minicontainer import spec as s
from minicontainer.cli.environment import environment
from minicontainer.cli.syntax import Argument, Option, Syntax
from minicontainer.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

OPTIONS = (
    Option("-d", "--detach", is_flag=True, help="Do not wait for COMMAND; its streams are /dev/null."),
    Option("-i", "--interactive", is_flag=True, help="Pass stdin. [default: /dev/null]"),
    Option("-t", "--tty", is_flag=True, help="Allocate a terminal."),
    Option(
        "-e",
        "--env",
        multiple=True,
        metavar="VALUE",
        help="Environment variable KEY=VALUE; KEY alone copies the caller's.",
    ),
    Option(
        "--env-file",
        multiple=True,
        metavar="VALUE",
        help="File of environment variables, one per line; # begins a comment.",
    ),
    Option("-w", "--workdir", help="Working directory in the container."),
    Option("-u", "--user", help="User [NAME|UID][:GROUP|GID], from the container's /etc/passwd."),
    Option("--explain", is_flag=True, help="Show every step with its time."),
)


def exec_(container: str, **options: Any) -> int:
    """Run COMMAND in CONTAINER: in its namespaces and its cgroup, with the confinement of its first process."""
    if options["tty"] and not (os.isatty(0) and os.isatty(1)):
        raise SpecError("tty", None, "stdin and stdout are not both a terminal", "leave -t out to pass the streams")
    args = options["command"]
    settings = {"env": environment(options), "cwd": options["workdir"], "user": options["user"]}
    s.Spec(args, rootfs="/", **{name: value for name, value in settings.items() if value is not None})  # validates
    from minicontainer.detached.container import Container

    target = Container.find(container)
    if options["detach"]:
        target.exec_detached(args, **settings)
        return 0
    return _attached(target, args, settings, options)


def _attached(target: Any, args: Sequence[str], settings: dict[str, Any], options: dict[str, Any]) -> int:
    from minicontainer.cli.foreground import foreground
    from minicontainer.container.process import DEVNULL

    stdin = None if options["interactive"] or options["tty"] else DEVNULL
    spec = s.Spec(args, rootfs="/", tty=options["tty"], stop_timeout=target.config.spec.stop_timeout)
    explain = "" if options["explain"] else None
    return foreground(
        spec, explain=explain, start=lambda _: target.exec(args, tty=options["tty"], stdin=stdin, **settings)
    )


ARGUMENTS = (Argument("container", completes="container"), Argument("command", nargs=-1, required=True))
SYNTAX = Syntax("exec", exec_, OPTIONS, ARGUMENTS, interspersed=False)
