"""What a comparison will take, told before it begins: how many fits, about how long, and how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.evaluation.views import EXPAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.evaluation.contestants import Contestant
    from featstore.folds import Split
    from featstore.matrix import FeatureMatrix

SECONDS_PER_PRODUCT = 1.8e-10
"""Of the linear probe on two cores, an order of magnitude: it multiplies its rows by each other, or its columns.

A quarter of a second for 576 rows of 3,840 numbers, twelve minutes for 20,000 rows of 14,144.
"""
COPIES = 6
"""A fit holds its training rows about so many times, in float32 and float64."""
LONG, LARGE = 60.0, 2 * 10**9
"""From so many seconds or bytes on it is said beforehand."""
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """Fits, seconds and peak bytes of all processes; rough, and at most: answers that are kept cost nothing."""

    fits: int
    seconds: float
    bytes: int

    @property
    def is_worth_telling(self) -> bool:
        """Whether anybody would want to know before it begins."""
        return self.seconds >= LONG or self.bytes >= LARGE


def forecast(
    matrix: FeatureMatrix, contestants: Sequence[Contestant], rounds: Sequence[Split], jobs: int, cores: int
) -> Forecast:
    """Estimate a comparison from the sizes alone.

    Parameters
    ----------
    matrix, contestants, rounds
        What is compared, and the folds.
    jobs
        As for `featstore.compare`.
    cores
        Of this machine.
    """
    columns = {spec.name: spec.dimension for spec in matrix.specs}
    images = [len(train) for train, _ in rounds]
    shapes = [
        (
            rows * (len(matrix.views) if one.views == EXPAND else 1),
            sum(columns[name] for name in one.backbones),
        )
        for one in contestants
        for rows in images
    ]
    cells = [rows * width for rows, width in shapes]
    seconds = SECONDS_PER_PRODUCT * sum(rows * width * min(rows, width) for rows, width in shapes)
    processes = max(1, min(cores if jobs < 0 else jobs, len(cells)))
    copies = sum(sorted(cells, reverse=True)[:processes]) * COPIES * FLOAT_BYTES
    return Forecast(len(cells), seconds / min(processes, cores), matrix.features.nbytes + copies)
