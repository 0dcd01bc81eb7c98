"""The plugins of this suite: what tests need (abilities), what they get (supplies), what they may not leave (leaks)."""

pytest_plugins = ["abilities", "accounting", "supplies", "leaks"]
