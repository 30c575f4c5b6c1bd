"""What stage two tells of its progress: a bar on stderr for each phase, with its rate and the time to go."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from featstore import interruption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Progress:
    """Bars, if `shown`."""

    shown: bool = False

    def say(self, text: str) -> None:
        """Write a line of its own to stderr."""
        from tqdm import tqdm

        if self.shown:
            tqdm.write(text, file=sys.stderr)

    def over(self, items: Iterable[Item], phase: str, unit: str, total: int) -> Iterator[Item]:
        """Items as they come, `total` of them, under a bar that bears the name of the phase."""
        from tqdm import tqdm

        for item in tqdm(items, desc=phase, unit=unit, total=total, disable=not self.shown):
            interruption.heed()
            yield item
