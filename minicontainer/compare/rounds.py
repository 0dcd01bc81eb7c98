"""Interleaved rounds: each round runs every contender once, in a new random order. So load, caches and the kernel's
deferred work affect all contenders alike, and ratios are meaningful on a noisy machine."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from minicontainer.compare.contenders import Contender
from minicontainer.compare.statistics import Samples
from minicontainer.errors import Error

WARM_UP = 10  # rounds


@contextmanager
def one_processor() -> Iterator[int]:
    """Pin this thread and the processes that it starts to one processor; yields its number. For short measurements:
    the processors of a virtual machine are seldom equally fast."""
    before = os.sched_getaffinity(0)
    chosen = max(before)
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


def interleave(
    what: str,
    entrants: Sequence[Contender],
    rounds: int,
    progress: Callable[[int], None],
    warm_up: int = WARM_UP,
) -> dict[str, list[Samples]]:
    """Run ``rounds`` rounds of all contenders, after a warm-up that is not counted; the samples by part.

    ``what``: the name of the comparison, for errors; ``progress`` is called after each round with its number, which is
    below 0 in the warm-up."""
    samples = [[Samples(entrant.name, []) for _ in entrant.parts] for entrant in entrants]
    for number in range(-warm_up, rounds):
        for i in random.sample(range(len(entrants)), len(entrants)):
            try:
                took = entrants[i].once()
            except Error as e:
                raise Error(f"{what}: {entrants[i].name} failed: {e}") from None
            if number >= 0:
                for each, nanoseconds in zip(samples[i], took, strict=True):
                    each.nanoseconds.append(nanoseconds)
        progress(number)
    by_part: dict[str, list[Samples]] = {}
    for entrant, own in zip(entrants, samples, strict=True):
        for part, each in zip(entrant.parts, own, strict=True):
            by_part.setdefault(part, []).append(each)
    return by_part
