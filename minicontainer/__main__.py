"""``python -m minicontainer``."""

from minicontainer.cli import main

if __name__ == "__main__":
    main()
