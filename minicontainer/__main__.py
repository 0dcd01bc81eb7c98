"""The ``minicontainer`` command, and ``python -m minicontainer``."""

import gc


def main() -> None:
    """The command line. What it imports stays, and a run is short: the collector would look at all of it in vain."""
    gc.set_threshold(100_000)
    from minicontainer.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
