"""System V shared memory segments (shmget(2)) of the IPC namespace."""

from __future__ import annotations

from minicontainer.native import lib, syscall


def shmget(key: int, size: int, flags: int) -> int:
    """shmget(2): the id of the segment ``key``. OSError: EEXIST, ENOENT, EACCES, ENOSPC."""
    return syscall("shmget", lib.SYS_shmget, key, size, flags)


def shm_remove(segment: int) -> None:
    """shmctl(IPC_RMID): remove the segment after the last detach."""
    syscall("shmctl", lib.SYS_shmctl, segment, lib.IPC_RMID, None, what=(segment, "IPC_RMID"))
