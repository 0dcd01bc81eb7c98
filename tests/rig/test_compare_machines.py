"""``compare microvm`` and ``compare devices``: they boot their machines, and their data are whole. No figure is
asserted."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from box import CLI
from test_machine import tree

from minicontainer.compare import devices
from minicontainer.compare.machinememory import FURTHER, MONITOR, RUN
from minicontainer.network import store

pytestmark = [pytest.mark.needs("rig", "kvm-hardware"), pytest.mark.timeout(420)]


def test_a_machine_beside_qemus_and_its_memory(tmp_path: Path) -> None:
    target, kernel = tmp_path / "figures.json", tree(tmp_path, "vmlinuz")
    chosen = [word for name in ("machine", "qemu-microvm", "memory") for word in ("--only", name)]
    words = ["compare", "microvm", "-n", "1", "--kernel", kernel, *chosen, "--meta", str(target)]
    done = subprocess.run([*CLI, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(target.read_text(encoding="utf-8"))
    samples, memory = report["samples_ns"], report["memory"]
    for name in ("machine", "qemu-microvm"):
        (init,), (total,) = samples["init"][name], samples["total"][name]
        assert 0 < init < total
    assert set(memory) == {RUN, MONITOR, FURTHER}
    assert all(mebibytes > 0 for mebibytes in memory.values())
    assert "machine / qemu-microvm: " in done.stdout
    assert re.search(r"^(kept|MISSED): init: machine / qemu-microvm [0-9.]+ \(at most 0.60\)$", done.stdout, re.M)
    for name, most in ((RUN, "12.00"), (FURTHER, "1.00")):
        assert re.search(rf"^(kept|MISSED): {re.escape(name)} [0-9.]+ \(at most {most}\)$", done.stdout, re.M)


@pytest.mark.needs("bridge", "tun")
def test_disk_and_network_beside_qemus(tmp_path: Path) -> None:
    target, kernel = tmp_path / "figures.json", tree(tmp_path, "vmlinuz")
    words = ["compare", "devices", "-n", "1", "--kernel", kernel, "--meta", str(target)]
    done = subprocess.run([*CLI, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(target.read_text(encoding="utf-8"))
    assert set(report["devices"]) == set(devices.PARTS)
    for part in devices.PARTS:
        assert all(took > 0 for name in devices.NAMES for took in report["samples_ns"][part][name])
        assert re.search(
            rf"^(kept|MISSED): {part}: machine / qemu-microvm [0-9.]+ \(at most 1.00\)$", done.stdout, re.M
        )
    assert store.names() == []
