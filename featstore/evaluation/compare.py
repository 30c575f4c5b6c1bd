"""`compare`: strategies and single backbones on identical folds, and what the difference is worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from featstore.errors import UnknownNameError
from featstore.evaluation import run
from featstore.evaluation.contestants import line_up
from featstore.evaluation.folds import group_folds
from featstore.evaluation.tournament import Duel, Standing, draft, duels, play, resamples, standing
from featstore.matrix import Source, load_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from featstore.evaluation.folds import Split
    from featstore.matrix import FeatureMatrix


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Outcome of a comparison.

    Attributes
    ----------
    matrix
        What was compared on, as a plain dict: counts, classes, backbones, views.
    folds, repeats, fold_seed
        The cross-validation.
    standings
        Every contestant, in the order of the line-up: singles first.
    duels
        Fusions against the best single backbone.
    drafts
        Backbones that the greedy contestants had in each fold; empty without any.
    """

    matrix: Mapping[str, Any]
    folds: int
    repeats: int
    fold_seed: int
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    drafts: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json`` and ``metrics.json``."""
        return {
            "matrix": dict(self.matrix),
            "protocol": {"folds": self.folds, "repeats": self.repeats, "fold_seed": self.fold_seed},
            "contestants": [
                {
                    "name": s.contestant.label,
                    "strategy": s.contestant.strategy,
                    "backbones": list(s.contestant.backbones),
                    "chosen": [list(names) for names in self.drafts] if s.contestant.greedy else None,
                    "metrics": {name: asdict(estimate) for name, estimate in s.estimates.items()},
                }
                for s in self.standings
            ],
            "comparisons": [asdict(duel) for duel in self.duels],
        }


def compare(
    data: str | Path,
    *,
    strategies: Sequence[str] | str = "all",
    subsets: Sequence[Sequence[str]] | str = "singles",
    folds: int = 5,
    repeats: int = 1,
    fold_seed: int = 0,
    positive: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
    **source: Unpack[Source],
) -> Comparison:
    """Cross-validate strategies and single backbones on the same group-stratified folds.

    Everyone trains on all views of the training images and is scored on the identity view of the test images.
    Intervals come from 2000 bootstrap resamples of the groups, shared by all, so differences are paired.

    Parameters
    ----------
    data
        A folder or a CSV manifest whose features are in the store.
    strategies
        Names, or ``all``.
    subsets
        ``singles`` (each backbone alone, and all together), ``all``, ``greedy``, names joined by plus signs, several
        of these with commas, or lists of names: see `featstore.evaluation.contestants.line_up`.
    folds, repeats, fold_seed
        Cross-validation; two calls with the same values give the same folds and the same numbers.
    positive
        Class that sensitivity is about, with two classes; default the last in sorted order.
    out, overwrite
        Folder for the run; None writes nothing.
    jobs
        Processes; -1 for one per core.
    progress
        Show a bar on stderr.
    **source
        Which features: see `featstore.matrix.Source`.
    """
    if out is not None:
        run.prepare(Path(out), overwrite=overwrite)
    matrix = load_matrix(data, **source)
    contestants = line_up(strategies, subsets, matrix.backbones)
    index = positive_index(matrix.classes, positive)
    splits = group_folds(matrix, folds, repeats, fold_seed)
    proba: list[list[NDArray[np.float64]]] = [[] for _ in contestants]
    drafts = draft(matrix, contestants, splits, jobs)
    for at, values in _with_bar(
        play(matrix, contestants, splits, jobs, drafts), len(contestants) * len(splits), progress
    ):
        proba[at].append(values)
    weights_drawn = resamples(matrix, fold_seed)
    standings = [
        standing(matrix, contestant, splits, values, index, weights_drawn)
        for contestant, values in zip(contestants, proba, strict=True)
    ]
    result = Comparison(
        run.describe(matrix, Path(data), index),
        folds,
        repeats,
        fold_seed,
        tuple(standings),
        tuple(duels(standings)),
        tuple(drafts),
    )
    if out is not None:
        document = result.to_json()
        run.clear(Path(out))
        run.write_run(
            Path(out),
            {"kind": "compare", "matrix": document["matrix"], "protocol": document["protocol"]},
            document,
            _predictions(matrix, standings, splits, Path(data)),
        )
    return result


def positive_index(classes: Sequence[str], positive: str | None) -> int | None:
    """Index of the positive class: the named one, else with two classes the last; None means macro averages."""
    if positive is None:
        return 1 if len(classes) == 2 else None  # noqa: PLR2004
    if positive not in classes:
        raise UnknownNameError(f"There is no class {positive!r}.", f"Choose among: {', '.join(classes)}.")
    return list(classes).index(positive)


def _with_bar(
    results: Iterator[tuple[int, int, NDArray[np.float64]]],
    total: int,
    show: bool,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    from tqdm import tqdm

    for contestant, _, values in tqdm(results, total=total, unit="fit", desc="compare", disable=not show):
        yield contestant, values


def _predictions(
    matrix: FeatureMatrix, standings: Sequence[Standing], splits: Sequence[Split], data: Path
) -> Iterator[list[Any]]:
    """Out-of-fold predictions of everyone, a line per contestant, fold and image."""
    yield ["contestant", "fold", *image_header(), "predicted", *(f"p({name})" for name in matrix.classes)]
    for s in standings:
        for fold, ((_, test), proba) in enumerate(zip(splits, s.proba, strict=True)):
            for i, p in zip(test, proba, strict=True):
                predicted = matrix.classes[int(p.argmax())]
                yield [
                    s.contestant.label,
                    fold,
                    *image_cells(matrix, int(i), data),
                    predicted,
                    *map(float, p),
                ]


def image_header() -> list[str]:
    """Names of the columns that `image_cells` fills."""
    return ["image_id", "path", "frame", "group", "label"]


def image_cells(matrix: FeatureMatrix, row: int, data: Path) -> list[Any]:
    """Say which image a line is about; its path relative to the data set."""
    record = matrix.records[row]
    root = data if data.is_dir() else data.parent
    path = record.path.relative_to(root) if record.path.is_relative_to(root) else record.path
    return [record.id, str(path), record.frame, record.group, record.label]
