"""``run``, ``exec`` and ``kvm-boot`` without click, if their words are plainly right; and what precedes any command."""

from __future__ import annotations

import os
import sys

from minicontainer import runtime
from minicontainer.cli.options import named_options
from minicontainer.errors import Error, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.cli.syntax import Syntax

COMPLETION = "_MINICONTAINER_COMPLETE"  # a shell asks click for completions
NO_CONTAINERS = {"completion", "compare", "doctor", "help", "kvm-boot", "manual", "rootfs", "version"}


def call(words: Sequence[str]) -> int | None:
    """Call the command that ``words`` name, and return its exit code; None if click has to read them."""
    root, name, rest = _split(words)
    syntax = None if COMPLETION in os.environ or root == "" else _syntax(name)
    read = None if syntax is None else syntax.parse(rest)
    if syntax is None or read is None:
        return None
    try:
        prepare(name, root)
        with named_options(syntax.spellings(), read.spelled, read.values):
            return syntax.function(**read.values)
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)  # below what the terminal echoes, as click does
        raise KeyboardInterrupt from None


def _split(words: Sequence[str]) -> tuple[str | None, str, Sequence[str]]:
    """The value of --root, the command, and its words; the command is "" where click has to read them."""
    if words and words[0].startswith("--root="):
        return words[0][7:], *_first(words[1:])
    if len(words) > 1 and words[0] == "--root":
        return words[1], *_first(words[2:])
    return None, *_first(words)


def _first(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    return (words[0], words[1:]) if words else ("", ())


def _syntax(name: str) -> Syntax | None:
    if name == "run":
        from minicontainer.cli.run import SYNTAX

        return SYNTAX
    if name == "exec":
        from minicontainer.cli.exec import SYNTAX

        return SYNTAX
    if name == "kvm-boot":
        from minicontainer.cli.kvmboot import SYNTAX

        return SYNTAX
    return None


def prepare(name: str | None, root: str | None) -> None:
    """What precedes every command: the state directory of --root, and the end of containers without a monitor."""
    if root is not None:
        if not root:
            raise SpecError("root", root, "is empty")
        os.environ[runtime.VARIABLE] = os.path.abspath(root)
    if name not in NO_CONTAINERS:
        _end_dead()


def _end_dead() -> None:
    """End the containers whose monitors were killed, before every command."""
    from minicontainer.container.registry import names

    try:
        unmonitored = names.without_owner()
    except (Error, OSError):
        return  # the command itself reports the error of the state directory
    if unmonitored:
        from minicontainer.detached.container import end_dead

        end_dead(unmonitored)
