"""What the names of classes and groups give away: two spellings of one, missing values, numbers that begin anew."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from featstore.findings import Finding, counted
from featstore.images.spelling import is_missing, spelt_alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from featstore.images.listing import Entry

_SPLITTERS = re.compile(r"[|;]")
_LOOSE_SPLITTERS = re.compile(r"[,+&/]|\s(?:and|und|et|y|with)\s", re.IGNORECASE)
_NUMBER = re.compile(r"\D*?0*(\d{1,18})\D*")
_FILLER_GROUPS = frozenset({"0", "-1", "99", "999", "9999", "99999", "x", "xx", "xxx"})
_SHARED = 5
"""Images that make a number such as 0 or 999 suspicious as a group, if it also has 3 times those of any other."""
_BLOCK = 3
"""Images per group from which groups that are the classes or sites are suspicious."""
_SAME = 3
"""Group names in common from which numbers seem to begin anew."""
_OVERLAP = 0.8
_DENSE = 0.7
_NUMBERED = 0.9
_MOST = 50
"""Classes or sites, the largest, that are compared with one another."""


def check_labels(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Look for classes that are spelt in several ways, mark a missing value, or are several in one."""
    counts = Counter(entry.label for entry in entries)
    if alike := spelt_alike(counts):
        splits = _by(entries, lambda entry: entry.label, lambda entry: entry.split or "")
        names = sum(map(len, alike))
        message = f"{names} names of classes are spellings of {len(alike)} (capitals, accents, spaces, punctuation)."
        yield Finding("FS202", message, names, tuple(_spellings(same, counts, splits) for same in alike))
    if missing := [
        name for name in sorted(counts) if is_missing(name) and not (name == "-" and "+" in counts)
    ]:
        total = sum(counts[name] for name in missing)
        message = (
            f"{counted(total, 'image is', 'images are')} of a class that is called like a missing value."
        )
        yield Finding(
            "FS203", message, total, tuple(f"{name!r}: {counted(counts[name], 'image')}" for name in missing)
        )
    if several := [name for name in sorted(counts) if _is_combination(name, counts)]:
        total = sum(counts[name] for name in several)
        message = (
            f"{counted(total, 'image has a label', 'images have labels')} that look like several in one;"
            f" {counted(len(several), 'such label counts as a class', 'such labels count as classes')}."
        )
        yield Finding(
            "FS204", message, total, tuple(f"{name!r}: {counted(counts[name], 'image')}" for name in several)
        )


def check_groups(entries: Sequence[Entry], pattern: str | None = None) -> Iterator[Finding]:
    """Look for groups that are no patients; `pattern` is what the groups were found by, if not in a column."""
    counts = Counter(entry.group for entry in entries if entry.group is not None)
    if alike := spelt_alike(counts, accents=True):
        names = sum(map(len, alike))
        message = (
            f"{names} names of groups are spellings of {len(alike)} (capitals, encoding, spaces, zeros)."
        )
        yield Finding(
            "FS105", message, names, tuple(_spellings(same, counts) for same in alike), remedy=_SPELL
        )
    if block := _block(entries, counts):
        lines = (f"{name!r}: {counted(count, 'image')}" for name, count in counts.items())
        yield Finding("FS110", block, len(counts), tuple(lines))
    elif restart := _restart(entries):
        yield _restart_finding(entries, *restart, pattern)
    if placeholders := _placeholders(counts):
        total = sum(counts[name] for name in placeholders)
        message = (
            f"{counted(total, 'image has', 'images share')} a group that is called like a missing value."
        )
        yield Finding(
            "FS112",
            message,
            total,
            tuple(f"{name!r}: {counted(counts[name], 'image')}" for name in placeholders),
        )


_SPELL = "Spell each patient in one way in the file names or the group column; else they count as several."


def _spellings(
    same: Sequence[str], counts: Mapping[str, int], splits: Mapping[str, set[str]] | None = None
) -> str:
    def place(name: str) -> str:
        where = ", ".join(sorted((splits or {}).get(name, set()) - {""}))
        return f"{name!r} ({counts[name]} images{f' in {where}' if where else ''})"

    return ", ".join(map(place, same))


def _is_combination(name: str, labels: Mapping[str, int]) -> bool:
    """Whether a label joins findings: by ``|`` or ``;``, or by something else if all its parts are labels."""
    parts = [part.strip() for part in _SPLITTERS.split(name)]
    if len(parts) > 1 and all(parts):
        return True
    parts = [part.strip() for part in _LOOSE_SPLITTERS.split(name)]
    return len(parts) > 1 and all(part in labels for part in parts)


def _placeholders(counts: Mapping[str, int]) -> list[str]:
    found = [name for name, count in counts.items() if count > 1 and is_missing(name)]
    for name in _FILLER_GROUPS & {key.casefold() for key in counts}:
        others = max((count for other, count in counts.items() if other.casefold() != name), default=0)
        found += [
            key
            for key, n in counts.items()
            if key.casefold() == name and n >= _SHARED and n >= _BLOCK * others > 0
        ]
    return sorted(found)


def _block(entries: Sequence[Entry], counts: Mapping[str, int]) -> str | None:
    """Say what the groups are, if it is nothing finer than classes, splits, sites or what these have in common."""
    if len(entries) < _BLOCK * len(counts):
        return None
    one_each = _by(entries, lambda entry: entry.label, lambda entry: str(entry.group))
    if len(one_each) > 1 and all(len(groups) == 1 for groups in one_each.values()):
        return f"All images of a class are of one group: {len(counts)} groups, {len(one_each)} classes."
    keys: dict[str, Callable[[Entry], object]] = {
        "splits": lambda entry: entry.split,
        "sites": lambda entry: entry.site,
        "classes of each split": lambda entry: (entry.label, entry.split),
        "classes of each site": lambda entry: (entry.label, entry.site),
    }
    for name, key in keys.items():
        pairs = {(entry.group, key(entry)) for entry in entries}
        if len(pairs) == len(counts) == len({value for _, value in pairs}) > 1:
            return f"The {len(counts)} groups are the {name}."
    if len(counts) <= len(one_each) > 1:
        return f"There are only {len(counts)} groups, for {len(one_each)} classes and {len(entries)} images."
    return None


def _restart(entries: Sequence[Entry]) -> tuple[str, list[str]] | None:
    """What numbers begin anew in (class, site, split), and the groups that occur in several of it; None if in none.

    One patient can have images of both classes. So the groups must be numbers that run from 0 or 1 in each of two
    classes, almost all of one must occur in the other, and the files must not deny it: see `_are_strangers`.
    """
    names = {str(entry.group) for entry in entries}
    numbers = {name: number for name in names if (number := _number(name)) is not None}
    if len(numbers) < _NUMBERED * len(names):
        return None
    parts: dict[str, Callable[[Entry], str | None]] = {
        "class": lambda entry: entry.label,
        "site": lambda entry: entry.site,
        "split": lambda entry: entry.split,
    }
    for what, key in parts.items():
        sets = {
            at: found & numbers.keys()
            for at, found in _by(entries, key, lambda entry: str(entry.group)).items()
        }
        large = sorted((at for at in sets if len(sets[at]) >= _SAME), key=lambda at: -len(sets[at]))[:_MOST]
        for one, other in combinations(sorted(large), 2):
            common = sets[one] & sets[other]
            few = min(len(sets[one]), len(sets[other]))
            if len(common) < max(_SAME, _OVERLAP * few):
                continue
            runs = all(_counts_up([numbers[name] for name in sets[side]]) for side in (one, other))
            if runs and (what != "class" or _are_strangers(entries, (one, other), sets, numbers)):
                return what, sorted(common)
    return None


def _number(name: str) -> int | None:
    match = _NUMBER.fullmatch(name)
    return int(match[1]) if match else None


def _counts_up(numbers: Sequence[int]) -> bool:
    """Whether numbers run from 0 or 1 with few gaps."""
    return min(numbers) <= 1 and len(set(numbers)) >= _DENSE * (max(numbers) - min(numbers) + 1)


def _are_strangers(
    entries: Sequence[Entry],
    classes: tuple[str, str],
    sets: Mapping[str, set[str]],
    numbers: Mapping[str, int],
) -> bool:
    """Whether the files say that a number stands for one patient in each class, and not for one with images of both.

    They do if most groups have images with the same numbers in their names in both classes: no patient has slice 3
    twice. They deny it if the names hold the number of the group and other numbers, all different. Where names tell
    nothing, one class that numbers more groups than the other has numbered them by itself.
    """
    found: defaultdict[str, dict[str, list[tuple[int, ...]]]] = defaultdict(lambda: {c: [] for c in classes})
    common = sets[classes[0]] & sets[classes[1]]
    for entry in entries:
        if entry.group in common and entry.label in classes:
            digits = re.findall(r"\d{1,18}", PurePosixPath(entry.name).name)
            found[entry.group][entry.label].append(tuple(map(int, digits)))
    same = speaking = 0
    for group, sides in found.items():
        one, other = (sides[name] for name in classes)
        same += bool(set(one) & set(other))
        speaking += all(numbers[group] in digits for digits in (*one, *other))
    if 2 * same > len(found):
        return True
    return 2 * speaking <= len(found) and sets[classes[0]] != sets[classes[1]]


def _restart_finding(
    entries: Sequence[Entry], what: str, common: Sequence[str], pattern: str | None
) -> Finding:
    shared = set(common)
    total = sum(entry.group in shared for entry in entries)
    message = (
        f"{len(common)} groups are numbers that occur in more than one {what}, for {total} images:"
        " one patient each, or strangers whose numbers begin anew?"
    )
    remedy = f"If the numbers begin anew in each {what}: make them differ in a group column of a CSV file."
    labels = sorted({entry.label for entry in entries})
    in_path = all(entry.label in PurePosixPath(entry.name).parts for entry in entries)
    if what == "class" and pattern is not None and in_path and not re.search(r"\\\d|\(\?P?[<=]", pattern):
        folders = "|".join(map(re.escape, labels))
        whole = f"((?:{folders})/.*?(?:{pattern}))".replace("'", "'\"'\"'")
        remedy = f"If the numbers begin anew in each class, take in the class: --group-pattern '{whole}'"
    where = _by(entries, lambda entry: str(entry.group), lambda entry: str(getattr(entry, _FIELD[what])))
    return Finding(
        "FS111",
        message,
        total,
        tuple(f"{name!r} in {', '.join(sorted(where[name]))}" for name in common),
        remedy=remedy,
    )


_FIELD = {"class": "label", "site": "site", "split": "split"}


def _by(
    entries: Sequence[Entry], key: Callable[[Entry], str | None], value: Callable[[Entry], str]
) -> dict[str, set[str]]:
    """Values that occur with each key but None."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if (at := key(entry)) is not None:
            found[at].add(value(entry))
    return dict(found)
