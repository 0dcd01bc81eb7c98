"""Gives the test run a state directory (MINICONTAINER_ROOT) and a cgroup of its own, so that it does not meet
containers that others run meanwhile. A pytest plugin.

It also resets ignored signals, as inherited from nohup(1) or a background job: tests interrupt programs by signals.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress

import pytest

from minicontainer import runtime


def pytest_configure(config: pytest.Config) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    place = "/run" if os.access("/run", os.W_OK) else None
    os.environ[runtime.VARIABLE] = tempfile.mkdtemp(prefix="minicontainer-tests-", dir=place)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    from abilities import cgroup2_mounts

    for mount in cgroup2_mounts():
        home = mount / f"minicontainer{runtime.suffix()}"
        for path in (home / "monitors", home):
            with suppress(OSError):  # it was never created, or is in use, which is reported as a leak
                path.rmdir()
    shutil.rmtree(os.environ.pop(runtime.VARIABLE), ignore_errors=True)
