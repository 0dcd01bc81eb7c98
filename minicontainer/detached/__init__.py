"""Containers that live on: started, looked into, stopped, cleaned up by whoever comes, with no daemon.

Each has a monitor of its own (csrc/monitor/), started by ``monitored``; a directory (``store``); and ``Container``, who
reads that and talks to it.
"""
