"""``kernel fetch`` with the apt of this host: a kernel of its distribution, and the modules of a real kernel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from supplies import Run

from minicontainer.microvm import modulefile, modules, store
from minicontainer.microvm.devices import ALWAYS, drivers

pytestmark = pytest.mark.needs("rig-host")  # which has packages too


@pytest.fixture(autouse=True)
def no_kernels() -> Iterator[None]:
    assert store.registered() == []
    yield
    for entry in store.registered():
        store.remove(entry.name)
    shutil.rmtree(store.directory(), ignore_errors=True)


def test_a_kernel_of_this_distribution(minicontainer_cli: Run) -> None:
    done = minicontainer_cli("kernel", "fetch", "--default", timeout=150)
    assert done.returncode == 0, done.stderr
    entry = store.find(done.stdout.strip())
    kernel = entry.kernel
    assert (entry.is_default, kernel.lacks, kernel.announce, kernel.mode) == (True, (), "acpi", None)
    files = modules.load_order(kernel, drivers(ALWAYS)[0])
    names = [modulefile.name_of(path) for path in files]
    assert names.index("virtio_ring") < names.index("virtio_mmio") < names.index("virtiofs")
    for path in files:
        content = modulefile.read(path)
        small = modulefile.stripped(content)
        assert len(small) < len(modulefile.unsigned(content)) < len(content)
        assert modulefile.information(small) == modulefile.information(content)
        assert modulefile.information(small)["vermagic"].startswith(f"{kernel.release} ")
        assert modulefile.stripped(small) == small
    again = minicontainer_cli("kernel", "fetch", timeout=60)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert minicontainer_cli("kernel", "check").returncode == 0
