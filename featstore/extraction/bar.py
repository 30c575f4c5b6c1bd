"""What an extraction says of itself on stderr: each phase by name, then a bar, and the estimate put right."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from featstore.extraction.cost import Estimate
    from featstore.extraction.plan import Plan
    from featstore.types import BackboneSpec

TIMED_BATCHES = 3
"""Batches that put the estimate right; the first of each network is not among them, for it pays for the start."""
FAR_OFF, MATTERS = 1.5, 5.0
"""Ratio to the time that was expected, and seconds, from which on it is worth a line."""
MINUTE, HOUR = 60, 3600


class Bar:
    """Phases and a bar, if `shown`; the bar comes with the first vectors, so that it counts no loading.

    Parameters
    ----------
    shown
        Whether to write anything.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None
        self._total = 0
        self._cost: Estimate | None = None
        self._left = 0.0
        self._begun: set[BackboneSpec] = set()
        self._last = 0.0
        self._took: list[float] = []
        self._expected = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def say(self, phase: str) -> None:
        """Name what is done now."""
        if not self._shown:
            return
        line = f"extract: {phase}"
        if self._bar is None:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        else:
            self._bar.write(line, file=sys.stderr)

    def expect(self, todo: Plan, cost: Estimate) -> None:
        """Say how much there is to do and how long that should take."""
        self._total, self._cost = todo.rows_missing, cost
        self._left = sum(len(cell.missing) * cost.per_vector[cell.key.backbone] for cell in todo.cells)
        what = f"{len(todo.ids):,} images, {self._total:,} vectors to compute"
        self.say(f"{what}, about {about(cost.seconds)} ({cost.basis})")

    def update(self, n: int = 1, backbone: BackboneSpec | None = None) -> None:
        """Count `n` more vectors, of a backbone if these are of one batch."""
        if not self._shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="", desc="extract", smoothing=0.05)
        self._bar.update(n)
        if backbone is not None and self._cost is not None:
            self._time(n, backbone, self._cost)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Say something beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(s, refresh=refresh)

    def _time(self, n: int, backbone: BackboneSpec, cost: Estimate) -> None:
        now, before = perf_counter(), self._last
        self._last = now
        expected = n * cost.per_vector[backbone]
        self._left -= expected
        if backbone not in self._begun:
            self._begun.add(backbone)
        elif len(self._took) < TIMED_BATCHES:
            self._took.append(now - before)
            self._expected += expected
            if len(self._took) == TIMED_BATCHES:
                self._put_right()

    def _put_right(self) -> None:
        slower = sum(self._took) / self._expected
        left = self._left * slower
        if abs(left - self._left) > MATTERS and not 1 / FAR_OFF < slower < FAR_OFF:
            self.say(f"about {about(left)} left by the first batches; the estimate was {about(self._left)}")


def about(seconds: float) -> str:
    """Round seconds for people: ``30 s``, ``4 min``, ``3 h``."""
    if seconds < 1.5 * MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / MINUTE)} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"
