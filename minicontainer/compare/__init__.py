"""Measurements of isolation on this host; all contenders take turns, so a disturbance affects all alike."""
