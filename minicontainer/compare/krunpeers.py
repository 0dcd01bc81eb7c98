"""The contenders of ``compare microvm`` that need libkrun: a machine of libkrun's with the kernel of libkrunfw, ours
with the same kernel, and libkrun with the kernel of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from minicontainer.compare.linux import APPEND
from minicontainer.errors import SpecError
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.microvm import adding, kernelimage, store
from minicontainer.native import LIBEXEC

LIBKRUN, LIBKRUN_LINUX = "libkrun", "libkrun-linux"
MACHINE_KRUNFW, COMPILED_KRUNFW = "machine-krunfw", "compiled-krunfw"
NAMES = (LIBKRUN, MACHINE_KRUNFW, COMPILED_KRUNFW, LIBKRUN_LINUX)
LAUNCHER = f"{LIBEXEC}/krun"  # csrc/floors/krun.c
BUNDLE = "libkrunfw.so.5"  # the name by which libkrun looks for it
COPY = "compare-{}"  # name of the registered copy of libkrunfw's kernel


def check(library: str) -> None:
    """SpecError: it cannot be read, or no libkrunfw is beside it."""
    for path in (library, _bundle(library)):
        if not os.access(path, os.R_OK):
            raise SpecError("libkrun", library, f"{path} cannot be read", f"libkrun.so with {BUNDLE} beside it")


@contextmanager
def registered(library: str) -> Iterator[store.Registered]:
    """A copy of the kernel in libkrunfw, which ``--kernel`` finds by its name, for as long as the context."""
    entry = adding.add(_bundle(library), name=COPY.format(os.getpid()))
    try:
        yield entry
    finally:
        store.remove(entry.name)


def own_kernel(library: str, mib: int, root: str, program: str) -> list[str]:
    """The command of libkrun with the kernel in libkrunfw."""
    path = f"LD_LIBRARY_PATH={os.path.dirname(os.path.abspath(library))}"
    return ["env", path, LAUNCHER, os.path.abspath(library), str(mib), root, program]


def linux(own: Sequence[str], kernel: str, initrd: str, scratch: str) -> list[str]:
    """The command ``own`` with another kernel, which is unpacked for it; none: it cannot be."""
    image = os.path.join(scratch, "vmlinux")
    with Kernel(kernel) as file, kernelimage.unpacked(file) as inner:
        if inner is None:
            return []
        with kernelimage.content(inner) as content, open(image, "wb") as copy:
            copy.write(content)
    return [*own, image, initrd, APPEND]


def _bundle(library: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(library)), BUNDLE)
