"""Which names of folders and cells mean the training, the validation and the test part of a data set."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_FILLERS = frozenset({
    "data", "dataset", "datasets", "dir", "files", "folder", "image", "images", "img", "imgs", "jpeg", "jpg",
    "part", "partition", "photos", "picture", "pictures", "png", "sample", "samples", "seg", "set", "sets",
    "split", "splits", "subset",
})  # fmt: skip
_PARTS = frozenset({
    "crossval", "eval", "evaluation", "extra", "holdout", "leftover", "submission", "testval", "traintest",
    "trainval", "unlabeled", "unlabelled", "unsorted",
})  # fmt: skip
"""Words that name a part of a data set, but not which of the three."""
_GLUED = re.compile(
    f"({'|'.join(sorted(_SPLITS, key=len, reverse=True))})({'|'.join(sorted(_FILLERS, key=len, reverse=True))})"
)
_CHUNK = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[^\W\d_]+|\d+")


def split_name(text: str) -> str | None:
    """Return ``train``, ``val`` or ``test`` for any usual spelling of it (``Training set``), else None."""
    named, others = _read(text)
    return named[0] if len(named) == 1 and not others else None


def split_names(names: Sequence[str]) -> list[str | None]:
    """Return the split that each of the folders beside one another means, or None.

    Beside names that mean one by themselves these are names with a number (``test1``), or with further words that
    several have in common (``covid_train``, ``covid_test``), if they mean more than one split.
    """
    found = [split_name(name) for name in names]
    alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, name in enumerate(names):
        named, others = _read(name)
        if len(named) == 1:
            alike[tuple(word for word in others if not word.isdecimal())].append(at)
    for places in alike.values():
        splits = {at: _read(names[at])[0][0] for at in places}
        if len(set(splits.values())) > 1:
            for at, split in splits.items():
                found[at] = split
    return found


def one_split_word(name: str) -> str | None:
    """The split that a name speaks of among other words (``ct_train_final``), if it is one only."""
    named, _ = _read(name)
    return named[0] if len(named) == 1 else None


def names_a_part(name: str) -> bool:
    """Whether a name speaks of a part of a data set: a split, several, or what was left over."""
    named, others = _read(name)
    return bool(named) or any(word in _PARTS for word in others)


def says_nothing(name: str) -> bool:
    """Whether a name has only words like ``images`` and ``data``."""
    words = _words(name)
    return bool(words) and all(word in _FILLERS for word in words)


def _read(name: str) -> tuple[list[str], list[str]]:
    """Splits that a name speaks of, and its other words; words like ``set`` and ``data`` do not count."""
    words = list(dict.fromkeys(_words(name)))
    named = list(dict.fromkeys(_SPLITS[word] for word in words if word in _SPLITS))
    return named, [word for word in words if word not in _SPLITS and word not in _FILLERS]


def _words(name: str) -> list[str]:
    words: list[str] = []
    for chunk in _CHUNK.findall(name):
        low = chunk.lower()
        if low in _SPLITS or low in _FILLERS or low in _PARTS:
            words.append(low)
        elif glued := _GLUED.fullmatch(low):
            words += glued.groups()
        else:
            words += [word.lower() for word in _CAMEL.findall(chunk)]
    return words
