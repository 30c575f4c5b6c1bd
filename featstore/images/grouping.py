"""Which patients (groups) must be one: those that share a file, or whose names are the same but for spelling."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Union:
    """Disjoint sets of names, each called by the first of its names in sorted order."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, names: Iterable[str]) -> None:
        """Put names into one set."""
        first, *others = sorted({self.find(name) for name in names})
        for other in others:
            self._parent[other] = first

    def find(self, name: str) -> str:
        """Name of the set."""
        passed = []
        while (parent := self._parent.get(name, name)) != name:
            passed.append(name)
            name = parent
        self._parent.update(dict.fromkeys(passed, name))  # the next way is short
        return name


def spelling(name: str) -> str:
    """A group's name without what people and systems spell differently: capitals, encoding of accents, spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def merged_groups(members: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map each group that must be merged to the name of the merged one.

    Parameters
    ----------
    members
        (group, image id) of every file, copies included.

    Returns
    -------
    Only groups whose name changes.
    """
    by_image: defaultdict[str, set[str]] = defaultdict(set)
    by_spelling: defaultdict[str, set[str]] = defaultdict(set)
    for group, image in members:
        by_image[image].add(group)
        by_spelling[spelling(group)].add(group)
    union = Union()
    for names in (*by_image.values(), *by_spelling.values()):
        union.join(names)
    groups = {name for names in by_spelling.values() for name in names}
    return {name: union.find(name) for name in groups if union.find(name) != name}
