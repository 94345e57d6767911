"""How long jobs wait and run: the bounds of the histograms that the scripts count into, and how counts are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from services.jobs import Lane, Priority

# Seconds: from a scan of milliseconds to bulk work that waits for a night. The scripts get them with their options.
BOUNDS: Final = (
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
    300,
    900,
    3600,
    14400,
    86400,
)

# Seconds to the first and between tokens of a generation: from a token of a GPU to a long prompt on a CPU.
TOKEN_BOUNDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

# Upper bound in seconds, the last one infinite, and how many took as long or less.
Histogram = list[tuple[float, int]]


def histograms(fields: Mapping[str, str]) -> dict[tuple[str, Lane, Priority], Histogram]:
    """Cumulative buckets by ``wait`` or ``run``, lane and priority, from the hash that the scripts count into.

    A field whose bound is no bound any more counts in the next wider bucket.
    """
    counts: dict[tuple[str, Lane, Priority], Counter[float]] = {}
    for field, value in fields.items():
        what, lane, priority, bound = field.split("|")
        cell = counts.setdefault((what, Lane(lane), Priority(priority)), Counter())
        cell[next((wider for wider in BOUNDS if wider >= float(bound)), math.inf)] += int(value)
    bounds = (*BOUNDS, math.inf)
    return {
        key: list(zip(bounds, accumulate(cell[bound] for bound in bounds), strict=True)) for key, cell in counts.items()
    }
