"""To look inside a machine: traces, explanations, single steps, and a gdb server."""
