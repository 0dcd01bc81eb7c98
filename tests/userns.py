"""User and mount namespaces as in LXC, rootless podman or a CI service. Also a program:

    python tests/userns.py FIRST COUNT COMMAND...

runs a command as root of a user namespace that maps COUNT ids from 0 to those from FIRST on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE, ALL, SHIFTED = ("0", "1"), ("0", "65536"), ("200000", "65536")  # FIRST and COUNT


def inside(ids: tuple[str, str]) -> list[str]:
    """The command prefix that runs a command in such namespaces."""
    return [sys.executable, str(Path(__file__).resolve()), *ids]


def main(first: str, count: str, *command: str) -> int:
    made, mapped = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        from minicontainer.linux import unshare

        unshare("CLONE_NEWUSER|CLONE_NEWNS")
        os.write(made[1], b"x")
        assert os.read(mapped[0], 1) == b"x"
        if count != "1":
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.execvp(command[0], command)
    os.read(made[0], 1)
    if count == "1":
        Path(f"/proc/{pid}/setgroups").write_text("deny", encoding="ascii")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {first} {count}", encoding="ascii")
    os.write(mapped[1], b"x")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
