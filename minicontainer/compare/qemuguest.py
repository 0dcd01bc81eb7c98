"""QEMU's guest in ``compare devices``: an initramfs that loads drivers, mounts a disk, brings up eth0, and runs a
program; and the disk and the network interface that QEMU gives it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from minicontainer.cpio import newc
from minicontainer.microvm import modulefile, modules
from minicontainer.microvm.kernelfile import LinuxKernel
from minicontainer.network.record import Network

MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "erofs")
DIRECTORIES = ("bin", "dev", "disk", "modules")
SCRIPT = """#!/bin/busybox sh
for module in /modules/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t erofs -o ro /dev/vda /disk
/bin/busybox ip link set lo up
/bin/busybox ip address add {address} dev eth0
/bin/busybox ip link set eth0 up
{command}
/bin/busybox poweroff -f
"""


def initrd(kernel: LinuxKernel, root: str, address: str, command: str) -> bytes:
    """The initramfs; ``root``: a directory with bin/busybox; ``address``: that of eth0, with its prefix length;
    ``command``: of the shell. The disk, an erofs, is at /disk.

    UnsupportedError: the kernel lacks a module."""
    files = {"init": SCRIPT.format(address=address, command=command).encode()}
    with open(os.path.join(root, "bin/busybox"), "rb") as file:
        files["bin/busybox"] = file.read()
    for number, path in enumerate(modules.load_order(kernel, MODULES)):
        files[f"modules/{number:02}.ko"] = modulefile.read(path)
    return newc(DIRECTORIES, files)


def devices(image: str, tap: str) -> Sequence[str]:
    """QEMU's options for a disk with a file of the host, through the host's page cache as ours, and a network interface
    whose frames QEMU itself moves (vhost=off), as our monitor does. Both have a current transport, as ours."""
    disk = f"file={image},if=none,id=disk,format=raw,readonly=on,cache=writeback,aio=threads"
    return (
        *("-global", "virtio-mmio.force-legacy=false"),
        *("-drive", disk, "-device", "virtio-blk-device,drive=disk"),
        *("-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no,vhost=off"),
        *("-device", "virtio-net-device,netdev=net"),
    )


@contextmanager
def tap_on(network: Network, name: str) -> Iterator[str]:
    """A tap interface on the network's bridge, for as long as the context; yields its name."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("add", ifname=name, kind="tuntap", mode="tap")
        try:
            (index,) = ip.link_lookup(ifname=name)
            ip.link("set", index=index, master=network.index, state="up")
            yield name
        finally:
            ip.link("del", ifname=name)
