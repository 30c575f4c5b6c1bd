"""Dividing whole groups (patients) into parts that each hold every class, wherever that can be done.

scikit-learn's StratifiedGroupKFold deals groups out by size and never looks back, so with few groups it may leave a
part without a class although other divisions have them all. Here such a division is searched for: first which kinds
of groups (by the classes that they hold) make every part complete, by exhaustive search, then who exactly, by chance
and balance.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Rows = NDArray[np.intp]
    Kind = tuple[bool, ...]
    State = tuple[int, tuple[int, ...], tuple[int, ...]]

TRIES = 20
"""Divisions among which the one nearest to the wanted shares is taken."""
MOST_STATES = 50_000
"""States of the search before it is given up; a dozen groups of five classes need some hundred."""


def divide(y: Rows, groups: NDArray[np.generic], shares: Sequence[float], seed: int = 0) -> Rows | None:
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

    Returns
    -------
    None where no division gives every part every class: proven, unless the search has met `MOST_STATES`.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    table = np.zeros((numbers.max() + 1, y.max() + 1), np.intp)
    np.add.at(table, (numbers, y), 1)
    rng = np.random.default_rng(seed)
    best, nearest = None, np.inf
    for _ in range(TRIES):
        cores = _cores(table > 0, len(shares), rng)
        if cores is None:
            return None
        part_of, distance = _fill(table, cores, np.asarray(shares), rng)
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
                    return _by_part(path, self.parts)
                trail.append(self.moves(state))
        return None


def _by_part(path: Sequence[tuple[State, int]], parts: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(parts)]
    for (part, _, _), at in path:
        found[part].append(at)
    return found


def _fill(
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
