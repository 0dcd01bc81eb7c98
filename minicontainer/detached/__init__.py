"""Detached containers: any process starts, inspects, stops and removes them, with no daemon.

Each has a monitor of its own (csrc/monitor/), which ``monitor`` starts, and a directory (``store``). ``Container``
reads the directory and sends requests to the monitor."""
