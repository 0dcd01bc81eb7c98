"""``compare network``: what it measures is there, adds up, and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from supplies import Run

from minicontainer.compare.network import FLOOR, INSIDE, JOINED, PUBLISHED, WITH_PORT
from minicontainer.network import store

pytestmark = pytest.mark.needs("root", "bridge")


def test_all_of_it(minicontainer_cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    words = ("-n", "2", "--containers", "3", "--only", INSIDE, "--only", PUBLISHED, "--meta", str(path))
    done = minicontainer_cli("compare", "network", *words, timeout=150)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text(encoding="utf-8"))
    assert [row["name"] for row in report["packets"]["rows"]] == [FLOOR, INSIDE, PUBLISHED]
    assert [row["name"] for row in report["bytes"]["rows"]] == [FLOOR, INSIDE, PUBLISHED]
    shares = report["joining"]["shares_us"]
    assert shares["nftables"][JOINED] == 0
    assert shares["nftables"][WITH_PORT] > 0
    assert shares["rtnetlink"][JOINED] > 0
    assert report["many"]["containers"] == 3
    assert report["unable"] == {}
    for said in ("attach", "Gbit/s", "3 containers on one bridge", "round trip of a byte"):
        assert said in done.stdout
    assert store.names() == []
