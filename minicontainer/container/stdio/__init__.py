"""The three streams of a container, and the exchange with them that does not deadlock."""
