"""One strategy a file; the file's name is the strategy's name. `strategies` lists them without importing any."""

from __future__ import annotations

from dataclasses import dataclass, field

from featstore import registry
from featstore.arguments import public
from featstore.tables import Rows


@dataclass(frozen=True, slots=True)
class StrategySummary:
    """A fusion strategy, as it is listed.

    Attributes
    ----------
    name
        As `featstore.fuse` and `featstore.compare` take it.
    level
        Where it fuses: ``feature``, ``decision``, or ``floor`` for what a fusion should beat.
    unit
        What it answers for: ``image``, or ``group`` for patients, whose images it pools itself.
    min_blocks
        Number of backbones from which it makes sense.
    summary
        What it does, in one sentence.
    """

    name: str = field(metadata={"title": "strategy"})
    level: str
    unit: str
    min_blocks: int = field(metadata={"title": "backbones"})
    summary: str = field(metadata={"title": "what it does"})


@public
def strategies() -> Rows[StrategySummary]:
    """List the fusion strategies, those of plug-ins among them.

    Examples
    --------
    >>> import featstore
    >>> [strategy.name for strategy in featstore.strategies() if strategy.level == "floor"]
    ['knn', 'nearest_centroid', 'simpleshot']
    """
    known = {name: registry.constants(__name__, name) for name in registry.names(__name__)}
    return Rows(
        StrategySummary(
            name,
            has["level"],
            has.get("unit", "image"),
            has.get("min_blocks", 1),
            registry.summary(__name__, name),
        )
        for name, has in known.items()
    )
