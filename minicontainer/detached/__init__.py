"""Detached containers: any process starts, inspects, stops and removes them, with no daemon.

Each container has a monitor of its own (csrc/monitor/), which monitor.py starts, and a directory (store.py).
``Container`` reads the directory and sends requests to the monitor."""
