"""The plugins of this suite: where containers are known (ownroot), what tests need
(abilities), what they get (supplies, compiling), what they may not leave (leaks)."""

pytest_plugins = ["ownroot", "abilities", "accounting", "supplies", "compiling", "leaks"]
