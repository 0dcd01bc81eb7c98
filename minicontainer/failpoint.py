"""Tests make this process die as by kill -9 at the point NAME that the environment variable
MINICONTAINER_FAILPOINT=manager:NAME selects. (Points of the monitor: monitor:NAME, csrc/monitor/failpoint.c.)"""

from __future__ import annotations

import os

VARIABLE = "MINICONTAINER_FAILPOINT"
_point = os.environ.get(VARIABLE, "").removeprefix("manager:")


def failpoint(name: str) -> None:
    """Kills this process if ``name`` is selected."""
    if name == _point:
        os.kill(os.getpid(), 9)
