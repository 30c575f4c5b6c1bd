"""Splits of a data set: folds over groups, hold-out, validation rows, and the sides of a fine-tuning.

Every split keeps each group, and with it every view of an image, on one side (law 6).

scikit-learn's StratifiedGroupKFold deals groups out by size and never looks back, so with few groups it may leave a
part without a class although other divisions have them all. Here such a division is searched for: first which kinds
of groups (by the classes that they hold) make every part complete, by exhaustive search, then who exactly, by chance
and balance.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featstore.errors import AuditError, UsageError
from featstore.findings import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.types import ImageRecord

    Rows = NDArray[np.intp]
    Kind = tuple[bool, ...]
    State = tuple[int, tuple[int, ...], tuple[int, ...]]

# Folds and hold-out

MOST_LISTED = 8
"""Classes that an error counts out, the smallest first."""

OWN_SPLIT = "split"
"""In place of a number of folds: the data set's own split."""
SITE, GROUP = LEFT_OUT = ("site", "group")
"""In place of a number of folds: each site, or each group (patient), is left out once."""
Split = tuple["NDArray[np.intp]", "NDArray[np.intp]"]


class LabelledImages(Protocol):
    """Images with class and group, as a split sees them, before or after there are features.

    `records`, `classes`, `y` and `groups` are those of `featstore.matrix.FeatureMatrix`.
    """

    @property
    def records(self) -> Sequence[ImageRecord]:
        """The images."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, sorted."""
        ...

    @property
    def y(self) -> NDArray[np.intp]:
        """``(n,)`` index into `classes`."""
        ...

    @property
    def groups(self) -> NDArray[np.str_]:
        """``(n,)`` patient or other unit that must stay together."""
        ...


def group_folds(table: LabelledImages, folds: int, repeats: int = 1, seed: int = 0) -> list[Split]:
    """Stratified folds over whole groups, the same for every candidate.

    They are those of scikit-learn's StratifiedGroupKFold; where one of these lacks a class, others are searched for,
    and found wherever there are any (`featstore.splits`).

    Returns
    -------
    ``folds * repeats`` pairs (training images, test images) of row indices; each image is tested once a repeat.

    Raises
    ------
    AuditError
        If there is one class only, or the groups cannot be divided so that each fold tests every class.
    """
    if folds < 2 or repeats < 1:  # noqa: PLR2004
        raise UsageError(
            f"{folds} folds, {repeats} times over, is no cross-validation.", "Use --folds 5 --repeats 1."
        )
    _require_two_groups(table)
    if min(_groups_by_class(table)) < folds:
        raise _too_many_folds_error(
            table,
            folds,
            f"{folds} folds need at least {folds} groups (patients) in each class; there are: {_listed(table)}."
            + _quarantined_text(table),
        )
    splits: list[Split] = []
    for repeat in range(repeats):
        drawn = stratified_folds(table.y, table.groups, folds, seed + repeat)
        if not all(_has_every_class(table, test) for _, test in drawn):
            drawn = _folds_by_search(table, folds, seed + repeat)
        splits.extend(drawn)
    return splits


@dataclass(frozen=True, slots=True, eq=False)
class SiteFolds:
    """Folds that leave out one site each.

    Attributes
    ----------
    names
        The site that each fold leaves out, sorted.
    splits
        Pairs (training images, test images) of row indices. A patient of several sites is tested at each, on the
        images of that site; whoever has an image there is not learned from.
    never
        Sites that are not left out, since a class would be missing among the training images.
    shared
        Patients of several sites.
    """

    names: tuple[str, ...]
    splits: list[Split]
    never: tuple[str, ...]
    shared: int


def site_folds(table: LabelledImages) -> SiteFolds:
    """Leave one site out: each is tested once, by what was learned at all others.

    Where a site lacks a class it is tested all the same; the scores that need that class are undefined there.

    Raises
    ------
    AuditError
        If there is one class only, images name no site, there are fewer than two sites, none can be left out, or none
        of those that can has every class.
    """
    if len(table.classes) < 2:  # noqa: PLR2004
        _require_two_groups(table)
    sites = np.array([record.site or "" for record in table.records])
    unnamed = int((sites == "").sum())
    if unnamed == len(sites):
        raise AuditError(
            "The data set names no sites, so that none can be left out.",
            "Name them: a column site, `--columns site=hospital`, or of DICOM files `--site-tag Manufacturer`; or use"
            " --folds 5.",
        )
    if unnamed:
        raise AuditError(
            f"{unnamed} of {len(sites)} images name no site: they may be of the one that is left out.",
            "Fill in their site, or take them out of the data set; or use --folds 5.",
        )
    names, counts = np.unique(sites, return_counts=True)
    if len(names) < 2:  # noqa: PLR2004
        raise AuditError(
            f"All {counts[0]} images are of one site, {quoted([str(names[0])])}: none can be left out.",
            "Add images of another site, or use --folds 5.",
        )
    splits, left_out, never = [], [], []
    for name in names.tolist():
        test = np.flatnonzero(sites == name)
        train = np.flatnonzero(~np.isin(table.groups, table.groups[test]))
        if _absent(table, train):
            never.append(name)
        else:
            splits.append((train, test))
            left_out.append(name)
    _require_ranked(table, sites, splits)
    pairs = {(group, site) for group, site in zip(table.groups.tolist(), sites.tolist(), strict=True)}
    shared = sum(count > 1 for count in Counter(group for group, _ in pairs).values())
    return SiteFolds(tuple(left_out), splits, tuple(never), shared)


def _require_ranked(table: LabelledImages, sites: NDArray[np.str_], splits: Sequence[Split]) -> None:
    """Refuse sites of which none can be left out, or none of those that can has images of every class."""
    ranked = [test for _, test in splits if not _absent(table, test)]
    if ranked:
        return
    if splits:
        test = splits[0][1]
        cause = (
            "None of the sites that can be left out has images of every class, so that there is no AUC: at"
            f" {quoted([str(sites[test[0]])])} {quoted(_absent(table, test))} is missing."
        )
    else:
        first = min(sites.tolist())
        others = np.flatnonzero(~np.isin(table.groups, table.groups[sites == first]))
        cause = (
            "No site can be left out, since a class would be missing among the others: without"
            f" {quoted([str(first)])} it is {quoted(_absent(table, others))}."
        )
    raise AuditError(
        cause,
        "Add images of every class from two sites or more; or use --folds 5, and mind that the site may give the"
        " class away.",
    )


def patient_folds(table: LabelledImages, seed: int = 0) -> list[Split]:
    """Leave one group (patient) out, and from training alone one group of every other class.

    So all models have learned from the classes in the same proportion. Without that, a model has seen less of the
    class that it is asked about, and scores of all patients together are too low, on noise far below guessing
    (Parker, Guenter & Bedo, BMC Bioinformatics 8, 2007; Airola et al., Computational Statistics & Data Analysis 55,
    2011).

    Parameters
    ----------
    table
        The images.
    seed
        Of the drawing of the groups that are set aside.

    Returns
    -------
    A pair (training images, test images) for each group, in the order of their names.

    Raises
    ------
    AuditError
        If there is one class only, or a class has fewer than three groups.
    """
    _require_two_groups(table)
    least = min(_groups_by_class(table))
    if least < 3:  # noqa: PLR2004
        raise AuditError(
            f"Leaving out every patient needs three groups (patients) in each class; there are: {_listed(table)}.",
            f"Use --folds {least}, or add patients to the smallest class.",
        )
    names, number = np.unique(table.groups, return_inverse=True)
    holds = np.zeros((len(names), len(table.classes)), np.bool_)
    holds[number, table.y] = True
    rng = np.random.default_rng(seed)
    splits = []
    for left_out in range(len(names)):
        aside = [left_out]
        for c in np.flatnonzero(~holds[left_out]):
            others = np.setdiff1d(np.flatnonzero(holds[:, c]), aside)
            aside.append(int(rng.choice(others)))
        train = np.flatnonzero(~np.isin(number, aside))
        if absent := _absent(table, train):
            raise AuditError(
                f"Without one patient, and one of each other class, no image of {quoted(absent)} is left to learn"
                " from.",
                "Use --folds 2, or add patients to the smallest class.",
            )
        splits.append((train, np.flatnonzero(number == left_out)))
    return splits


def draw_parts(table: LabelledImages, shares: Sequence[float], seed: int = 0) -> list[Rows]:
    """Whole groups divided into parts near the wanted shares of each class, every class in every part.

    Parameters
    ----------
    table
        The images.
    shares
        Of the images, by part; they sum to one.
    seed
        Two calls with the same one give the same parts.

    Returns
    -------
    Row indices by part; together they are all rows.

    Raises
    ------
    AuditError
        If there is one class only, or the groups cannot be divided so that each part has every class.
    """
    _require_two_groups(table)
    parts = len(shares)
    tries = min(TRIES, max(1, GROUPS_DRAWN // len(np.unique(table.groups))))
    part_of = partition_groups(table.y, table.groups, shares, seed, tries)
    if part_of is None:
        if most_parts(table.y, table.groups, 2) < 2:  # noqa: PLR2004
            raise _indivisible_error(table)
        raise AuditError(
            f"{parts} parts that have every class each cannot be had of these groups (patients); groups by class:"
            f" {_listed(table)}.{_quarantined_text(table)}",
            "Draw two parts, train and test: --ratios 80/20; or add patients to the smallest class.",
        )
    return [np.flatnonzero(part_of == part) for part in range(parts)]


def inner_folds(
    table: LabelledImages,
    train: NDArray[np.intp],
    folds: int,
    seed: int = 0,
    *,
    needed_by: str = "what is chosen here",
) -> list[Split]:
    """Folds within the training images, over whole groups: for whatever is chosen from out-of-fold probabilities.

    As many folds as asked for, or as the rarest class has groups; fewer, if only they have every class to train on.

    Parameters
    ----------
    table, train
        The images, and the rows that may be looked at.
    folds, seed
        As for `group_folds`.
    needed_by
        The caller's options that can be left out where there are no folds, for the remedy.

    Returns
    -------
    Pairs of row indices of `table`; together the second halves are `train`.

    Raises
    ------
    AuditError
        If a class has a single group there, or its groups fall so that a fold lacks a class to train on.
    """
    y, groups = table.y[train], table.groups[train]
    fewest = min(len(set(groups[y == c])) for c in range(len(table.classes)))
    if fewest < 2:  # noqa: PLR2004
        raise AuditError(
            "The training images of a class are of one group, so nothing can be chosen on held-out ones.",
            f"Leave out {needed_by}, or add patients.",
        )
    drawn = stratified_folds(y, groups, min(folds, fewest), seed)
    if not all(_has_every_class(table, train[rest]) for rest, _ in drawn):
        parts = most_parts(y, groups, min(folds, fewest))
        part_of = partition_groups(y, groups, [1 / parts] * parts, seed) if parts > 1 else None
        if part_of is None:
            raise AuditError(
                "The groups (patients) of the training images cannot be divided so that every class is on both"
                " sides: groups are of several classes.",
                f"Leave out {needed_by}, or add patients.",
            )
        drawn = _by_part(part_of, parts)
    return [(train[rest], train[part]) for rest, part in drawn]


def hold_out(table: LabelledImages, test_size: float, seed: int = 0) -> dict[str, NDArray[np.intp]]:
    """Training and evaluation images: the manifest's own splits, else a group-stratified share of `test_size`.

    Where a share of whole groups with every class on both sides cannot be had by dealing out (a class with few
    groups), the nearest to it is searched for.

    Returns
    -------
    Row indices by split name; ``train`` and at least one of ``val`` and ``test``.

    Raises
    ------
    AuditError
        If the data set's own split lacks a class, or no split has every class on both sides.
    UsageError
        If the share is none.
    """
    named = np.array([record.split or "" for record in table.records])
    if (named != "").any():
        return _own_splits(table, named)
    if not 0 < test_size <= 0.5:  # noqa: PLR2004
        raise UsageError(
            f"A test share of {test_size} cannot be held out.", "Use a share such as --test-size 0.25."
        )
    _require_two_groups(table)
    folds = max(2, round(1 / test_size))
    if min(_groups_by_class(table)) >= folds:
        train, test = stratified_folds(table.y, table.groups, folds, seed)[0]
        if _has_every_class(table, test) and _has_every_class(table, train):
            return {"train": train, "test": test}
    part_of = partition_groups(table.y, table.groups, (test_size, 1 - test_size), seed)
    if part_of is None:
        raise _indivisible_error(table)
    (train, test), _ = _by_part(part_of, 2)
    return {"train": train, "test": test}


def own_split(table: LabelledImages) -> dict[str, NDArray[np.intp]]:
    """The data set's own split, to be scored on its test images.

    Returns
    -------
    Row indices by split name; ``train`` and ``test`` are there, ``val`` may be.

    Raises
    ------
    AuditError
        If the data set has no split, or one that cannot be used.
    """
    named = np.array([record.split or "" for record in table.records])
    if not (named == "test").any():
        raise AuditError(
            "The data set has no test images of its own.", "Leave out --folds split, and folds are drawn."
        )
    return _own_splits(table, named)


def seen_or_same_group(table: LabelledImages, ids: Collection[str]) -> NDArray[np.bool_]:
    """Images ``(n,)`` that are among `ids`, or of the same group (patient) as one that is."""
    known = np.array([record.id in ids for record in table.records], np.bool_)
    return np.isin(table.groups, table.groups[known])


def _own_splits(table: LabelledImages, named: NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    splits = {
        name: np.flatnonzero(named == name) for name in ("train", "val", "test") if (named == name).any()
    }
    if "train" not in splits or len(splits) < 2 or (named == "").any():  # noqa: PLR2004
        counts = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
        raise AuditError(
            f"The data set's own split cannot be used: {counts}, without a split {(named == '').sum()}.",
            "Give every image a split, with `train` and at least one of `val` and `test`; or give none at all.",
        )
    for name, rows in splits.items():
        if absent := _absent(table, rows):
            raise AuditError(
                f"The data set's own split {name} has no image of {quoted(absent)}.",
                _absent_class_remedy(table, absent, name),
            )
    return splits


def _absent_class_remedy(table: LabelledImages, absent: Sequence[str], split: str) -> str:
    """What to do about classes that a split lacks; often they are there in another spelling."""
    for name in absent:
        alike = [other for other in table.classes if other != name and _plain(other) == _plain(name)]
        if alike:
            return f"{name!r} and {alike[0]!r} look like one class: spell it in one way everywhere."
    return (
        f"Move some patients of {quoted(absent, 1)} into {split}, or take the class out of the data set; or leave out"
        " the split (no column, no folders train and test): then patients are held out by chance."
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isalnum())


def stratified_folds(
    y: NDArray[np.intp], groups: NDArray[Any], folds: int, random_state: int | np.random.RandomState = 0
) -> list[Split]:
    """Whole groups dealt into folds of similar classes: to the bit what scikit-learn's StratifiedGroupKFold deals.

    A group goes where it leaves the shares of the classes in the folds most alike, the most uneven groups first. All
    folds are tried at once, and sums are taken in scikit-learn's order, so that even ties fall as they do there.

    Parameters
    ----------
    y
        ``(n,)`` class numbers.
    groups
        ``(n,)`` names or numbers of the groups.
    folds
        Number of folds, at most that of the groups.
    random_state
        Order of groups that are equally uneven.

    Returns
    -------
    Pairs (training rows, test rows) of row indices; a fold may lack a class.

    Raises
    ------
    ValueError
        If there are more folds than groups.

    Examples
    --------
    >>> import numpy as np
    >>> y, groups = np.array([0, 0, 1, 1, 0, 1]), np.array(["p", "p", "q", "q", "r", "s"])
    >>> [groups[test].tolist() for _, test in stratified_folds(y, groups, 2)]
    [['p', 'p', 's'], ['q', 'q', 'r']]
    """
    names, group_of = np.unique(groups, return_inverse=True)
    if folds > len(names):
        raise ValueError(f"{len(names)} groups cannot be dealt into {folds} folds.")
    _, class_of, of_class = np.unique(y, return_inverse=True, return_counts=True)
    held = np.zeros((len(names), len(of_class)))
    np.add.at(held, (group_of, class_of), 1)
    order = np.arange(len(names))
    if not isinstance(random_state, np.random.RandomState):
        random_state = np.random.RandomState(random_state)
    random_state.shuffle(order)
    held = held[order]
    dealt, fold_of = np.zeros((folds, len(of_class))), np.empty(len(names), np.intp)
    itself, sizes = np.arange(folds), [0.0] * folds
    for at in np.argsort(-np.std(held, axis=1), kind="stable"):
        tried = np.repeat(dealt[None], folds, axis=0)  # by fold that might get the group
        tried[itself, itself] += held[at]
        shares = tried / of_class
        apart = shares - np.add.reduce(shares, axis=1, keepdims=True) / folds
        spread = np.sqrt(np.add.reduce(apart * apart, axis=1) / folds)
        best = _most_even((np.add.reduce(spread, axis=1) / len(of_class)).tolist(), sizes)
        dealt[best] += held[at]
        sizes[best] = float(np.add.reduce(dealt[best]))
        fold_of[order[at]] = best
    return _by_part(fold_of[group_of], folds)


def _most_even(unevenness: list[float], sizes: list[float]) -> int:
    """The fold to take by unevenness, and among nearly equal ones (as `numpy.isclose`) by fewer images."""
    best = 0
    for fold in range(1, len(sizes)):
        less = unevenness[fold] - unevenness[best]
        alike = abs(less) <= 1e-8 + 1e-5 * unevenness[best]
        if less < 0 or (alike and sizes[fold] < sizes[best]):
            best = fold
    return best


def _folds_by_search(table: LabelledImages, folds: int, seed: int) -> list[Split]:
    part_of = partition_groups(table.y, table.groups, [1 / folds] * folds, seed)
    if part_of is None:
        raise _too_many_folds_error(
            table,
            folds,
            f"The groups (patients) cannot be divided into {folds} folds that have every class each: too many groups"
            f" are of several classes. Groups by class: {_listed(table)}.",
        )
    return _by_part(part_of, folds)


def _by_part(part_of: NDArray[np.intp], parts: int) -> list[Split]:
    return [(np.flatnonzero(part_of != part), np.flatnonzero(part_of == part)) for part in range(parts)]


def _require_two_groups(table: LabelledImages) -> None:
    """Refuse a single class, and a class that cannot be on both sides of any split."""
    if len(table.classes) < 2:  # noqa: PLR2004
        raise AuditError(
            f"There is one class only: {table.classes[0]}.{_quarantined_text(table)}",
            "Give images of at least two classes.",
        )
    lone = [name for name, count in zip(table.classes, _groups_by_class(table), strict=True) if count < 2]  # noqa: PLR2004
    if lone:
        raise AuditError(
            f"All images of {quoted(lone)} are of one group (patient): they can be learned from or scored, not both.",
            f"Add patients of {quoted(lone, 1)}, or take the class out of the data set.",
        )


def _too_many_folds_error(table: LabelledImages, folds: int, cause: str) -> AuditError:
    """Error of too many folds, with a number that was tried, if there is one."""
    possible = most_parts(table.y, table.groups, min(folds - 1, *_groups_by_class(table)))
    if possible < 2:  # noqa: PLR2004
        return _indivisible_error(table)
    return AuditError(cause, f"Use --folds {possible}, or add patients to the smallest class.")


def _indivisible_error(table: LabelledImages) -> AuditError:
    """Error of groups that cannot be on two sides with every class on both; names a class to take out that helps."""
    several = len(table.classes) > 2  # noqa: PLR2004
    helps = [name for c, name in enumerate(table.classes) if several and _divides_without(table, c)]
    take_out = f", or take a class out of the data set: without {helps[0]!r} it works" if helps else ""
    return AuditError(
        "The groups (patients) cannot be divided into a training and a test side that have every class each: groups"
        f" are of several classes. Groups by class: {_listed(table)}.",
        f"Check that groups are patients, add patients of a single class{take_out}.",
    )


def _divides_without(table: LabelledImages, c: int) -> bool:
    rest = table.y != c
    numbers = np.unique(table.y[rest], return_inverse=True)[1]
    return most_parts(numbers, table.groups[rest], 2) > 1


def _groups_by_class(table: LabelledImages) -> list[int]:
    return [len(set(table.groups[table.y == c])) for c in range(len(table.classes))]


def _listed(table: LabelledImages) -> str:
    counts = sorted(zip(_groups_by_class(table), table.classes, strict=True))
    more = (
        f" and {len(counts) - MOST_LISTED} classes with as many or more" if len(counts) > MOST_LISTED else ""
    )
    return ", ".join(f"{name} {count}" for count, name in counts[:MOST_LISTED]) + more


def _has_every_class(table: LabelledImages, rows: NDArray[np.intp]) -> bool:
    return not _absent(table, rows)


def _absent(table: LabelledImages, rows: NDArray[np.intp]) -> list[str]:
    present = set(table.y[rows].tolist())
    return [name for c, name in enumerate(table.classes) if c not in present]


def _quarantined_text(table: LabelledImages) -> str:
    """What each class has lost to the quarantine, where the table knows it."""
    told = [finding.message for finding in getattr(table, "findings", ()) if finding.code == "FS301"]
    return f" {told[0]}" if told else ""


# Whole groups (patients) divided into parts that each hold every class, wherever that can be done

TRIES = 20
"""Divisions among which the one nearest to the wanted shares is taken."""
GROUPS_DRAWN = 100_000
"""Groups that all tries together deal out: among so many, one division is as near as the next."""
MOST_STATES = 50_000
"""States of the search before it is given up; a dozen groups of five classes need some hundred."""


def partition_groups(
    y: Rows, groups: NDArray[np.generic], shares: Sequence[float], seed: int = 0, tries: int = 0
) -> Rows | None:
    """Part ``(n,)`` of each row: whole groups, every class in every part, near the wanted shares of each class.

    Parameters
    ----------
    y
        ``(n,)`` class numbers, all of 0..n_classes-1 present.
    groups
        ``(n,)`` name or number of the group.
    shares
        Of the rows of each class, by part; they sum to one.
    seed
        Two calls with the same one give the same parts.
    tries
        Divisions to choose from; 0 for `TRIES`.

    Returns
    -------
    None where no division gives every part every class: proven, unless the search has met `MOST_STATES`.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    table = np.zeros((numbers.max() + 1, y.max() + 1), np.intp)
    np.add.at(table, (numbers, y), 1)
    rng = np.random.default_rng(seed)
    best, nearest = None, np.inf
    for _ in range(tries or TRIES):
        cores = _cores(table > 0, len(shares), rng)
        if cores is None:
            return None
        part_of, distance = _assign_rest(table, cores, np.asarray(shares), rng)
        if distance < nearest:
            best, nearest = part_of, distance
    return None if best is None else best[numbers]


def _cores(holds: NDArray[np.bool_], parts: int, rng: np.random.Generator) -> list[list[int]] | None:
    """Groups by part that together hold every class, no more of them than that takes."""
    members: defaultdict[Kind, list[int]] = defaultdict(list)
    for group in rng.permutation(len(holds)):
        members[tuple(holds[group].tolist())].append(int(group))
    kinds = sorted(members)
    order = [kinds[at] for at in rng.permutation(len(kinds))]
    found = _Search(order, parts).run([len(members[kind]) for kind in order])
    if found is None:
        return None
    cores = [[members[order[at]].pop() for at in part] for part in found]
    return [cores[at] for at in rng.permutation(parts)]


@dataclass(frozen=True, slots=True)
class _Search:
    """The search for kinds of groups by part; a state is a part, the classes that it lacks, and who is left.

    Attributes
    ----------
    kinds
        Which classes a group of each kind holds.
    parts
        How many parts are to be complete.
    """

    kinds: Sequence[Kind]
    parts: int

    @property
    def classes(self) -> tuple[int, ...]:
        """Their numbers."""
        return tuple(range(len(self.kinds[0])))

    def moves(self, state: State) -> Iterator[int]:
        """Kinds that can go next, by a class that the part lacks; those first that waste least on others."""
        part, lacking, left = state
        holders = [[at for at, kind in enumerate(self.kinds) if kind[c]] for c in self.classes]
        supply = [sum(left[at] for at in mine) for mine in holders]
        if any(supply[c] < self.parts - part - 1 + (c in lacking) for c in self.classes):
            return
        rarest = min(lacking, key=lambda c: supply[c])
        wasted = {at: sum(self.kinds[at]) - sum(self.kinds[at][c] for c in lacking) for at in holders[rarest]}
        yield from (at for at in sorted(holders[rarest], key=wasted.__getitem__) if left[at])

    def after(self, state: State, at: int) -> State:
        """State when a group of that kind has joined the part."""
        part, lacking, left = state
        rest = tuple(c for c in lacking if not self.kinds[at][c])
        fewer = (*left[:at], left[at] - 1, *left[at + 1 :])
        return (part, rest, fewer) if rest else (part + 1, self.classes, fewer)

    def run(self, counts: Sequence[int]) -> list[list[int]] | None:
        """Kinds by part, of so many groups of each kind; depth first, and dead ends are remembered."""
        dead: set[State] = set()
        path: list[tuple[State, int]] = []
        state: State = (0, self.classes, tuple(counts))
        trail = [self.moves(state)]
        while trail and len(dead) + len(path) < MOST_STATES:
            at = next(trail[-1], None)
            if at is None:
                dead.add(state)
                trail.pop()
                state = path.pop()[0] if path else state
            elif (following := self.after(state, at)) not in dead:
                path.append((state, at))
                state = following
                if state[0] == self.parts:
                    return _rows_by_part(path, self.parts)
                trail.append(self.moves(state))
        return None


def _rows_by_part(path: Sequence[tuple[State, int]], parts: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(parts)]
    for (part, _, _), at in path:
        found[part].append(at)
    return found


def _assign_rest(
    table: Rows, cores: Sequence[Sequence[int]], shares: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Rows, float]:
    """Part of each group, and how far the parts are from their shares: the rest goes where it is most wanted."""
    weight = table / table.sum(axis=0)
    part_of = np.full(len(table), -1)
    wanted = np.tile(shares[:, None], table.shape[1])
    for part, core in enumerate(cores):
        part_of[list(core)] = part
        wanted[part] -= weight[list(core)].sum(axis=0)
    rest = rng.permutation(np.flatnonzero(part_of < 0))
    for group in rest[np.argsort(-weight[rest].max(axis=1), kind="stable")]:
        gain = ((wanted - weight[group]) ** 2 - wanted**2).sum(axis=1)
        part_of[group] = gain.argmin()
        wanted[part_of[group]] -= weight[group]
    return part_of, float((wanted**2).sum())


def most_parts(y: Rows, groups: NDArray[np.generic], most: int) -> int:
    """How many parts, up to `most`, can each hold every class; 1 where not even two can."""
    _, numbers = np.unique(groups, return_inverse=True)
    holds = np.zeros((numbers.max() + 1, y.max() + 1), np.bool_)
    holds[numbers, y] = True
    counted = Counter(tuple(row) for row in holds.tolist())
    for parts in range(most, 1, -1):
        if _Search(list(counted), parts).run(list(counted.values())) is not None:
            return parts
    return 1


# Validation rows: whole groups, every class in proportion


def validation_mask(
    y: NDArray[np.intp], groups: NDArray[np.intp] | None, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mark the validation rows.

    Groups are taken whole, in random order, class by class, until about `fraction` of the rows of the class are held
    out; a group of mixed labels counts for its most frequent one. Every class keeps training rows, so a class
    with a single group has no validation rows, and the mask may be all False.

    Parameters
    ----------
    y
        ``(n,)`` class numbers.
    groups
        ``(n,)`` group numbers 0..n_groups-1; None makes every row its own group.
    fraction
        Part of the rows to hold out, 0 to below 1.
    rng
        Source of the order.

    Returns
    -------
    ``(n,)`` mask, True for validation.
    """
    groups = np.arange(len(y)) if groups is None else groups
    table = np.zeros((groups.max() + 1, y.max() + 1), dtype=np.intp)
    np.add.at(table, (groups, y), 1)
    sizes, owners = table.sum(axis=1), table.argmax(axis=1)
    held = np.zeros(len(sizes), dtype=np.bool_)
    for label in range(table.shape[1]):
        members = rng.permutation(np.flatnonzero(owners == label))
        held[_closest_to_fraction(members, sizes, fraction)] = True
    for orphan in np.flatnonzero(table[~held].sum(axis=0) == 0):
        held[table[:, orphan].argmax()] = False
    return held[groups]


def _closest_to_fraction(
    members: NDArray[np.intp], sizes: NDArray[np.intp], fraction: float
) -> NDArray[np.intp]:
    """Shortest head of `members`, but the last, whose rows come closest to the fraction."""
    filled = np.concatenate([[0], np.cumsum(sizes[members])])
    wanted = fraction * filled[-1]
    count = int(np.abs(filled[: max(len(members), 1)] - wanted).argmin())
    return members[:count]


# Fine-tuning: who may train a network, who says when to stop, and who must never meet it (law 6)

VALIDATION_SHARE = 0.2
"""Of the training side, in images: the validation by which the best epoch is chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainValHoldout:
    """A data set divided for a fine-tuning.

    Attributes
    ----------
    records, classes, y, groups
        The table: see `LabelledImages`.
    trained, validated
        Row numbers of the training images, and of those by which the best epoch is chosen.
    held_out
        The rest, by split: what `featstore.fuse` scores.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    y: Rows
    groups: NDArray[np.str_]
    trained: Rows
    validated: Rows
    held_out: dict[str, Rows]

    @property
    def sizes(self) -> dict[str, int]:
        """Images by side."""
        held_out = {name: len(rows) for name, rows in self.held_out.items()}
        return {"trained": len(self.trained), "validated": len(self.validated), **held_out}

    def ids(self, rows: Rows) -> list[str]:
        """Image ids of rows."""
        return [self.records[row].id for row in rows]


def split_for_finetuning(
    records: Iterable[ImageRecord], test_size: float, split_seed: int, seed: int
) -> TrainValHoldout:
    """Hold out what `featstore.fuse` would hold out, and whole groups of the rest for validation.

    Parameters
    ----------
    records
        The images that decode, in manifest order: those that will have features.
    test_size, split_seed
        As for `featstore.fuse`; without effect where the data set has splits of its own.
    seed
        Of the validation groups.

    Raises
    ------
    AuditError
        If the split cannot be used, or a class has no group to spare for validation.
    """
    table = tuple(records)
    classes, y = np.unique([record.label for record in table], return_inverse=True)
    groups = np.array([record.group for record in table])
    nothing = np.empty(0, np.intp)
    whole = TrainValHoldout(table, tuple(classes.tolist()), y, groups, nothing, nothing, {})
    held_out = hold_out(whole, test_size, split_seed)
    train = held_out.pop("train")
    chosen = _validation_mask(whole, train, seed)
    if lacking := _absent_classes(whole, train[chosen]):
        raise AuditError(
            f"No group (patient) of {', '.join(lacking)} can be spared to tell when to stop learning.",
            _more_patients_remedy(whole, test_size, split_seed, seed),
        )
    return TrainValHoldout(table, whole.classes, y, groups, train[~chosen], train[chosen], held_out)


def _validation_mask(whole: TrainValHoldout, train: Rows, seed: int) -> NDArray[np.bool_]:
    """Which of the training rows validate."""
    numbers = np.unique(whole.groups[train], return_inverse=True)[1]
    return validation_mask(whole.y[train], numbers, VALIDATION_SHARE, np.random.default_rng(seed))


def _absent_classes(whole: TrainValHoldout, rows: Rows) -> list[str]:
    return [name for c, name in enumerate(whole.classes) if not (whole.y[rows] == c).any()]


def _more_patients_remedy(whole: TrainValHoldout, test_size: float, split_seed: int, seed: int) -> str:
    """Remedy where a class has no group to validate on: a share that was tried, where one helps."""
    if any(record.split for record in whole.records):
        return "Move patients (groups) of every such class into train, until each has three there."
    for share in (0.4, 0.3, 0.25, 0.2, 0.1):
        if share < test_size:
            train = hold_out(whole, share, split_seed)["train"]
            if not _absent_classes(whole, train[_validation_mask(whole, train, seed)]):
                return f"Hold out fewer, --test-size {share}, or add patients (groups) of these classes."
    return "Add patients (groups): of each class four or more are needed."
