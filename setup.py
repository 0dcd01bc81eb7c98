"""The extension, the static helpers and the guests; all metadata and tool settings are in pyproject.toml."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Static programs that run beside or inside a container: name -> (sources, further flags).
FREESTANDING = ["-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", "-Wl,--build-id=none"]
WALK = [f"csrc/plan/{name}.c" for name in "walk exec mountpoint clone now parent spawn netlink packet program".split()]
WALK += ["csrc/helpers/freestanding.c"]
EXECUTE = ["csrc/helpers/execute.c", "csrc/plan/exec.c"]
CLOCK = "csrc/helpers/clock.c"
MONITOR = [*WALK, CLOCK, "csrc/helpers/received.c", *sorted(map(str, Path("csrc/monitor").glob("*.c")))]
COMPILED = [*WALK, "csrc/plan/check.c", "csrc/plan/lay.c", "csrc/helpers/received.c"]
COMPILED += [f"csrc/start/{name}.c" for name in ("measure", "place")]
COMPILED += [f"csrc/monitor/{name}.c" for name in ("cgroup", "remove", "text")]
COMPILED += sorted(map(str, Path("csrc/compiled").glob("*.c")))
HELPERS = {
    "compiled": (COMPILED, [*FREESTANDING, "-Os", "-Wl,-z,noseparate-code"]),
    "enter": (["csrc/helpers/enter.c", CLOCK, *WALK], FREESTANDING),
    "floor": (["csrc/floors/floor.c", "csrc/floors/floorchild.c", "csrc/plan/clone.c"], []),
    "init": (["csrc/helpers/init.c", *EXECUTE], FREESTANDING),
    "monitor": (MONITOR, FREESTANDING),
    "mark": (["csrc/floors/mark.c"], FREESTANDING),
    "pause": (["csrc/floors/pause.c"], FREESTANDING),
    "transfer": (["csrc/floors/transfer.c"], []),
    "usernet": (["csrc/helpers/usernet.c"], []),
    "ready": (["csrc/helpers/ready.c", *EXECUTE], FREESTANDING),
    "probe": (sorted(map(str, Path("csrc/probe").glob("*.c"))), []),
}
if platform.machine() == "x86_64":
    VMM = [*sorted(map(str, Path("csrc/vmm").glob("*.c"))), *sorted(map(str, Path("csrc/virtio").rglob("*.c")))]
    VMM += ["csrc/plan/dumpable.c", "csrc/plan/now.c", *(f"csrc/kvm/{name}.c" for name in ("exits", "serial", "vcpu"))]
    HELPERS["kvmfloor"] = (["csrc/floors/kvmfloor.c"], [])
    HELPERS["krun"] = (["csrc/floors/krun.c"], ["-Wl,--no-as-needed", "-ldl"])
    HELPERS["vmm"] = (VMM, ["-pthread"])
    HELPERS["vmexec"] = (["csrc/vmexec/main.c"], ["-pthread"])
    GUEST = [*WALK, CLOCK, "csrc/plan/check.c", "csrc/plan/lay.c", "csrc/helpers/received.c"]
    GUEST += [f"csrc/monitor/{name}.c" for name in ("remove", "text")]
    HELPERS["guestinit"] = ([*GUEST, *sorted(map(str, Path("csrc/guest").glob("*.c")))], FREESTANDING)
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-s", "-Icsrc"]
DYNAMIC = {"krun"}  # loads a library; the others are static

# Guests of virtual machines: name -> kind. Their sources are csrc/guests/NAME.S, or NAME.c.
GUESTS = {
    "bios": "bios",
    "bootsector": "sector",
    **dict.fromkeys(["exits", "flood", "hello", "loop", "pio-storm", "self-modifying"], "real"),
    **dict.fromkeys(
        ["echo", "hello32", "hole", "mmio-nowhere", "multiboot", "smp", "timer", "triple-fault"], "protected"
    ),
    **dict.fromkeys(["hello64", "memory", "sieve"], "long"),
}
FLAT = ["-m32", "-Wl,-T,csrc/guests/flat.ld"]
KINDS = {
    "bios": [*FLAT, "-Wl,--defsym=BASE=0"],
    "sector": [*FLAT, "-Wl,--defsym=BASE=0x7c00"],
    "real": [*FLAT, "-Wl,--defsym=BASE=0x1000"],
    "protected": ["-m32", "-Wl,-T,csrc/guests/elf.ld"],
    "long": ["-m64", "-Wl,-T,csrc/guests/elf.ld"],
}
# -n: segments need not begin at whole pages. Symbols stay, for debuggers.
GUEST_FLAGS = [*FREESTANDING, "-O2", "-Wall", "-Wextra", "-static", "-no-pie", "-fno-pic", "-fcf-protection=none"]
GUEST_FLAGS += ["-fno-asynchronous-unwind-tables", "-mno-red-zone", "-mgeneral-regs-only"]
GUEST_FLAGS += ["-Wl,-n", "-Wl,-z,noexecstack"]


# What a wheel has for man(1) and for shells, below the prefix: file -> our command that prints it.
SHARE = {
    "share/man/man1/minicontainer.1": ["manual"],
    "share/bash-completion/completions/minicontainer": ["completion", "bash"],
    "share/zsh/site-functions/_minicontainer": ["completion", "zsh"],
    "share/fish/vendor_completions.d/minicontainer.fish": ["completion", "fish"],
}


def build_share(built: Path, directory: Path) -> list[tuple[str, list[str]]]:
    """The files of SHARE, made below ``directory`` by the package that was built: setuptools' data_files."""
    path = os.pathsep.join([str(built.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = []
    for name, words in SHARE.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as output:
            command = [sys.executable, "-m", "minicontainer", *words]
            subprocess.run(command, cwd=built, env={**os.environ, "PYTHONPATH": path}, stdout=output, check=True)
        found.append((os.path.dirname(name), [str(file)]))
    return found


def build_guests(directory: Path) -> None:
    """The guests, into ``directory``: by the compiler alone, since none of them needs a library."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, kind in GUESTS.items():
        (source,) = Path("csrc/guests").glob(f"{name}.[Sc]")
        subprocess.run(["cc", *GUEST_FLAGS, *KINDS[kind], "-o", str(directory / name), str(source)], check=True)


class BuildWithHelpers(build_ext):
    """build_ext, and then the helpers into minicontainer/libexec, the guests beside them, and what lies in share."""

    def run(self) -> None:
        super().run()
        base = Path("." if self.inplace else self.build_lib) / "minicontainer" / "libexec"
        base.mkdir(parents=True, exist_ok=True)
        for name, (sources, flags) in HELPERS.items():
            linked = [] if name in DYNAMIC else ["-static"]
            subprocess.run(["cc", *FLAGS, *linked, *flags, "-o", str(base / name), *sources], check=True)
        if platform.machine() == "x86_64":
            build_guests(base / "guests")
        if not self.inplace:
            self.distribution.data_files = build_share(Path(self.build_lib), Path(self.build_temp))


setup(
    cffi_modules=[f"csrc/{name}.py:ffibuilder" for name in ("build", "libseccomp", "libnftables", "libzstd")],
    cmdclass={"build_ext": BuildWithHelpers},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
