"""The ``minicontainer`` command, and ``python -m minicontainer``."""

import gc


def main() -> None:
    """The command line. Garbage collection is rare: imported modules stay alive, and a run is short."""
    gc.set_threshold(100_000)
    from minicontainer.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
