"""Registers kernels: of a file, or of a tree of files (an unpacked package)."""

from __future__ import annotations

import os
import shutil
import time

from minicontainer.errors import Error, SpecError, sentence
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.microvm import check, kernelfile, krunfw, modulefile, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minicontainer.microvm.kernelfile import LinuxKernel

CHUNK = 1 << 20


def add(file: str, *, modules: str | None = None, name: str | None = None, default: bool = False) -> store.Registered:
    """Registers a copy of a bzImage, of an ELF file, or of the kernel in libkrunfw, with a copy of its modules:
    ``modules``, or those where the file lies (``kernelfile.modules_beside``). Its name is that of its release, unless
    ``name`` gives one. KernelError, SpecError."""
    if name is not None:
        store.check_name(name)
    if modules is not None and not kernelfile.is_modules(modules):
        lists = ", ".join(kernelfile.LISTS)
        raise SpecError("modules", modules, f"is no directory of modules: it has none of {lists}", "lib/modules/*")
    with Kernel(file) as opened:
        bundle = krunfw.find(opened) if krunfw.is_library(opened) else None
        if bundle is None:
            kernel = kernelfile.read(file)
            kernel = kernel._replace(modules=modules or kernel.modules)
        elif modules is not None:
            raise SpecError("modules", modules, "a kernel of libkrunfw has none")
        else:
            kernel = kernelfile.LinuxKernel(file, bundle.release, mode=kernelfile.LINUX64, kind=kernelfile.LIBKRUNFW)
        store.check_free(name or default_name(kernel))
        with store.part() as part:
            if bundle is None:
                _copy(kernel, part)
                places = {}
            else:
                _write_bundle(opened, bundle, f"{part}/{store.KERNEL}")
                places = {"load": bundle.load, "entry": bundle.entry}
            return publish(part, kernel, source=os.path.abspath(file), name=name, default=default, **places)


def publish(
    part: str, kernel: LinuxKernel, *, source: str, name: str | None, default: bool, **more: Any
) -> store.Registered:
    """Registers what lies in ``part``. ``kernel``: its release, kind and mode; ``more``: further metadata."""
    place = kernel._replace(
        path=f"{part}/{store.KERNEL}",
        modules=_if_there(f"{part}/{store.MODULES}"),
        config=_if_there(f"{part}/{store.CONFIG}"),
    )
    found = check.completed(place)
    metadata = {
        "kind": kernel.kind,
        "release": kernel.release,
        "mode": kernel.mode,
        "announce": found.announce,
        "lacks": found.lacks,
        "created": time.time(),
        "source": source,
        **more,
    }
    entry = store.publish(part, name or default_name(kernel), metadata)
    if default:
        store.make_default(entry.name)
        entry = store.find(entry.name)
    return entry


def default_name(kernel: LinuxKernel) -> str:
    """The name under which a kernel is registered without another: its release."""
    name = kernel.release.replace("+", "-").replace("~", "-")
    return f"{kernel.kind}-{name}" if kernel.kind != kernelfile.LINUX else name


def _if_there(path: str) -> str | None:
    return path if os.path.exists(path) else None


def _write_bundle(file: Kernel, bundle: krunfw.Bundle, path: str) -> None:
    """Writes the ELF file of a kernel of libkrunfw."""
    with open(path, "xb") as made:
        made.write(krunfw.vmlinux_header(bundle))
        for at in range(0, bundle.size, CHUNK):
            made.write(file.read(bundle.offset + at, min(CHUNK, bundle.size - at), "its kernel"))


def _copy(kernel: LinuxKernel, part: str) -> None:
    shutil.copyfile(kernel.path, f"{part}/{store.KERNEL}")
    if kernel.config is not None:
        shutil.copyfile(kernel.config, f"{part}/{store.CONFIG}")
    if kernel.modules is not None:
        for path in module_files(kernel.modules):
            target = f"{part}/{store.MODULES}/{path}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(f"{kernel.modules}/{path}", target)


def module_files(directory: str) -> Iterator[str]:
    """The paths of a kernel's modules and of their lists; without the links to its source."""
    for place, _, names in os.walk(directory):
        at = os.path.relpath(place, directory)
        for name in names:
            is_list = at == "." and name.startswith("modules.")
            if (is_list or modulefile.name_of(name)) and os.path.isfile(f"{place}/{name}"):
                yield os.path.normpath(f"{at}/{name}")


def from_tree(tree: str, part: str, *, source: str, name: str | None, default: bool) -> store.Registered:
    """Registers the one kernel of an unpacked package; its files are moved to ``part``, and the tree is removed. Error:
    there is none, or more than one."""
    found = [path for place in ("boot", "lib/modules", "usr/lib/modules") for path in _kernels(f"{tree}/{place}")]
    if len(found) != 1:
        raise Error(sentence("package", source, f"holds {len(found) or 'no'} kernel{'s' * (len(found) > 1)}"))
    kernel = kernelfile.read(found[0])
    for path, place in ((kernel.path, store.KERNEL), (kernel.config, store.CONFIG), (kernel.modules, store.MODULES)):
        if path is not None and path.startswith(f"{tree}/"):  # else they are the host's
            os.rename(path, f"{part}/{place}")
    shutil.rmtree(tree)
    return publish(part, kernel, source=source, name=name, default=default)


def _kernels(place: str) -> Iterator[str]:
    for directory, below, names in os.walk(place):
        if directory == place:
            yield from (f"{place}/{name}" for name in names if name.startswith("vmlinuz-"))
            continue
        below.clear()
        yield from (f"{directory}/{name}" for name in names if name == "vmlinuz")
