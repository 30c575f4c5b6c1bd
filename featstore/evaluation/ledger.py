"""The results table as a cache: what a round answered is never computed twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import featstore
from featstore.evaluation.contestants import build, competing_options
from featstore.fingerprint import digest, digest_bytes, digest_file
from featstore.store.results import record_result, recorded_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.contestants import Contestant
    from featstore.folds import Split
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]

LIBRARIES = ("joblib", "numba", "numpy", "scikit-learn", "scipy")
CODE = ("fusion/**/*.py", "evaluation/contestants.py", "evaluation/views.py")
"""Source files that can change an answer: they stand in the key by their content, not by a version number."""


@dataclass(slots=True)
class Reuse:
    """How many fits were asked for, and how many of them the cache had: their answers are what it says.

    A cache of a stranger may hold any answers: see docs/security.md.
    """

    asked: int = 0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Answers by round: who, on which vectors, trained on which images, asked about which.

    Attributes
    ----------
    root
        The cache folder.
    vectors
        SHA-256 of the vectors of each backbone in each view, by backbone.
    believes
        Whether what is in it is used; if not, it is only written.
    reuse
        Counts what is asked for.
    """

    root: Path
    vectors: Mapping[str, tuple[str, ...]]
    believes: bool = True
    reuse: Reuse = field(default_factory=Reuse, compare=False)

    @classmethod
    def of(
        cls, matrix: FeatureMatrix, root: Path, *, believes: bool = True, reuse: Reuse | None = None
    ) -> Self:
        """Ledger in `root` for the vectors of a matrix."""
        return cls(
            root,
            {
                block.name: tuple(
                    digest_bytes(np.ascontiguousarray(view[:, block.start : block.stop]).tobytes())
                    for view in matrix.features
                )
                for block in matrix.blocks
            },
            believes,
            reuse or Reuse(),
        )

    def find(self, matrix: FeatureMatrix, team: Sequence[Contestant], split: Split) -> list[Vector] | None:
        """Probabilities of the test images by contestant, if this round was played before."""
        self.reuse.asked += len(team)
        if not self.believes:
            return None
        shape = len(split[1]), len(matrix.classes)
        found = recorded_result(self.root, self._key(matrix, team, split), [shape] * len(team))
        self.reuse.taken += len(found or ())
        return found

    def enter(
        self, matrix: FeatureMatrix, team: Sequence[Contestant], split: Split, proba: Sequence[Vector]
    ) -> None:
        """Keep what was answered."""
        record_result(self.root, self._key(matrix, team, split), proba)

    def _key(self, matrix: FeatureMatrix, team: Sequence[Contestant], split: Split) -> dict[str, Any]:
        """Who is fitted together is part of it: company can change the last bits."""
        train, test = split
        learned = [train.tolist(), matrix.y[train].tolist(), matrix.groups[train].tolist()]
        return {
            "team": [_describe(contestant, matrix) for contestant in team],
            "vectors": {n: list(self.vectors[n]) for contestant in team for n in contestant.backbones},
            "training": digest(learned),
            "test": digest(test.tolist()),
            "software": _software(),
        }


def _describe(contestant: Contestant, matrix: FeatureMatrix) -> dict[str, Any]:
    unfitted = build(contestant, matrix, competing_options(contestant.strategy))
    return {
        "strategy": contestant.strategy,
        "backbones": list(contestant.backbones),
        "views": contestant.views,
        "test_views": contestant.test_views,
        "ids": digest([record.id for record in matrix.records]) if contestant.draws_views else None,
        "parameters": {name: repr(value) for name, value in unfitted.get_params().items()},
    }


@cache
def _software() -> str:
    here = Path(featstore.__file__).parent
    files = sorted(path for pattern in CODE for path in here.glob(pattern))
    return digest(
        {
            **{name: version(name) for name in LIBRARIES},
            **{path.relative_to(here).as_posix(): digest_file(path) for path in files},
        }
    )
