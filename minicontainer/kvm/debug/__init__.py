"""Debugging of machines: traces, timelines, single steps, and a gdb server."""
