"""Where this process can be made to die as by kill -9, to see what is left then: at the point that the variable
MINICONTAINER_FAILPOINT=manager:NAME names. (The monitor's are monitor:NAME, csrc/monitor/failpoint.h.)"""

from __future__ import annotations

import os

VARIABLE = "MINICONTAINER_FAILPOINT"
_point = os.environ.get(VARIABLE, "").removeprefix("manager:")


def failpoint(name: str) -> None:
    """Dies here, if this is the point."""
    if name == _point:
        os.kill(os.getpid(), 9)
