"""Directed graphs, as node -> successors."""

from __future__ import annotations

from collections.abc import Mapping


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes from which a way leads back to themselves."""
    return [node for node in graph if node in _reached(graph, node)]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen
