"""A server for gdb: the GDB remote serial protocol over a ``Machine`` (GDB manual, "GDB Remote Serial Protocol").

packets (frames) -> session (one client) -> commands (requests) -> target (state) and execution (steps, breakpoints).
"""

from minicontainer.kvm.debug.gdb.server import Server, parse_address

__all__ = ["Server", "parse_address"]
