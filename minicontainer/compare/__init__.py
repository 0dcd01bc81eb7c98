"""Measurements of isolation on this host: each comparison in one interleaved run."""
