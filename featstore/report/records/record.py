"""A run folder read back: checked against its seals, and every number of the shape that it should have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from featstore import document, run
from featstore.errors import RunError, UsageError
from featstore.evaluation.fuse import Fusion
from featstore.report.records.answers import Answers, read_answers, with_votes
from featstore.report.records.readback import read_comparison, read_fusion
from featstore.report.records.reproduced import twins
from featstore.report.records.schema import EXTRACTION, PROVENANCE, REPRODUCED
from featstore.report.records.shape import ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from featstore.evaluation.comparison import Comparison
    from featstore.evaluation.standing import Standing
    from featstore.report.records.reproduced import Twin


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A run.

    Attributes
    ----------
    folder
        Where it lies.
    name
        What a report calls it: the name of its folder, with the one above where two are called alike.
    kind
        ``extract``, ``fuse``, ``compare`` or ``paper``.
    about
        ``run.json``.
    metrics
        ``metrics.json``; empty of an extraction.
    outcome
        What a fit or a comparison found, but for its probabilities; None of other kinds.
    twins
        Figures that the run keeps as files; empty but for a reproduction of the paper.
    answers
        By split, or by contestant: the leader and the single backbones, on the folds of the first repeat.
    """

    folder: Path
    name: str
    kind: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]
    outcome: Fusion | Comparison | None
    answers: Mapping[str, Answers]
    twins: tuple[Twin, ...] = ()

    @property
    def data_sha256(self) -> str:
        """Digest of the table that it saw."""
        holder = self.about["arguments"] if self.kind == "paper" else self.matrix
        digest: str = holder["data_sha256"]
        return digest

    @property
    def matrix(self) -> Mapping[str, Any]:
        """What it was fitted or compared on; of other kinds, what ``run.json`` knows."""
        return self.outcome.matrix if self.outcome is not None else self.about

    @property
    def shown(self) -> str | None:
        """Split or contestant whose answers a report is about: the test split, or the leader."""
        if isinstance(self.outcome, Fusion):
            return "test" if "test" in self.outcome.scores else list(self.outcome.scores)[-1]
        return None if self.outcome is None else leader(self.outcome).contestant.label


def read_records(folders: Sequence[Path]) -> list[Record]:
    """Read several run folders, each under a name of its own.

    Raises
    ------
    UsageError
        If there is none, or one is given twice.
    RunError
        As for `read_record`.
    """
    places = [folder.resolve() for folder in folders]
    if not places or len(set(places)) < len(places):
        raise UsageError(
            "A report needs runs, each of them once.", "Give RUN folders: featstore report RUN..."
        )
    records = [read_record(folder) for folder in folders]
    names = [record.name for record in records]
    return [
        record if names.count(record.name) == 1 else replace(record, name="/".join(place.parts[-2:]))
        for record, place in zip(records, places, strict=True)
    ]


def read_record(folder: Path) -> Record:
    """Read a run folder.

    Raises
    ------
    RunError
        If a part of it is absent, damaged, or of another shape than featstore writes.
    """
    about = run.read_run(folder)
    try:
        PROVENANCE(about, run.RUN)
        readers = {
            "fuse": _read_fuse,
            "compare": _read_compare,
            "extract": _read_extract,
            "paper": _read_paper,
        }
        if about["kind"] not in readers:
            raise RunError(
                f"{folder} holds a run of a kind that has no report: {about['kind'][:40]!r}.",
                "Give a run of `featstore extract`, `fuse`, `compare` or `paper`.",
            )
        return readers[about["kind"]](folder, about)
    except (ShapeError, document.DocumentError) as error:
        raise RunError(f"{folder} holds no readable run: {error}.", run.REMEDY) from error


def leader(comparison: Comparison) -> Standing:
    """Contestant with the highest primary metric."""
    return max(comparison.standings, key=lambda standing: standing.primary)


def _read_extract(folder: Path, about: Mapping[str, Any]) -> Record:
    EXTRACTION(about, run.RUN)
    return Record(folder, folder.resolve().name, "extract", about, {}, None, {})


def _read_paper(folder: Path, about: Mapping[str, Any]) -> Record:
    REPRODUCED(about, run.RUN)
    metrics = _metrics(folder, about)
    return Record(
        folder, folder.resolve().name, "paper", about, metrics, None, {}, twins(folder, about, metrics)
    )


def _read_fuse(folder: Path, about: Mapping[str, Any]) -> Record:
    metrics = _metrics(folder, about)
    outcome = read_fusion(metrics)
    answers = read_answers(
        run.read_own(folder, about, run.PREDICTIONS),
        "split",
        list(outcome.scores),
        list(outcome.matrix["classes"]),
    )
    return Record(folder, folder.resolve().name, "fuse", about, metrics, outcome, answers)


def _read_compare(folder: Path, about: Mapping[str, Any]) -> Record:
    metrics = _metrics(folder, about)
    outcome = read_comparison(metrics)
    first, singles = leader(outcome).contestant, _voters(outcome)
    answers = read_answers(
        run.read_own(folder, about, run.PREDICTIONS),
        "contestant",
        list(dict.fromkeys([first.label, *singles])),
        list(outcome.matrix["classes"]),
        outcome.folds,
    )
    voters = {backbone: answers[label] for label, backbone in singles.items()}
    voted = with_votes(answers[first.label], voters)
    return Record(
        folder, folder.resolve().name, "compare", about, metrics, outcome, {**answers, first.label: voted}
    )


def _voters(comparison: Comparison) -> dict[str, str]:
    """Backbone by label of the single backbones that trained and were tested on the views that the leader had."""
    first = leader(comparison).contestant
    return {
        s.contestant.label: s.contestant.backbones[0]
        for s in comparison.standings
        if len(s.contestant.backbones) == 1
        and (s.contestant.views, s.contestant.test_views) == (first.views, first.test_views)
    }


def _metrics(folder: Path, about: Mapping[str, Any]) -> Any:  # noqa: ANN401
    return document.parse(run.read_own(folder, about, run.METRICS))
