"""``rootfs busybox``: what it makes, that it makes it whole or not at all, and whom it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fixtures_of_rootfs import Cli

from minicontainer import rootfs
from minicontainer.errors import Error, SpecError, UnsupportedError
