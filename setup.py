"""The extension and the static helpers; all metadata and tool settings are in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Static programs that run beside or inside a container: name -> (sources, further flags).
FREESTANDING = ["-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-Wl,--build-id=none"]
HELPERS = {
    "floor": (["csrc/floor.c", "csrc/clone.c"], []),
    "init": (["csrc/init.c", "csrc/exec.c"], FREESTANDING),
    "pause": (["csrc/pause.c"], FREESTANDING),
}
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-static", "-s", "-Icsrc"]


class BuildWithHelpers(build_ext):
    """build_ext, and then the helpers into minicontainer/libexec."""

    def run(self) -> None:
        super().run()
        base = Path("." if self.inplace else self.build_lib) / "minicontainer" / "libexec"
        base.mkdir(parents=True, exist_ok=True)
        for name, (sources, flags) in HELPERS.items():
            subprocess.run(["cc", *FLAGS, *flags, "-o", str(base / name), *sources], check=True)


setup(
    cffi_modules=["csrc/build.py:ffibuilder"],
    cmdclass={"build_ext": BuildWithHelpers},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
