"""The request that hands a program to a container that waits for one (csrc/helpers/ready.c): its bytes."""

from __future__ import annotations

import errno
import struct

from minicontainer.container import compiler, placeholders
from minicontainer.container.host import Host
from minicontainer.container.program import execute, failure
from minicontainer.native import ffi, lib
from minicontainer.plan.step import os_bytes
from minicontainer.spec import Spec

HEADER = struct.Struct("=IIIII")  # struct mc_handover
LONGEST = 8 << 20  # bytes of strings; the kernel's limit is 6 MiB (execve(2))
POINTER = 8

if HEADER.size != ffi.sizeof("struct mc_handover"):
    raise ImportError("minicontainer: request.py and native.h disagree about a request")


def encode(spec: Spec, host: Host, identifier: str) -> tuple[bytes, bytes]:
    """The program, environment and working directory of ``spec`` for the container of this id: the message, and the
    content of the memory that a long one is in. ProgramError for what is longer than any exec takes."""
    env = compiler.environment(spec, host)
    paths = execute.program_paths(spec.args[0], env["PATH"])
    envp = [f"{key}={value}".replace(placeholders.ID, identifier) for key, value in env.items()]
    strings = b"".join([os_bytes(text) + b"\0" for text in (spec.cwd, *paths, *spec.args, *envp)])
    if len(strings) > LONGEST:
        raise failure.explain(spec.args[0], errno.E2BIG, None, 0, b"")
    pointers = len(strings) + -len(strings) % POINTER
    room = pointers + POINTER * (len(spec.args) + len(envp) + 2)
    header = HEADER.pack(room, pointers, len(paths), len(spec.args), len(envp))
    return (header + strings, b"") if room <= lib.MC_HANDOVER_ROOM else (header, strings.ljust(room, b"\0"))
