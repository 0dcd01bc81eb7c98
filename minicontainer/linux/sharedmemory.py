"""Segments of System V's shared memory (shmget(2)), as an IPC namespace keeps them apart."""

from __future__ import annotations

from minicontainer.native import lib, syscall


def shmget(key: int, size: int, flags: int) -> int:
    """shmget(2): the id of the segment ``key``. OSError: EEXIST, ENOENT, EACCES, ENOSPC."""
    return syscall("shmget", lib.SYS_shmget, key, size, flags)


def shm_remove(segment: int) -> None:
    """shmctl(IPC_RMID): removes it once nobody has it attached."""
    syscall("shmctl", lib.SYS_shmctl, segment, lib.IPC_RMID, None, what=(segment, "IPC_RMID"))
