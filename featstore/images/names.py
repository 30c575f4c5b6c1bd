"""Names of classes, groups and splits: spellings, missing values, words for splits, groups to be merged."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from featstore.findings import Finding, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from featstore.images.manifest import ListedFile


# What names of classes and groups give away: two spellings, missing values, numbers that begin anew

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


def check_labels(entries: Sequence[ListedFile]) -> Iterator[Finding]:
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


_MASK = re.compile(
    r"(.+?)[ ._-]*[ ._-](?:mask|masks|seg|segm|segmentation|gt|ground ?truth|annotation|contour|roi)[ ._-]*\d*",
    re.IGNORECASE,
)


def check_masks(names: Iterable[str]) -> Iterator[Finding]:
    """Look for files that are masks of others, by their relative paths: ``a/x.png`` and ``a/x_mask.png``."""
    stems: dict[str, str] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        stems[
            f"{folder}/{last.split('.')[0] if last.lower().endswith('.nii.gz') else last.rpartition('.')[0]}"
        ] = name
    found = [
        (stems[of[1]], name)
        for stem, name in stems.items()
        if (of := _MASK.fullmatch(stem)) and of[1] in stems
    ]
    if found:
        message = f"{counted(len(found), 'image is', 'images are')} called like the mask of another."
        yield Finding("FS214", message, len(found), tuple(f"{mask!r} beside {of!r}" for of, mask in found))


def check_groups(entries: Sequence[ListedFile], pattern: str | None = None) -> Iterator[Finding]:
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
    if rounded := [name for name in counts if _ROUNDED.fullmatch(name)]:
        message = (
            f"{counted(len(rounded), 'group is a number', 'groups are numbers')} that a spreadsheet rounded."
        )
        yield Finding(
            "FS116", message, len(rounded), tuple(f"{name!r}: {counts[name]} images" for name in rounded)
        )
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


_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+?\d+")
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


def _block(entries: Sequence[ListedFile], counts: Mapping[str, int]) -> str | None:
    """Say what the groups are, if it is nothing finer than classes, splits, sites or what these have in common."""
    if len(entries) < _BLOCK * len(counts):
        return None
    one_each = _by(entries, lambda entry: entry.label, lambda entry: str(entry.group))
    if len(one_each) > 1 and all(len(groups) == 1 for groups in one_each.values()):
        return f"All images of a class are of one group: {len(counts)} groups, {len(one_each)} classes."
    keys: dict[str, Callable[[ListedFile], object]] = {
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


def _restart(entries: Sequence[ListedFile]) -> tuple[str, list[str]] | None:
    """What numbers begin anew in (class, site, split), and the groups that occur in several of it; None if in none.

    One patient can have images of both classes. So the groups must be numbers that run from 0 or 1 in each of two
    classes, almost all of one must occur in the other, and the files must not deny it: see `_are_strangers`.
    """
    names = {str(entry.group) for entry in entries}
    numbers = {name: number for name in names if (number := _number(name)) is not None}
    if len(numbers) < _NUMBERED * len(names):
        return None
    parts: dict[str, Callable[[ListedFile], str | None]] = {
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
    entries: Sequence[ListedFile],
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
    entries: Sequence[ListedFile], what: str, common: Sequence[str], pattern: str | None
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
    entries: Sequence[ListedFile], key: Callable[[ListedFile], str | None], value: Callable[[ListedFile], str]
) -> dict[str, set[str]]:
    """Values that occur with each key but None."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if (at := key(entry)) is not None:
            found[at].add(value(entry))
    return dict(found)


# Whether two names are one name spelt in two ways, and whether a name is one at all

_SEPARATORS = re.compile(r"[\s_.,:;'\"`^\u2018-\u201e\u00ab\u00bb()\-\u2010-\u2015]+")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_LOOK_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u043a\u043c\u0442\u0432\u043d\u0456\u0458\u0455",
    "aeopcyxkmtbhijs",
)
"""Cyrillic letters of which one case looks like a Latin one: in the name of a patient a slip of the keyboard."""
_SPELT_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,30})?")
_LEADING = re.compile(r"(?:(?<=^)|(?<=[^\W\d])|(?<= ))0+(?=\d)")
_MISSING = frozenset({
    "", "#n/a", "#n/a n/a", "#na", "#null!", "#ref!", "#value!", "-", "--", "-nan", ".", "<na>", "?", "empty",
    "missing", "n.a", "n.a.", "n/a", "na", "nan", "nat", "nil", "no label", "none", "not applicable",
    "not available", "not known", "null", "tbd", "todo", "unclassified", "undefined", "unk", "unknown",
    "unlabeled", "unlabelled", "unspecified",
})  # fmt: skip


def spelling_key(name: str, *, accents: bool = False) -> str:
    """Text that is equal for two spellings of a name.

    Capitals, the encoding of accents, invisible characters, spaces and punctuation between words do not matter, nor
    do zeros before a number. A sign at the end (``HER2+``) and what stands between two digits (``1.5``) do.

    Parameters
    ----------
    name
        Any text.
    accents
        Whether an accent makes another name.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = _visible(text).strip().translate(_LOOK_ALIKE)
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if not accents:
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if _SPELT_NUMBER.fullmatch(text):
        whole, _, rest = text.partition(".")
        rest = rest.rstrip("0")
        return f"{int(whole)}.{rest}" if rest else str(int(whole))
    return _LEADING.sub("", _joined(text)) or text


def _visible(text: str) -> str:
    """Leave out what nobody sees: zero-width spaces, soft hyphens, marks of direction and of byte order."""
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


def _joined(text: str) -> str:
    """Leave out what separates words; keep a gap between two digits, and signs at either end."""

    def gap(match: re.Match[str]) -> str:
        before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 1]
        if not before or not after:
            return match[0].strip() if match[0].strip() in {"-", "+"} else ""
        if before.isdigit() and after.isdigit():
            return "." if match[0].strip() == "." else " "
        return "" if before.isalnum() and after.isalnum() else match[0].strip()

    return _SEPARATORS.sub(gap, text)


def is_missing(name: str) -> bool:
    """Whether a name is one of the usual marks of a missing value."""
    return " ".join(name.casefold().split()).strip("'\"[]{}") in _MISSING


def spelt_alike(names: Iterable[str], *, accents: bool = False) -> list[list[str]]:
    """Names that are spellings of one another, each set sorted."""
    together: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        together[spelling_key(name, accents=accents)].append(name)
    return [same for same in together.values() if len(same) > 1]


# Which names of folders and cells mean the training, the validation and the test part

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


# Groups (patients) that must be one: they share a file, or their names differ in spelling alone.


class DisjointSets:
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
    """A group's name without capitals, spaces, the encoding of accents, and what nobody sees."""
    return " ".join(_visible(unicodedata.normalize("NFKC", name)).casefold().split())


def named_sites(counts: Mapping[str, int]) -> tuple[dict[str, str | None], list[Finding]]:
    """What sites are called where their names are meant otherwise, and the findings that say so.

    Parameters
    ----------
    counts
        Images by name of a site.

    Returns
    -------
    For each name that changes, that of the site: of spellings that differ in capitals, encoding and spaces alone the
    one with the most images, and None for the usual marks of a missing value.
    """
    missing = {name: None for name in sorted(counts) if is_missing(name)}
    together: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(counts.keys() - missing.keys()):
        together[spelling(name)].append(name)
    usual = {same[0]: max(same, key=lambda name: counts[name]) for same in together.values()}
    merged = {name: usual[same[0]] for same in together.values() for name in same if name != usual[same[0]]}
    found = []
    if merged:
        message = (
            f"{counted(len(merged), 'name of a site was', 'names of sites were')} taken for another that differs in"
            " capitals, encoding or spaces alone."
        )
        examples = tuple(f"{old!r} is taken for {new!r}" for old, new in sorted(merged.items()))
        found.append(Finding("FS117", message, len(merged), examples))
    if alike := spelt_alike(usual.values(), accents=True):
        names = sum(map(len, alike))
        message = (
            f"{names} names of sites may be spellings of {len(alike)} (punctuation, zeros), and count apart."
        )
        examples = tuple(_spellings(same, counts) for same in alike)
        found.append(Finding("FS117", message, names, examples, remedy=_SPELL_SITES))
    if missing:
        total = sum(counts[name] for name in missing)
        message = (
            f"{counted(total, 'image has', 'images have')} a site that is called like a missing value: none."
        )
        examples = tuple(f"{name!r}: {counted(counts[name], 'image')}" for name in missing)
        found.append(Finding("FS118", message, total, examples))
    return {**merged, **missing}, found


_SPELL_SITES = "Spell each site in one way in the site column; else it is learned from while it is left out."


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
    union = DisjointSets()
    for names in (*by_image.values(), *by_spelling.values()):
        union.join(names)
    groups = {name for names in by_spelling.values() for name in names}
    return {name: union.find(name) for name in groups if union.find(name) != name}
