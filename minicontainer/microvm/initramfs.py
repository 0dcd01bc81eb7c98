"""The initramfs of a machine: its init, and the modules that it loads first.

    /init           LIBEXEC/guestinit
    /init-helper    LIBEXEC/init, which runs a container's program as its process 1
    /modules/       NN-NAME.ko, in the order of their names
    /dev/console    so that the kernel opens its console for init

It is kept in a file of ``~/.cache/minicontainer/initramfs`` (usercache.py) whose name is the BLAKE2b of what it is made
of: path, time and size of each module and of our programs. Those of the modules are in a second file there, found by
what they were chosen by; so a start reads no list of modules.
"""

from __future__ import annotations

import os

from minicontainer import usercache
from minicontainer.errors import UnsupportedError
from minicontainer.microvm import kernelfile, stamps
from minicontainer.microvm.devices import ALWAYS, drivers
from minicontainer.native import LIBEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.microvm.devices import Device
    from minicontainer.microvm.kernelfile import LinuxKernel

KIND = "initramfs"
TOTAL_MAX = 256 << 20  # bytes of all files
FORMAT = 1  # of what is kept
DIRECTORIES = ("dev", "proc", "sys", "root", "modules")
CONSOLE = {"dev/console": (5, 1)}  # Linux Documentation/admin-guide/devices.txt
PROGRAMS = {"init": "guestinit", "init-helper": "init"}  # name in the archive -> file of LIBEXEC
FORCED = "CONFIG_MODULE_SIG_FORCE"


def open_base(kernel: LinuxKernel, devices: Sequence[Device] = ALWAYS) -> int:
    """A descriptor of the initramfs for a kernel, which the caller closes: of a file, or of a memfd where no file can
    be kept. It has the drivers of ``devices``.

    UnsupportedError: the kernel lacks a module, or cannot run a machine at all."""
    if kernel.lacks:
        _check_features(kernel)
    wanted, optional = drivers(devices)
    index = stamps.digest(stamps.encoded(repr((FORMAT, *kernel[:4], *wanted, "", *optional, *_chosen_by(kernel)))))
    known = _known(index)
    if known is not None and (fd := usercache.reuse(KIND, _name(index, known))) is not None:
        return fd
    from minicontainer.microvm import modules

    files = modules.load_order(kernel, wanted, optional=optional)
    made_of = stamps.encoded("\n".join(stamps.of_files([*files, *_programs()])))
    archive = base(kernel, files)
    usercache.keep(KIND, _name(index, made_of), archive, most=TOTAL_MAX)
    usercache.keep(KIND, index, made_of)
    fd = usercache.reuse(KIND, _name(index, made_of))
    return _in_memory(archive) if fd is None else fd


def _check_features(kernel: LinuxKernel) -> None:
    from minicontainer.microvm import features, modules

    for feature in map(features.of_name, kernel.lacks):
        if not feature.module:  # of modules, load_order says more
            raise modules.missing(kernel, feature)


def base(kernel: LinuxKernel, files: Sequence[str]) -> bytes:
    """The archive, with the modules of these files."""
    from minicontainer import cpio
    from minicontainer.microvm import modulefile

    keep_whole = _forces_signatures(kernel)
    width = max(2, len(str(len(files))))
    content = {name: _program(path) for name, path in zip(PROGRAMS, _programs(), strict=True)}
    for number, path in enumerate(files):
        raw = modulefile.read(path)
        name = f"modules/{number:0{width}}-{modulefile.name_of(path)}.ko"
        content[name] = raw if keep_whole else modulefile.stripped(raw)
    return cpio.newc(DIRECTORIES, content, CONSOLE)


def _forces_signatures(kernel: LinuxKernel) -> bool:
    """Whether a kernel is known to load signed modules only."""
    if kernel.config is None:
        return False
    from minicontainer.microvm import build

    with build.Build(kernel) as built:
        return built.value(FORCED) == "y"


def _programs() -> list[str]:
    return [f"{LIBEXEC}/{file}" for file in PROGRAMS.values()]


def _program(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        raise UnsupportedError("machine", None, f"there is no {path}", "make build, on x86_64") from None


def _chosen_by(kernel: LinuxKernel) -> list[str]:
    """The stamps of what the modules of a kernel are chosen by."""
    names = [f"{kernel.modules}/{name}" for name in ("", *kernelfile.LISTS)] if kernel.modules else []
    return stamps.of_files([kernel.path, *names, *([kernel.config] if kernel.config else [])])


def _known(index: str) -> bytes | None:
    """The stamps of what an initramfs was made of, if they are those of now."""
    fd = usercache.find(KIND, index)
    if fd is None:
        return None
    with open(fd, "rb", buffering=0) as file:
        data = file.read()
    return data if stamps.are_current(data) else None


def _name(index: str, made_of: bytes) -> str:
    """The name of an archive, by what its modules were chosen by and what it is made of."""
    return stamps.digest(index.encode() + made_of)


def _in_memory(archive: bytes) -> int:
    fd = os.memfd_create("minicontainer-initramfs", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(archive)
    except BaseException:
        os.close(fd)
        raise
    return fd
