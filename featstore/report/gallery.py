"""Which pictures a run has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featstore.report.figures.picture import Picture
    from featstore.report.record import Record


def pictures_of(record: Record) -> list[Picture]:
    """Pictures that a run's own numbers suffice for, the one that matters first."""
    return []
