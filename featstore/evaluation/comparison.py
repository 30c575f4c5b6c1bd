"""Outcome of a comparison."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from featstore.evaluation.duels import Duel
    from featstore.evaluation.economics import Economics
    from featstore.evaluation.operating import Wish
    from featstore.evaluation.standing import Standing
    from featstore.evaluation.viewcurve import ViewPoint
    from featstore.evaluation.winner import Winner
    from featstore.findings import Finding


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Outcome of a comparison.

    Attributes
    ----------
    matrix
        What was compared on, as a plain dict: counts, classes, backbones, views.
    folds, repeats, fold_seed
        The cross-validation.
    wish
        Calibration and sensitivity asked for, and the positive class.
    standings
        Every contestant, in the order of the line-up: singles first.
    duels
        Every pair of contestants.
    winner
        The best of them, guarded against the winner's curse; None with a single contestant.
    curves
        By contestant: decision, calibration and risk-coverage curve over the out-of-fold probabilities of all images.
    drafts
        Backbones that the greedy contestants had in each fold; empty without any.
    view_curve
        A score by number of augmented views, if asked for.
    economics
        Cost and worth of the backbones, if asked for.
    own_split
        Whether the data set's own test images were scored, once, in place of folds.
    shortcuts
        Guesses that need no network, on the same images: see `featstore.evaluation.shortcuts`.
    findings
        What a reader of the scores must know, the gravest first.
    fits, fits_taken
        Fits that were asked for, and those of them that earlier runs had left in the cache. In ``run.json``, and not
        among the scores, which are the same however they were come by.
    """

    matrix: Mapping[str, Any]
    folds: int
    repeats: int
    fold_seed: int
    wish: Wish
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    winner: Winner | None
    curves: Mapping[str, Any]
    drafts: tuple[tuple[str, ...], ...] = ()
    view_curve: tuple[ViewPoint, ...] = ()
    economics: Economics | None = None
    own_split: bool = False
    shortcuts: tuple[Standing, ...] = ()
    findings: tuple[Finding, ...] = ()
    fits: int = 0
    fits_taken: int = 0

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict for ``--json`` and, without the examples of findings, which name files, ``metrics.json``."""
        return {
            "matrix": dict(self.matrix),
            "protocol": {
                "folds": self.folds,
                "repeats": self.repeats,
                "fold_seed": self.fold_seed,
                "calibrate": self.wish.calibrate,
                "sensitivity": self.wish.sensitivity,
                "own_split": self.own_split,
            },
            "findings": [finding.to_json(examples=examples) for finding in self.findings],
            "shortcuts": [
                {"name": s.contestant.label, "metrics": {m: asdict(e) for m, e in s.estimates.items()}}
                for s in self.shortcuts
            ],
            "contestants": [
                {
                    "name": s.contestant.label,
                    "strategy": s.contestant.strategy,
                    "backbones": list(s.contestant.backbones),
                    "views": s.contestant.views,
                    "test_views": s.contestant.test_views,
                    "chosen": [list(names) for names in self.drafts] if s.contestant.greedy else None,
                    "metrics": {name: asdict(estimate) for name, estimate in s.estimates.items()},
                    "spread": asdict(s.spread),
                    "curves": self.curves[s.contestant.label],
                }
                for s in self.standings
            ],
            "comparisons": [asdict(duel) for duel in self.duels],
            "winner": None if self.winner is None else asdict(self.winner),
            "view_curve": [asdict(point) for point in self.view_curve],
            "economics": None if self.economics is None else self.economics.to_json(),
        }

    def rows(self) -> Iterator[list[Any]]:
        """Lines of ``results.csv``: one per contestant, the header first; an empty cell is undefined."""
        metrics = list(self.standings[0].estimates)
        columns = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high")]
        yield ["contestant", "strategy", "backbones", "views", "test_views", *columns]
        for s in self.standings:
            who = s.contestant
            estimates = [s.estimates[name] for name in metrics]
            scores = [value for e in estimates for value in (e.mean, *(e.interval or (None, None)))]
            yield [who.label, who.strategy, "+".join(who.backbones), who.views, who.test_views, *scores]
