"""Measurements of isolation on this host: each comparison one interleaved run, so that a disturbance is everybody's."""
