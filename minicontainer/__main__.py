"""The ``minicontainer`` command, and ``python -m minicontainer``."""

from __future__ import annotations

import gc
import os
import sys

BUNDLED = ("run", "exec", "kvm-boot")  # commands that are read without click (cli/plain.py)


def main() -> None:
    """The command line: turns any failure into one line on stderr and a documented exit code.

    Garbage collection is rare: imported modules stay alive, and a run is short."""
    gc.set_threshold(100_000)
    _open_streams()
    from minicontainer import bundle

    command = next((word for word in sys.argv[1:4] if word in BUNDLED), "")
    wants_bundle = command != "" and not bundle.use(command)
    from minicontainer import cli
    from minicontainer.cli import plain
    from minicontainer.cli.outputs import name_stdout
    from minicontainer.light import show_warnings

    name_stdout()
    show_warnings(cli.warn, now=False)
    try:
        code = plain.call(sys.argv[1:])
        if code is None:
            wants_bundle = False
            show_warnings(cli.warn, now=True)  # a command may record warnings, which replaces showwarning for a while
            from minicontainer.cli.root import cli as group

            code = group.main(prog_name="minicontainer", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as e:
        code = cli.report(e)
        wants_bundle = False
    _flush()
    if wants_bundle:
        bundle.store(command)
    os._exit(code if isinstance(code, int) else 0)  # finalization of the interpreter takes a tenth of a short run


def _open_streams() -> None:
    """Open /dev/null for a closed stdin, stdout or stderr, so that no other descriptor gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)  # gets ``number``, the lowest that is free
            setattr(sys, name, open(fd, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - for ever


def _flush() -> None:
    """Flush the streams; a failed write to stdout has been reported already."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass


if __name__ == "__main__":
    main()
